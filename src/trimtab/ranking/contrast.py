"""Moments of the correct and of the incorrect traces: all that a criterion reads."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.moments import Moments

LabelledMoments: TypeAlias = tuple[Moments, Sequence[str], Sequence[bool]]


@dataclass(frozen=True, slots=True, eq=False)
class ClassMoments:
    """Class means over traces, and within-problem differences over problems.

    A class mean is the mean over the traces of a class of the per-trace mean ``m1``, so every trace weighs the same, however
    long. The difference of a problem is the mean of ``m1`` over its correct traces minus the mean over its incorrect ones; only
    problems with both verdicts have one.

    Args:
        good_mean, bad_mean: float64 ``[layer, d_ff]``, of the correct and of the incorrect traces.
        good_magnitude, bad_magnitude: the same of the per-trace mean magnitude, or None when it was not recorded.
        n_good, n_bad: number of traces in each class.
        difference_mean: float64 ``[layer, d_ff]``, mean over problems of the difference; NaN when no problem has both verdicts.
        difference_variance: float64 ``[layer, d_ff]``, its sample variance (n - 1); NaN when fewer than two problems have both.
        n_problems: number of problems with both verdicts.
    """

    good_mean: NDArray[np.float64]
    bad_mean: NDArray[np.float64]
    good_magnitude: NDArray[np.float64] | None
    bad_magnitude: NDArray[np.float64] | None
    n_good: int
    n_bad: int
    difference_mean: NDArray[np.float64]
    difference_variance: NDArray[np.float64]
    n_problems: int

    @property
    def delta(self) -> NDArray[np.float64]:
        """``good - bad`` per neuron, ``[layer, d_ff]``."""
        return self.good_mean - self.bad_mean


def class_moments(parts: Iterable[LabelledMoments], traces_per_problem: Mapping[str, int] | None = None) -> ClassMoments:
    """Read parts of a recording once and sum them up in float64.

    Needs memory for one part, a few arrays ``[layer, d_ff]``, and one array per class for each problem that is still open.
    Without `traces_per_problem` every problem stays open to the end, since its next trace may be in the next part.

    Args:
        parts: per part the moments, and per trace its problem's id and whether it is correct. The traces of a problem may be
            spread over parts.
        traces_per_problem: how many traces each problem has in all parts together; a problem's memory is freed after its last.

    Raises:
        InputError: NaN or infinite activations, parts that do not fit together, or more traces of a problem than announced.
        NotEnoughDataError: no correct or no incorrect trace.

    Example:
        >>> moments = Moments(np.array([2, 4]), sum=np.array([[[2.0]], [[-4.0]]], np.float32))
        >>> class_moments([(moments, ["p1", "p1"], [True, False])]).delta
        array([[2.]])
    """
    stream = _Stream(traces_per_problem)
    for moments, problems, correct in parts:
        if not len(problems) == len(correct) == len(moments.count):
            raise InputError(
                f"{len(moments.count)} traces with {len(problems)} problem ids and {len(correct)} verdicts; give one each"
            )
        if not len(correct):
            continue
        magnitudes = None if moments.magnitude is None else moments.mean_magnitude()
        stream.add(moments.mean(), magnitudes, problems, correct)
    return stream.finish()


@dataclass(slots=True)
class _Tally:
    """A running sum of per-trace means."""

    total: NDArray[np.float64]
    n: int = 0

    def add(self, value: NDArray[np.float32]) -> None:
        self.total += value
        self.n += 1

    def mean(self) -> NDArray[np.float64]:
        return self.total / self.n


@dataclass(slots=True)
class _Differences:
    """Welford's running mean and sum of squared deviations of the within-problem differences."""

    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    n: int = 0

    def add(self, difference: NDArray[np.float64]) -> None:
        self.n += 1
        deviation = difference - self.mean
        self.mean += deviation / self.n
        self.squares += deviation * (difference - self.mean)


@dataclass(slots=True)
class _Stream:
    """The state of :func:`class_moments` between traces; keys of ``means`` and ``magnitudes`` are verdicts."""

    traces_per_problem: Mapping[str, int] | None
    shape: tuple[int, ...] = ()
    has_magnitude: bool = False
    means: dict[bool, _Tally] = field(default_factory=dict)
    magnitudes: dict[bool, _Tally] = field(default_factory=dict)
    differences: _Differences | None = None
    open: dict[str, dict[bool, _Tally]] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    n_traces: int = 0
    n_not_finite: int = 0
    layers_not_finite: set[int] = field(default_factory=set)

    def add(
        self,
        means: NDArray[np.float32],
        magnitudes: NDArray[np.float32] | None,
        problems: Sequence[str],
        correct: Sequence[bool],
    ) -> None:
        self._fit(means.shape[1:], magnitudes is not None)
        usable = self._finite(means, magnitudes)
        self.n_traces += len(means)
        for row in np.flatnonzero(usable).tolist():
            verdict = bool(correct[row])
            self.means[verdict].add(means[row])
            if magnitudes is not None:
                self.magnitudes[verdict].add(magnitudes[row])
            self._add_to_problem(problems[row], verdict, means[row])

    def finish(self) -> ClassMoments:
        if self.n_not_finite:
            raise InputError(
                f"{self.n_not_finite} of {self.n_traces} traces hold NaN or infinite activations, first in layer "
                f"{min(self.layers_not_finite)}; record them again in float32 or bfloat16, or leave those traces out"
            )
        n_good, n_bad = (self.means[verdict].n if self.means else 0 for verdict in (True, False))
        if not n_good or not n_bad or self.differences is None:
            raise NotEnoughDataError(
                f"a contrast needs correct and incorrect traces, got {n_good} correct and {n_bad} incorrect; "
                "sample more chains per problem, or problems that the model solves only sometimes"
            )
        while self.open:
            self._close(next(iter(self.open)))
        n = self.differences.n
        undefined = np.full(self.shape, np.nan)
        return ClassMoments(
            good_mean=self.means[True].mean(),
            bad_mean=self.means[False].mean(),
            good_magnitude=self.magnitudes[True].mean() if self.has_magnitude else None,
            bad_magnitude=self.magnitudes[False].mean() if self.has_magnitude else None,
            n_good=n_good,
            n_bad=n_bad,
            difference_mean=self.differences.mean if n else undefined,
            difference_variance=self.differences.squares / (n - 1) if n > 1 else undefined,
            n_problems=n,
        )

    def _fit(self, shape: tuple[int, ...], has_magnitude: bool) -> None:
        if not self.means:
            self.shape, self.has_magnitude = shape, has_magnitude
            self.means = {verdict: _Tally(np.zeros(shape)) for verdict in (True, False)}
            if has_magnitude:
                self.magnitudes = {verdict: _Tally(np.zeros(shape)) for verdict in (True, False)}
            self.differences = _Differences(np.zeros(shape), np.zeros(shape))
        if (self.shape, self.has_magnitude) != (shape, has_magnitude):
            raise InputError(
                f"parts of one recording differ: [layer, d_ff] {list(self.shape)} and {list(shape)}, "
                f"magnitude recorded {self.has_magnitude} and {has_magnitude}; record all parts with one model and one setting"
            )

    def _finite(self, means: NDArray[np.float32], magnitudes: NDArray[np.float32] | None) -> NDArray[np.bool_]:
        """Which rows are finite; counts the others, so that the error can name all of them."""
        usable = np.ones(len(means), np.bool_)
        for values in (means,) if magnitudes is None else (means, magnitudes):
            rows, layers = np.nonzero(~np.isfinite(values).all(axis=2))
            usable[rows] = False
            self.layers_not_finite.update(layers.tolist())
        self.n_not_finite += int((~usable).sum())
        return usable

    def _add_to_problem(self, problem: str, verdict: bool, mean: NDArray[np.float32]) -> None:
        expected = None if self.traces_per_problem is None else self.traces_per_problem.get(problem, 0)
        if problem in self.closed or expected == 0:
            raise InputError(f"problem {problem!r} has more traces than the {expected or 0} announced in traces_per_problem")
        classes = self.open.setdefault(problem, {})
        if verdict not in classes:
            classes[verdict] = _Tally(np.zeros(self.shape))
        classes[verdict].add(mean)
        if expected is not None and sum(tally.n for tally in classes.values()) == expected:
            self.closed.add(problem)
            self._close(problem)

    def _close(self, problem: str) -> None:
        classes = self.open.pop(problem)
        if self.differences is not None and len(classes) == 2:
            self.differences.add(classes[True].mean() - classes[False].mean())
