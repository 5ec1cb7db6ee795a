"""Data that changed on the way is noticed."""

from dataclasses import replace

import pytest

from trimtab.errors import InputError
from trimtab.tasks.provenance import Origin, Provenance, digest_of_problems, refuse_changed
from trimtab.traces import Problem, Split

PROBLEM = Problem("p", "What is 2 + 2?", "4", Split.FIND)
OTHER = Problem("q", "What is 2 + 3?", "5", Split.TEST)


def test_the_digest_names_the_problems_and_not_their_order() -> None:
    digest = digest_of_problems([PROBLEM, OTHER])
    assert digest_of_problems([OTHER, PROBLEM]) == digest
    for field, value in {
        "id": "r",
        "question": "?",
        "answer": "5",
        "split": Split.TUNE,
        "tests": "{}",
        "choices": ("a",),
    }.items():
        assert digest_of_problems([replace(PROBLEM, **{field: value}), OTHER]) != digest
    assert digest_of_problems([PROBLEM]) != digest


def _provenance(problem: Problem, revision: str) -> dict[str, object]:
    origin = Origin("openai/gsm8k", "main", "test", revision, rows=1)
    return Provenance("gsm8k", (origin,), digest_of_problems([problem]), {"why": 1}).to_json()


def test_another_commit_with_the_same_problems_is_accepted() -> None:
    refuse_changed(_provenance(PROBLEM, "aaa"), _provenance(PROBLEM, "bbb"), "resume")


def test_other_problems_are_refused_and_the_commits_named() -> None:
    with pytest.raises(InputError, match=r"resume: .*openai/gsm8k@test@aaa@1 -> openai/gsm8k@test@bbb@1; digest: .* -> .*; pin"):
        refuse_changed(_provenance(PROBLEM, "aaa"), _provenance(OTHER, "bbb"), "resume")
