"""Class moments of many choices of traces and labels at once: every sum over traces is a matrix product, in float64."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.ranking.contrast import ClassMoments, NeuronCounts, Statistic
from trimtab.ranking.streamed import empty_class
from trimtab.ranking.tallies import Spread, Tally

_BLOCK_BYTES = 16 * 2**20


class Choice(NamedTuple):
    """Which traces are compared, and as what; None leaves a part of it as it was loaded.

    Args:
        correct: bool ``[trace]``, the verdicts.
        times: int64 ``[trace]``, how often each trace is taken within its problem; 0 leaves it out. None is once each.
        copies: int64 ``[problem]``, how often each problem is taken, as in a bootstrap, each time as a problem of its own; 0
            leaves it out. None is once each.
    """

    correct: NDArray[np.bool_] | None = None
    times: NDArray[np.int64] | None = None
    copies: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A batch of choices as weights.

    Args:
        correct_mean, incorrect_mean: float64 ``[choice, trace]``, how often a trace is taken within its problem, as correct and
        as incorrect. all_good, all_bad: the same times the copies of its problem.
        copies: int64 ``[choice, problem]``, how often a problem with both verdicts is taken; 0 for the others.
        rows: per problem its traces.
    """

    correct_mean: NDArray[np.float64]
    incorrect_mean: NDArray[np.float64]
    all_good: NDArray[np.float64]
    all_bad: NDArray[np.float64]
    copies: NDArray[np.int64]
    rows: Sequence[NDArray[np.int64]]

    @classmethod
    def of(cls, choices: Sequence[Choice], correct: NDArray[np.bool_], problem: NDArray[np.int64]) -> "Drawn":
        """The weights of choices of traces that came with these labels. Raises InputError and NotEnoughDataError."""
        n_of_problem = np.bincount(problem)
        verdicts = np.stack([_checked(choice.correct, correct, "correct") for choice in choices])
        times = np.stack([_checked(choice.times, np.ones_like(problem), "times") for choice in choices])
        copies = np.stack([_checked(choice.copies, np.ones_like(n_of_problem), "copies") for choice in choices])
        correct_mean, incorrect_mean = (times * verdicts).astype(np.float64), (times * ~verdicts).astype(np.float64)
        all_good, all_bad = correct_mean * copies[:, problem], incorrect_mean * copies[:, problem]
        for n_correct, n_incorrect in zip(all_good.sum(axis=1), all_bad.sum(axis=1), strict=True):
            if not n_correct or not n_incorrect:
                raise empty_class(int(n_correct), int(n_incorrect))
        member = (problem[:, None] == np.arange(len(n_of_problem))).astype(np.float64)
        both = (correct_mean @ member > 0) & (incorrect_mean @ member > 0)
        rows = np.split(np.argsort(problem, kind="stable"), np.cumsum(n_of_problem)[:-1])
        return cls(correct_mean, incorrect_mean, all_good, all_bad, copies * both, rows)


def _checked(given: NDArray | None, loaded: NDArray, name: str) -> NDArray:
    if given is None:
        return loaded
    if given.shape != loaded.shape or given.dtype != loaded.dtype or (given < 0).any():
        raise InputError(
            f"a choice has {name} of {given.dtype} {list(given.shape)}, or below 0; give {loaded.dtype} {list(loaded.shape)}"
        )
    return given


def class_moments_of(
    drawn: Drawn,
    values: Mapping[str, NDArray[np.float32]],
    routed: NDArray[np.bool_] | None,
    shape: tuple[int, ...],
    statistics: frozenset[Statistic],
) -> Iterator[ClassMoments]:
    """The class moments of each choice.

    Args:
        drawn: the choices.
        values, routed, shape: of :class:`trimtab.ranking.trace_means.TraceMeans`.
        statistics: whether to compute ``difference`` and ``auroc``; the others are there if their values are.
    """
    n_traces, n_neurons = values["mean"].shape
    width = max(1, _BLOCK_BYTES // (8 * n_traces))
    blocks = [
        _block(drawn, values, routed, slice(start, min(start + width, n_neurons)), statistics)
        for start in range(0, n_neurons, width)
    ]
    arrays = {name: np.concatenate([block[name] for block in blocks], axis=1) for name in blocks[0]}
    for i in range(len(drawn.correct_mean)):
        own = {name: array[i].reshape(shape) for name, array in arrays.items()}
        counts = {name: own.pop(name).astype(np.int64) for name in NeuronCounts._fields if name in own}
        yield ClassMoments(
            correct_mean=own["correct_mean"],
            incorrect_mean=own["incorrect_mean"],
            correct_magnitude=own.get("correct_magnitude"),
            incorrect_magnitude=own.get("incorrect_magnitude"),
            n_correct=int(drawn.all_good[i].sum()),
            n_incorrect=int(drawn.all_bad[i].sum()),
            difference_mean=own.get("difference_mean"),
            difference_variance=own.get("difference_variance"),
            n_problems=int(drawn.copies[i].sum()),
            correct_rms=own.get("correct_rms"),
            incorrect_rms=own.get("incorrect_rms"),
            correct_norm=own.get("correct_norm"),
            auroc=own.get("auroc"),
            counts=NeuronCounts(counts["correct_mean"], counts["incorrect_mean"], counts.get("problems")) if counts else None,
        )


def _block(
    drawn: Drawn,
    values: Mapping[str, NDArray[np.float32]],
    routed: NDArray[np.bool_] | None,
    columns: slice,
    statistics: frozenset[Statistic],
) -> dict[str, NDArray[np.float64]]:
    """All arrays ``[choice, neuron]`` of some columns, by the name of their field."""
    present = None
    if routed is not None:
        per_expert = values["mean"].shape[1] // routed.shape[1]
        present = routed[:, np.arange(columns.start, columns.stop) // per_expert].astype(np.float64)

    def filled(name: str) -> NDArray[np.float64]:
        array = values[name][:, columns]
        return (array if present is None else np.where(present > 0, array, 0)).astype(np.float64)

    mean = filled("mean")
    found = _within(drawn, mean, present, statistics) if statistics & {"difference", "auroc"} else {}
    for side, taken in (("correct_mean", drawn.all_good), ("incorrect_mean", drawn.all_bad)):
        n = taken.sum(axis=1, keepdims=True) if present is None else taken @ present
        if present is not None:
            found[side] = n
        for name in values.keys() - {"square"}:
            with np.errstate(invalid="ignore"):
                found[f"{side}_{name}"] = taken @ (mean if name == "mean" else filled(name)) / n
    if "square" in values:
        found["correct_norm"] = np.sqrt(drawn.all_good @ filled("square"))
    return found


def _within(
    drawn: Drawn, mean: NDArray[np.float64], present: NDArray[np.float64] | None, statistics: frozenset[Statistic]
) -> dict[str, NDArray[np.float64]]:
    """What is compared within problems, ``[choice, neuron]`` each; the loop over problems bounds the memory."""
    shape = len(drawn.correct_mean), mean.shape[1]
    differences, auroc = Spread(np.zeros(shape), np.zeros(shape)), Tally(np.zeros(shape))
    for problem, rows in enumerate(drawn.rows):
        times = drawn.copies[:, problem, None]
        if not times.any():
            continue
        correct_mean, incorrect_mean, here = drawn.correct_mean[:, rows], drawn.incorrect_mean[:, rows], mean[rows]
        there = np.ones((len(rows), 1)) if present is None else present[rows]
        n_correct, n_incorrect = correct_mean @ there, incorrect_mean @ there
        times = times * ((n_correct > 0) & (n_incorrect > 0))
        with np.errstate(invalid="ignore"):
            if "difference" in statistics:
                differences.add(correct_mean @ here / n_correct - incorrect_mean @ here / n_incorrect, times)
            if "auroc" in statistics:
                first, second = np.triu_indices(len(rows), 1)
                higher = np.sign(here[first] - here[second]) * there[first] * there[second]
                won = (
                    correct_mean[:, first] * incorrect_mean[:, second] - incorrect_mean[:, first] * correct_mean[:, second]
                ) @ higher
                auroc.add(0.5 + 0.5 * won / (n_correct * n_incorrect), times)
    found: dict[str, NDArray[np.float64]] = {}
    if "difference" in statistics:
        found = {"difference_mean": differences.mean(), "difference_variance": differences.variance()}
        if present is not None:
            found["problems"] = np.broadcast_to(np.asarray(differences.n, np.float64), shape)
    if "auroc" in statistics:
        found["auroc"] = np.broadcast_to(auroc.mean(), shape)
    return found
