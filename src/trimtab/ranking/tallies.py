"""Running sums over traces and within problems, in float64; per neuron where experts leave some without a value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.moments import Moments
from trimtab.ranking.contrast import Statistic

Presence: TypeAlias = NDArray[np.bool_] | None
"""Where there is a value, in the shape of the values; None is everywhere, as in every dense model."""

Times: TypeAlias = NDArray[np.bool_] | NDArray[np.int64] | int
"""How often a value counts: an integer for all neurons, or an array that broadcasts to the value; False and 0 leave it out."""


def presence(moments: Moments) -> Presence:
    """``[trace, layer, d_ff]``: in a mixture of experts, whether any token of the trace was routed to the neuron's expert."""
    if not moments.is_mixture:
        return None
    d_ff = next(array.shape[2] for array in (moments.sum, moments.magnitude, moments.square) if array is not None)
    # from the counts, not from NaN means: NaN in a token that was routed is a broken recording
    return np.repeat(moments.count > 0, d_ff // moments.n_experts, axis=2)


@dataclass(slots=True)
class Tally:
    """A running sum of values, and how many there were."""

    total: NDArray[np.float64]
    n: NDArray[np.int64] | int = 0

    def add(self, value: NDArray[np.floating], times: Times = 1) -> None:
        """Count a value this often; where that is 0, the value may be NaN."""
        self.total += value if isinstance(times, int) else np.where(times > 0, value, 0) * times
        self.n = self.n + times

    def mean(self) -> NDArray[np.float64]:
        """NaN where there was no value."""
        with np.errstate(invalid="ignore"):
            return self.total / self.n


@dataclass(slots=True)
class Spread:
    """Welford's running mean and sum of squared deviations."""

    centre: NDArray[np.float64]
    squares: NDArray[np.float64]
    n: NDArray[np.int64] | int = 0

    def add(self, value: NDArray[np.float64], times: Times = 1) -> None:
        """Count a value ``times`` times; where that is 0, the value may be NaN."""
        if not isinstance(times, int):
            value = np.where(times > 0, value, self.centre)
        self.n = self.n + times
        deviation = value - self.centre
        self.centre += deviation * times / np.maximum(self.n, 1)
        self.squares += times * deviation * (value - self.centre)

    def mean(self) -> NDArray[np.float64]:
        """NaN where there was no value."""
        return np.where(np.asarray(self.n) > 0, self.centre, np.nan)

    def variance(self) -> NDArray[np.float64]:
        """Sample variance (n - 1); NaN where there were fewer than two values."""
        n = np.asarray(self.n)
        return np.divide(self.squares, n - 1, out=np.full_like(self.squares, np.nan), where=n > 1)


@dataclass(slots=True)
class FiniteCheck:
    """Counts the traces that hold NaN or infinity, so that one error can name all of them.

    Args:
        first_layer: where the arrays begin.
    """

    first_layer: int = 0
    n_traces: int = 0
    n_broken: int = 0
    layers: set[int] = field(default_factory=set)

    def usable(self, arrays: list[NDArray[np.float32]], present: Presence) -> NDArray[np.bool_]:
        """Which traces are finite in every ``[trace, layer, d_ff]`` array, where they have a value."""
        usable = np.ones(len(arrays[0]), np.bool_)
        for values in arrays:
            finite = np.isfinite(values) if present is None else np.isfinite(values) | ~present
            rows, layers = np.nonzero(~finite.all(axis=2))
            usable[rows] = False
            self.layers.update(layers.tolist())
        self.n_traces += len(usable)
        self.n_broken += int((~usable).sum())
        return usable

    def raise_if_broken(self) -> None:
        """Raise InputError when any trace was not finite."""
        if self.n_broken:
            raise InputError(
                f"{self.n_broken} of {self.n_traces} traces hold NaN or infinite activations, first in layer "
                f"{self.first_layer + min(self.layers)}; record them again in float32 or bfloat16, or leave those traces out"
            )


@dataclass(slots=True)
class _Problem:
    """A problem whose traces were not all seen; keys are verdicts."""

    n: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    sums: dict[bool, Tally] = field(default_factory=dict)
    rows: dict[bool, list[NDArray[np.float32]]] = field(default_factory=lambda: {True: [], False: []})


@dataclass(slots=True)
class WithinProblems:
    """Differences and AUROC within problems, so that a hard problem does not masquerade as incorrect reasoning; each
    problem's memory is freed when its last trace was seen."""

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
            correct, incorrect = state.sums[True], state.sums[False]
            both = 1 if isinstance(correct.n, int) else (correct.n > 0) & (np.asarray(incorrect.n) > 0)
            self.differences.add(correct.mean() - incorrect.mean(), both)
        if "auroc" in self.statistics:
            auroc = auroc_of_pairs(state.rows[True], state.rows[False])
            self.auroc.add(auroc, ~np.isnan(auroc))


def auroc_of_pairs(correct: Sequence[NDArray[np.float32]], incorrect: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Share of (correct, incorrect) pairs of traces in which the correct one is higher, ties one half; NaN where one side has
    only NaN."""
    wins = np.zeros(correct[0].shape, np.int64)
    for above in correct:
        for below in incorrect:
            wins += above > below
            wins -= above < below
    n_correct, n_incorrect = ((~np.isnan(np.stack(rows))).sum(axis=0) for rows in (correct, incorrect))
    with np.errstate(invalid="ignore"):
        return 0.5 + 0.5 * wins / (n_correct * n_incorrect)
