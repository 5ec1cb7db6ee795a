"""What is paired, refused and listed, against counting by hand."""

import numpy as np
import pytest

from trimtab.comparison.pairing import differences, pair
from trimtab.comparison.results import Results, ScoredResponse, TaskResults, by_document
from trimtab.errors import ConfigError, InputError


def task(scores: dict[str, str], *, hashes: str = "same", prompts: str = "same", **settings: str) -> TaskResults:
    """A document each key, a sample each character: 1 correct, 0 incorrect, u unscored."""
    responses = [
        ScoredResponse(document, {"1": True, "0": False}.get(one), str(i), document_hash=hashes, prompt_hash=prompts)
        for document, pattern in scores.items()
        for i, one in enumerate(pattern)
    ]
    return TaskResults(by_document("x", responses), settings)


def results(source: str, **tasks: TaskResults) -> Results:
    return Results(source, "test", "", tasks)


def test_pairs_flips_and_unscored_by_hand() -> None:
    paired = pair("t", task({"a": "0", "b": "1", "c": "1", "d": "u"}), task({"d": "1", "c": "0", "b": "1", "a": "1"}))
    assert paired.sides[0].ravel().tolist() == [False, True, True, False]
    assert paired.sides[1].ravel().tolist() == [True, True, False, True], "in the order of the base"
    assert [flip.document for flip in paired.flips] == ["a", "c", "d"]
    assert [flip.kind for flip in paired.flips] == ["fixed", "broken", "fixed"]
    assert np.argwhere(paired.unscored[0]).tolist() == [[3, 0]]
    assert not paired.unscored[1].any()


def test_samples_of_both_are_pairs_and_come_first() -> None:
    base = TaskResults(by_document("x", [ScoredResponse("a", one in "13", one) for one in "123"]))
    other = TaskResults(by_document("x", [ScoredResponse("a", one == "3", one) for one in "34"]))
    paired = pair("t", base, other)
    assert paired.shared == 1
    assert paired.sides[0].tolist() == [[True, True, False]]
    assert paired.sides[1].tolist() == [[True, False]]
    assert paired.flips == ()


def test_one_sample_each_is_a_pair_whatever_its_number() -> None:
    base, other = (TaskResults(by_document("x", [ScoredResponse("a", score, n)])) for score, n in ((True, "3"), (False, "7")))
    paired = pair("t", base, other)
    assert (paired.shared, [flip.kind for flip in paired.flips]) == (1, ["broken"])


def test_nothing_differs() -> None:
    names, found = differences(results("a", t=task({"x": "1"})), results("b", t=task({"x": "0"})), ())
    assert (names, found) == ({"t": ("t", "t")}, [])


def test_an_unnamed_task_is_the_only_one_of_the_other() -> None:
    names, _ = differences(results("a", t=task({"x": "1"})), Results("b", "test", "", {"": task({"x": "0"})}), ())
    assert names == {"t": ("t", "")}


@pytest.mark.parametrize(
    ("other", "kind", "text"),
    [
        (results("b", t=task({"x": "1"}, version="1")), "documents", "documents: 1 only in A: y"),
        (results("b", t=task({"x": "1", "y": "1", "z": "0"}, version="1")), "documents", "documents: 1 only in B: z"),
        (results("b", t=task({"x": "1", "y": "1"}, version="2")), "version", "version: 1 -> 2"),
        (
            results("b", t=task({"x": "1", "y": "1"}, version="1"), more=task({"x": "1"})),
            "tasks",
            "tasks: 1 task only in b: more",
        ),
    ],
)
def test_a_difference_is_refused_until_it_is_allowed(other, kind, text) -> None:
    base = results("a", t=task({"x": "1", "y": "0"}, version="1"))
    with pytest.raises(ConfigError) as refusal:
        differences(base, other, ())
    assert f"\n  {text}\n" in str(refusal.value)
    assert str(refusal.value).endswith(f"--allow {kind}")
    _, found = differences(base, other, (kind,))
    assert [(item.kind, item.text) for item in found] == [(kind, text)]


def test_another_document_is_never_allowed() -> None:
    base, other = results("a", t=task({"x": "1"})), results("b", t=task({"x": "1"}, hashes="other"))
    with pytest.raises(InputError, match="a and b hold other documents under the same ids of t: 1 of 1, x"):
        differences(base, other, ("documents", "tasks"))


def test_prompts_and_what_is_not_known_are_listed() -> None:
    base = results("a", t=task({"x": "1"}, version="1"))
    _, found = differences(base, results("b", t=task({"x": "1"}, prompts="other", hashes="")), ())
    assert [item.text for item in found] == [
        "version: 1 -> (not told)",
        "prompts: 1 of 1 document were asked otherwise: x",
        "documents: paired by id alone, since B has no text of them",
    ]


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(InputError, match="no document of t in common: x and y"):
        differences(results("a", t=task({"x": "1"})), results("b", t=task({"y": "1"})), ("documents",))
    with pytest.raises(InputError, match="share no task: t and u"):
        differences(results("a", t=task({"x": "1"})), results("b", u=task({"x": "1"})), ("tasks",))
