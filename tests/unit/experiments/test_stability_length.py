"""Pairs of about equal length."""

from itertools import combinations, permutations

import numpy as np
import pytest

from trimtab.experiments.stability_length import by_problem, matched_pairs, random_pairs
from trimtab.tasks.contrast import ContrastRow


def _best(good: list[str], bad: list[str], lengths: dict[str, int], tolerance: float) -> tuple[int, float]:
    """Most pairs, and the least sum of their differences, by trying all of them."""
    for size in range(min(len(good), len(bad)), 0, -1):
        costs = []
        for some in combinations(good, size):
            for others in permutations(bad, size):
                off = [abs(lengths[a] - lengths[b]) / max(lengths[a], lengths[b]) for a, b in zip(some, others, strict=True)]
                if max(off) <= tolerance:
                    costs.append(sum(off))
        if costs:
            return size, min(costs)
    return 0, 0.0


@pytest.mark.parametrize("seed", range(20))
def test_most_pairs_and_the_most_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    good, bad = [f"g{i}" for i in range(rng.integers(1, 5))], [f"b{i}" for i in range(rng.integers(1, 5))]
    lengths = {trace: int(rng.integers(10, 20)) for trace in good + bad}
    pairs = matched_pairs(good, bad, lengths, 0.15)
    off = [abs(lengths[a] - lengths[b]) / max(lengths[a], lengths[b]) for a, b in pairs]
    size, cost = _best(good, bad, lengths, 0.15)
    assert (len(pairs), sum(off)) == (size, pytest.approx(cost))
    assert len({a for a, _ in pairs} & set(good)) == len({b for _, b in pairs} & set(bad)) == len(pairs)


def test_two_near_pairs_are_better_than_an_equal_one() -> None:
    lengths = {"a": 100, "b": 114, "c": 114, "d": 131}
    assert matched_pairs(["a", "b"], ["c", "d"], lengths, 0.15) == [("a", "c"), ("b", "d")]


def test_no_tolerance_takes_equal_lengths_only() -> None:
    assert matched_pairs(["a", "b"], ["c", "d"], {"a": 5, "b": 6, "c": 6, "d": 7}, 0.0) == [("b", "c")]


def test_random_pairs_are_of_the_same_problems() -> None:
    rows = [ContrastRow(f"{problem}{i}", problem, i < 3) for problem in "pq" for i in range(6)]
    sides = by_problem(rows)
    assert sides["p"] == (["p0", "p1", "p2"], ["p3", "p4", "p5"])
    drawn = random_pairs(sides, {"q": 2}, np.random.default_rng(0))
    assert len(drawn) == 2
    assert {good for good, _ in drawn} < {"q0", "q1", "q2"}
    assert {bad for _, bad in drawn} < {"q3", "q4", "q5"}
    seen = {pair for seed in range(30) for pair in random_pairs(sides, {"q": 1}, np.random.default_rng(seed))}
    assert len(seen) == 9
