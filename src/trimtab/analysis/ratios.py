"""How much more neurons are active in correct than in incorrect traces: the distribution of
``correct_magnitude / incorrect_magnitude``.

Neuron activation differential analysis claims a peak at 1.16 across the classes and at 1.0 within a class. Within a class the
ratio is of two random halves of its traces: what a ratio is when there is nothing to find. Halves hold half as many traces, so
chance spreads the ratios within a class wider (by about a factor of sqrt(2)) than it spreads those across.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.ranking import ClassMoments, LabelledMoments

THRESHOLD = 1.15
"""The paper's."""
BIN = 1.04
"""The quotient of a bin's edges; one bin is centred on 1."""
BINS = 71
EDGES = BIN ** (np.arange(BINS + 1) - BINS / 2)
"""Bin edges, float64 ``[72]``, from about 1/4 to 4."""


@dataclass(frozen=True, slots=True)
class RatioDistribution:
    """Ratios of the neurons that are active on both sides.

    Args:
        n: neurons with a ratio.
        zero_above, zero_below, zero_both: neurons left out because the magnitude is exactly 0 in the numerator only, in the
            denominator only, or in both.
        unknown: neurons left out because a side has no value: of an expert that no token was routed to.
        counts: per bin of :data:`EDGES`.
        below, above: ratios outside the bins.
        median: over the neurons with a ratio.
        peak: centre of the fullest bin, the one nearest to 1 of several.
        share_above: share with a ratio above :data:`THRESHOLD`.
        quartiles: the first and the third.
    """

    n: int
    zero_above: int
    zero_below: int
    zero_both: int
    unknown: int
    counts: tuple[int, ...]
    below: int
    above: int
    median: float
    peak: float
    share_above: float
    quartiles: tuple[float, float]

    def to_json(self) -> dict[str, object]:
        """A dictionary of plain numbers and lists, with the bins' edges."""
        return {**asdict(self), "threshold": THRESHOLD, "edges": EDGES.tolist()}


@dataclass(frozen=True, slots=True)
class Ratios:
    """The ratio across the classes, and within the correct one.

    Args:
        across: ``correct_magnitude / incorrect_magnitude`` of the class means.
        within: the ratio of two random halves of the correct traces.
        n_correct, n_incorrect: traces of each class.
    """

    across: RatioDistribution
    within: RatioDistribution
    n_correct: int
    n_incorrect: int

    def to_json(self) -> dict[str, object]:
        """A dictionary of plain numbers, lists and dictionaries."""
        counts = {"n_correct": self.n_correct, "n_incorrect": self.n_incorrect}
        return {"across": self.across.to_json(), "within": self.within.to_json(), **counts}


class Halves(NamedTuple):
    """Class means of the mean magnitude, float64 ``[layer, d_ff]``, of two random halves of the correct traces."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    n_first: int
    n_second: int


def class_ratios(moments: ClassMoments, parts: Iterable[LabelledMoments], seed: int = 0) -> Ratios:
    """Both distributions of a contrast.

    Args:
        moments: of the contrast, with magnitudes.
        parts: its recording, read once.
        seed: of the split into halves.

    Raises:
        InputError: magnitudes were not recorded.
        NotEnoughDataError: fewer than two correct traces.
    """
    if moments.correct_magnitude is None or moments.incorrect_magnitude is None:
        raise InputError("the recording has no magnitudes; record again with 'magnitude' among the moments")
    halves = correct_halves(parts, moments.n_correct, seed)
    return Ratios(
        across=ratio_distribution(moments.correct_magnitude, moments.incorrect_magnitude),
        within=ratio_distribution(halves.first, halves.second),
        n_correct=moments.n_correct,
        n_incorrect=moments.n_incorrect,
    )


def ratio_distribution(above: NDArray[np.float64], below: NDArray[np.float64]) -> RatioDistribution:
    """The distribution of ``above / below`` over neurons.

    Args:
        above, below: mean magnitudes, of one shape.

    Raises:
        InputError: shapes differ, or a magnitude is negative or infinite.
        NotEnoughDataError: no neuron is active on both sides.
    """
    if above.shape != below.shape or any(((side < 0) | np.isinf(side)).any() for side in (above, below)):
        raise InputError(
            f"ratios need two arrays of finite magnitudes of one shape, got {list(above.shape)} and {list(below.shape)}; "
            "give mean magnitudes, which are never negative"
        )
    some_above, some_below = above > 0, below > 0
    zero_above, zero_below = above == 0, below == 0
    both = some_above & some_below
    if not both.any():
        raise NotEnoughDataError(f"none of {above.size} neurons is active on both sides, so there is no ratio")
    ratios = above[both] / below[both]
    bins = np.searchsorted(EDGES, ratios, side="right") - 1
    inside = (bins >= 0) & (bins < BINS)
    counts = np.bincount(bins[inside], minlength=BINS)
    centres = np.sqrt(EDGES[1:] * EDGES[:-1])
    fullest = np.flatnonzero(counts == counts.max())
    first, median, third = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
    return RatioDistribution(
        n=int(both.sum()),
        zero_above=int((zero_above & some_below).sum()),
        zero_below=int((some_above & zero_below).sum()),
        zero_both=int((zero_above & zero_below).sum()),
        unknown=int((np.isnan(above) | np.isnan(below)).sum()),
        counts=tuple(counts.tolist()),
        below=int((bins < 0).sum()),
        above=int((bins >= BINS).sum()),
        median=median,
        peak=float(centres[fullest[np.abs(np.log(centres[fullest])).argmin()]]),
        share_above=float((ratios > THRESHOLD).mean()),
        quartiles=(first, third),
    )


def correct_halves(parts: Iterable[LabelledMoments], n_correct: int, seed: int = 0) -> Halves:
    """Split the correct traces of a recording into two random halves and take the mean magnitude of each.

    Args:
        parts: as for :func:`trimtab.ranking.class_moments`; read once.
        n_correct: how many correct traces there are in all parts together (``ClassMoments.n_correct``).
        seed: of the split.

    Raises:
        InputError: another number of correct traces.
        NotEnoughDataError: fewer than two correct traces.
    """
    if n_correct < 2:
        raise NotEnoughDataError(f"two halves of the correct traces need two traces or more, got {n_correct}")
    in_second = np.random.default_rng(seed).permutation(n_correct) >= (n_correct + 1) // 2
    totals: list[NDArray[np.float64]] = []
    counts: list[NDArray[np.int64]] = []
    seen = 0
    for moments, _, correct in parts:
        rows = np.flatnonzero(np.asarray(correct, np.bool_))
        if not len(rows):
            continue
        if seen + len(rows) > n_correct:
            raise InputError(f"the recording holds more than the {n_correct} correct traces announced")
        magnitudes = moments.mean_magnitude()[rows]
        # a trace without a token in an expert has no mean there
        known = ~np.isnan(magnitudes)
        if not totals:
            totals = [np.zeros(magnitudes.shape[1:]) for _ in range(2)]
            counts = [np.zeros(magnitudes.shape[1:], np.int64) for _ in range(2)]
        for side in (False, True):
            mine = in_second[seen : seen + len(rows)] == side
            totals[side] += np.where(known[mine], magnitudes[mine], 0.0).sum(axis=0, dtype=np.float64)
            counts[side] += known[mine].sum(axis=0)
        seen += len(rows)
    if seen != n_correct:
        raise InputError(f"the recording holds {seen} correct traces where {n_correct} were announced")
    means = [np.divide(t, n, out=np.full_like(t, np.nan), where=n > 0) for t, n in zip(totals, counts, strict=True)]
    return Halves(means[0], means[1], n_correct - int(in_second.sum()), int(in_second.sum()))
