"""Splits by hash, samples and bounds."""

from collections import Counter

import pytest

from trimtab.errors import InputError
from trimtab.tasks.splits import bounded, named_split, shuffled, split_by_hash, split_facts
from trimtab.traces import Problem, Split


def _problems(n: int, split: Split = Split.TRAIN) -> list[Problem]:
    return [Problem(f"p{i}", f"question {i}", "1", split, domain="sums" if i % 2 else "") for i in range(n)]


@pytest.mark.parametrize(
    ("among", "shares"),
    [
        (tuple(Split), {Split.TRAIN: 0.5, Split.VALIDATION: 0.2, Split.TEST: 0.3}),
        ((Split.TRAIN, Split.VALIDATION), {Split.TRAIN: 5 / 7, Split.VALIDATION: 2 / 7}),
        ((Split.TEST,), {Split.TEST: 1.0}),
    ],
)
def test_shares(among: tuple[Split, ...], shares: dict[Split, float]) -> None:
    counts = Counter(split_by_hash(f"question {i}", among) for i in range(4000))
    assert {split: n / 4000 for split, n in counts.items()} == pytest.approx(shares, abs=0.03)


def test_named_split() -> None:
    assert named_split("validation") is Split.VALIDATION
    with pytest.raises(InputError, match="unknown split 'tuning'; accepted: train, validation, test"):
        named_split("tuning")


def test_a_shuffle_is_a_permutation_and_does_not_depend_on_the_order_of_the_file() -> None:
    problems = _problems(50)
    once = shuffled(problems, 0)
    assert once != problems
    assert sorted(once, key=lambda p: int(p.id[1:])) == problems
    assert shuffled(reversed(problems), 0) == once
    assert shuffled(problems, 1) != once


def test_fewer_problems_are_the_first_of_more() -> None:
    problems = shuffled([*_problems(30), *[Problem(f"t{i}", f"test {i}", "1", Split.TEST) for i in range(30)]], 0)
    many = bounded(problems, {Split.TRAIN: 20, Split.VALIDATION: 5, Split.TEST: 20})
    few = bounded(problems, {Split.TRAIN: 7, Split.VALIDATION: 0, Split.TEST: 3})
    assert [p.split for p in few] == [Split.TRAIN] * 7 + [Split.TEST] * 3
    assert few == [*many[:7], *many[20:23]]


def test_split_facts() -> None:
    problems = [
        *_problems(3),
        Problem("t0", "Question 0!", "1", Split.TEST),
        Problem("t1", "something else", "1", Split.TEST, "new"),
    ]
    facts = split_facts(problems)
    assert facts.problems == {Split.TRAIN: 3, Split.VALIDATION: 0, Split.TEST: 2}
    assert facts.domains == {
        "new": {Split.TRAIN: 0, Split.VALIDATION: 0, Split.TEST: 1},
        "sums": {Split.TRAIN: 1, Split.VALIDATION: 0, Split.TEST: 0},
    }
    near = facts.to_json()["near_duplicates"]
    assert isinstance(near, dict)
    assert (near["validation"], near["test"]) == ({"same": 0, "numbers": 0, "near": 0}, {"same": 1, "numbers": 0, "near": 0})
    assert [(pair["id"], pair["other"]) for pair in near["pairs"]] == [("t0", "p0")]
