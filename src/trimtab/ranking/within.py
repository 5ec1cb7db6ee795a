"""What is compared within a problem, so that a hard problem does not masquerade as incorrect_mean reasoning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.ranking.contrast import Statistic
from trimtab.ranking.tallies import Presence, Spread, Tally


@dataclass(slots=True)
class _Problem:
    """A problem whose traces were not all seen; keys are verdicts."""

    n: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    sums: dict[bool, Tally] = field(default_factory=dict)
    rows: dict[bool, list[NDArray[np.float32]]] = field(default_factory=lambda: {True: [], False: []})


@dataclass(slots=True)
class WithinProblems:
    """Differences and AUROC over problems, each problem's memory freed when its last trace was seen."""

    shape: tuple[int, ...]
    statistics: frozenset[Statistic]
    traces_per_problem: Mapping[str, int] | None
    differences: Spread = field(init=False)
    auroc: Tally = field(init=False)
    n_problems: int = 0
    open: dict[str, _Problem] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.differences = Spread(np.zeros(self.shape), np.zeros(self.shape))
        self.auroc = Tally(np.zeros(self.shape))

    def add(self, problem: str, verdict: bool, mean: NDArray[np.float32], present: Presence) -> None:
        """One trace: its mean ``[layer, d_ff]``, and where it has one."""
        expected = None if self.traces_per_problem is None else self.traces_per_problem.get(problem, 0)
        if problem in self.closed or expected == 0:
            raise InputError(f"problem {problem!r} has more traces than the {expected or 0} announced in traces_per_problem")
        state = self.open.setdefault(problem, _Problem())
        state.n[verdict] += 1
        if "difference" in self.statistics:
            if verdict not in state.sums:
                state.sums[verdict] = Tally(np.zeros(self.shape))
            state.sums[verdict].add(mean, 1 if present is None else present)
        if "auroc" in self.statistics:
            # a copy, or the row would keep the whole part that it is a view of
            state.rows[verdict].append(mean.copy() if present is None else np.where(present, mean, np.nan))
        if expected == sum(state.n.values()):
            self.closed.add(problem)
            self._close(problem)

    def finish(self) -> None:
        """Close what is still open."""
        while self.open:
            self._close(next(iter(self.open)))

    def _close(self, problem: str) -> None:
        state = self.open.pop(problem)
        if not all(state.n.values()):
            return
        self.n_problems += 1
        if "difference" in self.statistics:
            correct_mean, incorrect_mean = state.sums[True], state.sums[False]
            everywhere = isinstance(correct_mean.n, int)
            self.differences.add(
                correct_mean.mean() - incorrect_mean.mean(),
                1 if everywhere else (correct_mean.n > 0) & (np.asarray(incorrect_mean.n) > 0),
            )
        if "auroc" in self.statistics:
            auroc = auroc_of_pairs(state.rows[True], state.rows[False])
            self.auroc.add(auroc, ~np.isnan(auroc))


def auroc_of_pairs(
    correct_mean: Sequence[NDArray[np.float32]], incorrect_mean: Sequence[NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Share of (correct_mean, incorrect_mean) pairs in which the correct_mean one is higher, ties one half; NaN where one side
    has only NaN."""
    wins = np.zeros(correct_mean[0].shape, np.int64)
    for above in correct_mean:
        for below in incorrect_mean:
            wins += above > below
            wins -= above < below
    n_correct, n_incorrect = ((~np.isnan(np.stack(rows))).sum(axis=0) for rows in (correct_mean, incorrect_mean))
    with np.errstate(invalid="ignore"):
        return 0.5 + 0.5 * wins / (n_correct * n_incorrect)
