"""Two conditions side by side: the same problems, and of each problem the same responses."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.evaluation.outcomes import ChainKey, Outcome, by_problem
from trimtab.stats import verdict
from trimtab.stats.paired import compare
from trimtab.stats.values import PairedComparison
from trimtab.stats.verdict import UnscoredBounds

Chains = Mapping[str, Mapping[ChainKey, Outcome]]


class Correctness(NamedTuple):
    """Which chains are correct, ``[problem, chain]``; of both conditions the first ``shared`` chains of a problem are pairs."""

    base: NDArray[np.bool_]
    condition: NDArray[np.bool_]
    shared: int


def paired(base: Sequence[Outcome], condition: Sequence[Outcome]) -> PairedComparison:
    """Compare two conditions on the same problems; an unscored chain counts as not correct.

    Raises:
        InputError: the conditions hold other problems, or a condition has other chains for one problem than for another.
        NotEnoughDataError: no problem.
    """
    return compare(*correctness(base, condition))


def unscored_bounds(base: Sequence[Outcome], condition: Sequence[Outcome]) -> UnscoredBounds | None:
    """How far unscored chains could move the comparison; None when all were scored."""
    scored, right = (correctness(base, condition, unscored_base=counted, unscored_condition=counted) for counted in (False, True))
    unscored = right.base & ~scored.base, right.condition & ~scored.condition
    return verdict.unscored_bounds(scored.base, scored.condition, *unscored, shared=scored.shared)


def matched(base: Sequence[Outcome], condition: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """Pairs of responses: those of one problem, seed and sample that both conditions have.

    With one response a problem in both conditions the pair is the problem, whatever the seed.
    """
    before, after = _same_problems(base, condition)
    first, second, shared = _columns(before, after)
    return [
        (before[problem][one], after[problem][other])
        for problem in before
        for one, other in zip(first[:shared], second[:shared], strict=True)
    ]


def correctness(
    base: Sequence[Outcome], condition: Sequence[Outcome], *, unscored_base: bool = False, unscored_condition: bool = False
) -> Correctness:
    """Correct chains of both conditions, problems in the base's order; unscored ones count as ``unscored_base``,
    ``unscored_condition``."""
    before, after = _same_problems(base, condition)
    first, second, shared = _columns(before, after)
    return Correctness(
        _matrix(before, list(before), first, unscored_base), _matrix(after, list(before), second, unscored_condition), shared
    )


def _same_problems(base: Sequence[Outcome], condition: Sequence[Outcome]) -> tuple[Chains, Chains]:
    before, after = by_problem(base), by_problem(condition)
    if before.keys() != after.keys():
        alone = {"the base": sorted(before.keys() - after.keys()), "the other condition": sorted(after.keys() - before.keys())}
        listed = "; ".join(f"only {side} has {len(ids)}, first {ids[0]!r}" for side, ids in alone.items() if ids)
        raise InputError(f"two conditions are compared on the same problems, but {listed}; evaluate both on one set of problems")
    return before, after


def _columns(before: Chains, after: Chains) -> tuple[list[ChainKey], list[ChainKey], int]:
    """The chains of each condition, those that both have first, and how many these are."""
    if not before:
        return [(0, 0)], [(0, 0)], 1
    first, second = (sorted(next(iter(side.values()))) for side in (before, after))
    if len(first) == len(second) == 1:
        return first, second, 1
    shared = [key for key in first if key in second]
    rest = [[key for key in side if key not in shared] for side in (first, second)]
    return shared + rest[0], shared + rest[1], len(shared)


def _matrix(chains: Chains, problems: Sequence[str], columns: Sequence[ChainKey], unscored: bool) -> NDArray[np.bool_]:
    rows = [[chain.correct or (unscored and chain.unscored) for chain in map(chains[p].__getitem__, columns)] for p in problems]
    return np.array(rows, np.bool_).reshape(len(problems), len(columns))
