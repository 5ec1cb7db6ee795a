"""Data that changed on the way is noticed."""

from dataclasses import replace

from trimtab.tasks.provenance import Origin, Provenance, digest_of_problems
from trimtab.traces import Problem, Split

PROBLEM = Problem("p", "What is 2 + 2?", "4", Split.TRAIN)
OTHER = Problem("q", "What is 2 + 3?", "5", Split.TEST)


def test_the_digest_names_the_problems_and_not_their_order() -> None:
    digest = digest_of_problems([PROBLEM, OTHER])
    assert digest_of_problems([OTHER, PROBLEM]) == digest
    for field, value in {
        "id": "r",
        "question": "?",
        "answer": "5",
        "split": Split.VALIDATION,
        "tests": "{}",
        "choices": ("a",),
    }.items():
        assert digest_of_problems([replace(PROBLEM, **{field: value}), OTHER]) != digest
    assert digest_of_problems([PROBLEM]) != digest


def test_what_is_recorded_with_the_problems() -> None:
    origin = Origin("openai/gsm8k", "main", "test", "aaa", rows=1)
    recorded = Provenance("gsm8k", (origin,), "d1", {"why": 1}).to_json()
    assert recorded["digest"] == "d1"
    assert recorded["origins"] == [{"where": "openai/gsm8k", "config": "main", "split": "test", "revision": "aaa", "rows": 1}]
