"""Moments of the correct and of the incorrect traces: all that a criterion reads."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError

Statistic: TypeAlias = Literal["magnitude", "square", "difference", "auroc", "contribution"]
"""What class moments can hold beside the class means. All but ``difference`` and ``auroc`` need the recorded moment of that
name."""

DEFAULT_STATISTICS: frozenset[Statistic] = frozenset(("magnitude", "square", "difference"))


def checked_statistics(statistics: Collection[Statistic]) -> frozenset[Statistic]:
    """The set of statistics asked for; raises InputError that names an unknown one."""
    wanted = frozenset(statistics)
    unknown = wanted - set(get_args(Statistic))
    if unknown:
        raise InputError(f"unknown statistics {sorted(unknown)}; accepted: {', '.join(get_args(Statistic))}")
    return wanted


class NeuronCounts(NamedTuple):
    """How much data each neuron has, int64 ``[layer, d_ff]``: traces of each class with a token routed to it, and problems where
    both classes have one (None without the statistic ``difference``)."""

    correct: NDArray[np.int64]
    incorrect: NDArray[np.int64]
    problems: NDArray[np.int64] | None


@dataclass(frozen=True, slots=True, eq=False)
class TraceContributions:
    """What a criterion reads that fits a classifier to single traces.

    Args:
        value: float32 ``[layer, trace, d_ff]``, mean over the tokens of a trace of ``|w a| / ||o||``, where a is the neuron's
            activation, o what its layer's FFN wrote and w its expert's routing weight, 1 in a dense layer.
        correct: bool ``[trace]``.
        times: int64 ``[trace]``, how often each trace counts.
    """

    value: NDArray[np.float32]
    correct: NDArray[np.bool_]
    times: NDArray[np.int64]

    @classmethod
    def of_layers(cls, blocks: Sequence["TraceContributions"]) -> "TraceContributions":
        """Blocks of layers of the same traces, one below the other."""
        return cls(np.concatenate([block.value for block in blocks]), blocks[0].correct, blocks[0].times)


@dataclass(frozen=True, slots=True, eq=False)
class ClassMoments:
    """Class means over traces, and within-problem statistics over problems.

    A class mean is the mean over the traces of a class of the per-trace mean ``m1``, so every trace weighs the same, however
    long. The difference of a problem is the mean of ``m1`` over its correct traces minus the mean over its incorrect ones; its
    AUROC is the share of its (correct, incorrect) pairs of traces in which ``m1`` of the correct one is higher, ties counted one
    half. Only problems with both scores have either.

    In a mixture of experts a trace has a mean only for the experts that its tokens were routed to. Every mean is then over the
    traces that have one, ``counts`` says how many, and a neuron without any in a class is NaN there.

    Args:
        correct_mean, incorrect_mean: float64 ``[layer, d_ff]``, of the correct and of the incorrect traces.
        correct_magnitude, incorrect_magnitude: the same of the per-trace mean magnitude; None without the statistic
            ``magnitude``.
        n_correct, n_incorrect: number of traces in each class.
        difference_mean: float64 ``[layer, d_ff]``, mean over problems of the difference; NaN when no problem has both scores,
            None without the statistic ``difference``.
        difference_variance: float64 ``[layer, d_ff]``, its sample variance (n - 1); NaN when fewer than two problems have both.
        n_problems: number of problems with both scores.
        correct_rms, incorrect_rms: as the class means, of the per-trace root mean square; None without the statistic ``square``.
        correct_norm: float64 ``[layer, d_ff]``, ``sqrt(sum a^2)`` over all tokens of all correct traces; None without ``square``.
        auroc: float64 ``[layer, d_ff]``, mean over problems of their AUROC; NaN when no problem has both scores, None without
            the statistic ``auroc``.
        column_norm: float64 ``[layer, d_ff]``, L2 norm of each neuron's column of the down projection. No activation, so the
            caller fills it: ``replace(moments, column_norm=column_norms(down_weights(...)))``.
        contributions: of each trace; None without the statistic ``contribution``.
        counts: for a mixture of experts; None where every neuron has every trace.
    """

    correct_mean: NDArray[np.float64]
    incorrect_mean: NDArray[np.float64]
    correct_magnitude: NDArray[np.float64] | None
    incorrect_magnitude: NDArray[np.float64] | None
    n_correct: int
    n_incorrect: int
    difference_mean: NDArray[np.float64] | None
    difference_variance: NDArray[np.float64] | None
    n_problems: int
    correct_rms: NDArray[np.float64] | None = None
    incorrect_rms: NDArray[np.float64] | None = None
    correct_norm: NDArray[np.float64] | None = None
    auroc: NDArray[np.float64] | None = None
    column_norm: NDArray[np.float64] | None = None
    counts: NeuronCounts | None = None
    contributions: TraceContributions | None = None

    @property
    def mean_difference(self) -> NDArray[np.float64]:
        """``correct_mean - incorrect_mean`` per neuron, ``[layer, d_ff]``."""
        return self.correct_mean - self.incorrect_mean

    @property
    def comparable(self) -> NDArray[np.bool_]:
        """Which neurons have a value in both classes, ``[layer, d_ff]``; the others are never eligible."""
        return np.isfinite(self.correct_mean) & np.isfinite(self.incorrect_mean)
