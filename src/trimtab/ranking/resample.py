"""A recording's per-trace means in memory, for a contrast that is computed again and again: permutations, halves, bootstraps.

Every sum over traces is a matrix product in float64, over many choices of traces and labels at once.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.moments import CONTRIBUTION, Moments
from trimtab.ranking.contrast import (
    DEFAULT_STATISTICS,
    ClassMoments,
    NeuronCounts,
    Statistic,
    TraceContributions,
    checked_statistics,
)
from trimtab.ranking.streamed import check_fit, empty_class, matched, values_of
from trimtab.ranking.tallies import FiniteCheck, Spread, Tally, presence
from trimtab.tasks.contrast import ContrastRow

MAX_BYTES = 4 * 2**30
_BLOCK_BYTES = 16 * 2**20
_RESULT_BYTES = 256 * 2**20
_MOST_AT_ONCE = 64
_STATISTIC: Mapping[str, Statistic] = {"magnitude": "magnitude", "rms": "square", "square": "square"}


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
class TraceMeans:
    """Per-trace means of every neuron, and the labels that the traces came with.

    Args:
        trace_ids: of the traces, in the order of the rows they were loaded for.
        problems: names, each once.
        problem: int64 ``[trace]``, index into `problems`.
        correct: bool ``[trace]``.
        shape: ``(layer, d_ff)``.
        values: float32 ``[trace, layer * d_ff]`` each: ``mean``, and with their statistics ``magnitude``, ``rms``, ``square``,
            ``contribution``.
        routed: for a mixture of experts bool ``[trace, layer * expert]``, whether any token was routed there; else None.

    Example:
        >>> moments = Moments(np.ones(4, np.int64), sum=np.array([3, 1, 2, 0], np.float32).reshape(4, 1, 1))
        >>> rows = [ContrastRow(f"t{i}", "p", i < 2) for i in range(4)]
        >>> means = TraceMeans.load([(["t0", "t1", "t2", "t3"], moments)], rows)
        >>> means.class_moments().mean_difference
        array([[1.]])
        >>> rng = np.random.default_rng(0)
        >>> null = means.resampled((Choice(correct=means.shuffled(rng)) for _ in range(1000)), statistics=())
        >>> reached = [shuffled for shuffled in null if shuffled.mean_difference >= 1]  # in 2 of 6 ways to call two correct
        >>> round(len(reached) / 1000, 1)
        0.3
    """

    trace_ids: tuple[str, ...]
    problems: tuple[str, ...]
    problem: NDArray[np.int64]
    correct: NDArray[np.bool_]
    shape: tuple[int, ...]
    values: Mapping[str, NDArray[np.float32]]
    routed: NDArray[np.bool_] | None = None

    @classmethod
    def load(
        cls,
        parts: Iterable[tuple[Sequence[str], Moments]],
        rows: Sequence[ContrastRow],
        statistics: Collection[Statistic] = DEFAULT_STATISTICS,
        max_bytes: int = MAX_BYTES,
    ) -> "TraceMeans":
        """Read a recording once.

        Args:
            parts: as :meth:`trimtab.recording.Recording.stream` yields them.
            rows: the traces to load, with the labels they have.
            statistics: what is to be computed later, beside class means; ``difference`` and ``auroc`` need no memory here.
            max_bytes: bound on what is held: 4 bytes a trace and neuron, as much again for ``magnitude`` or
                ``contribution``, twice for ``square``.

        Raises:
            InputError: NaN or infinite activations, a row whose trace is not in the recording, parts that do not fit together,
                or more memory than the bound.
            NotEnoughDataError: no row.
        """
        if not rows:
            raise empty_class(0, 0)
        position = {row.trace_id: i for i, row in enumerate(rows)}
        problems = {problem: i for i, problem in enumerate(dict.fromkeys(row.problem_id for row in rows))}
        arrays = _Arrays(len(rows), checked_statistics(statistics), max_bytes)
        for chosen, moments in matched(parts, rows):
            if chosen:
                arrays.fill([position[row.trace_id] for row in chosen], moments)
        arrays.check.raise_if_broken()
        return cls(
            trace_ids=tuple(position),
            problems=tuple(problems),
            problem=np.array([problems[row.problem_id] for row in rows]),
            correct=np.array([row.correct for row in rows]),
            shape=arrays.shape,
            values=arrays.values,
            routed=arrays.routed,
        )

    def class_moments(self, choice: Choice | None = None, statistics: Collection[Statistic] = DEFAULT_STATISTICS) -> ClassMoments:
        """The moments of one choice; by default those that :func:`trimtab.ranking.class_moments` gives, up to float64 rounding.

        Raises:
            InputError: a choice that does not fit the traces.
            NotEnoughDataError: no correct or no incorrect trace.
        """
        return next(self.resampled([choice or Choice()], statistics))

    def resampled(
        self, choices: Iterable[Choice], statistics: Collection[Statistic] = DEFAULT_STATISTICS
    ) -> Iterator[ClassMoments]:
        """The moments of many choices, in their order, by matrix products over up to 64 of them at once.

        Class means alone are by far the fastest: give the statistics of the criterion, ``NEEDS[name]``. A statistic that was not
        loaded stays None. The last bits may depend on how many choices share a product.

        Raises:
            InputError: a choice that does not fit the traces.
            NotEnoughDataError: a choice without correct or without incorrect traces.
        """
        wanted = checked_statistics(statistics)
        values = {name: array for name, array in self.values.items() if name == "mean" or _STATISTIC.get(name) in wanted}
        contributions = self.values.get(CONTRIBUTION) if CONTRIBUTION in wanted else None
        one = 8 * values["mean"].shape[1] * (2 * len(values) + len(wanted))
        at_once = max(1, min(_MOST_AT_ONCE, _RESULT_BYTES // one))
        remaining = iter(choices)
        while batch := list(islice(remaining, at_once)):
            drawn = Drawn.of(batch, self.correct, self.problem)
            found = class_moments_of(drawn, values, self.routed, self.shape, wanted)
            if contributions is None:
                yield from found
                continue
            for choice, moments in zip(batch, found, strict=True):
                yield replace(moments, contributions=self._contributions(contributions, choice))

    def _contributions(self, value: NDArray[np.float32], choice: Choice) -> TraceContributions:
        times = np.ones_like(self.problem) if choice.times is None else choice.times
        copies = 1 if choice.copies is None else choice.copies[self.problem]
        correct = self.correct if choice.correct is None else choice.correct
        return TraceContributions(value.reshape(-1, *self.shape).transpose(1, 0, 2), correct, times * copies)

    def shuffled(self, rng: np.random.Generator) -> NDArray[np.bool_]:
        """The labels permuted at random within each problem, bool ``[trace]``."""
        shuffled = np.empty_like(self.correct)
        by_problem = np.argsort(self.problem, kind="stable")
        shuffled[by_problem] = self.correct[np.lexsort((rng.random(len(self.problem)), self.problem))]
        return shuffled


class _Arrays:
    """The arrays of :class:`TraceMeans` while parts come in."""

    def __init__(self, n: int, statistics: frozenset[Statistic], max_bytes: int) -> None:
        self.check = FiniteCheck()
        self.shape: tuple[int, ...] = ()
        self.values: dict[str, NDArray[np.float32]] = {}
        self.routed: NDArray[np.bool_] | None = None
        self._n, self._statistics, self._max_bytes = n, statistics, max_bytes

    def fill(self, rows: Sequence[int], moments: Moments) -> None:
        """Put the traces of a part into their rows."""
        values = values_of(moments, self._statistics)
        if CONTRIBUTION in self._statistics and moments.contribution is not None:
            values[CONTRIBUTION] = moments.mean_contribution()
        if not self.values:
            self._allocate(values, moments)
        check_fit(self.shape, self.values, values)
        self.check.usable(list(values.values()), presence(moments))
        for name, array in values.items():
            self.values[name][rows] = array.reshape(len(rows), -1)
        if self.routed is not None:
            self.routed[rows] = (moments.count > 0).reshape(len(rows), -1)

    def _allocate(self, values: Mapping[str, NDArray[np.float32]], moments: Moments) -> None:
        self.shape = values["mean"].shape[1:]
        neurons = int(np.prod(self.shape))
        size = 4 * self._n * neurons * len(values)
        if size > self._max_bytes:
            raise InputError(
                f"{self._n} traces of {neurons} neurons with {', '.join(values)} take {size / 1e9:.1f} GB, more than "
                f"the bound of {self._max_bytes / 1e9:.1f} GB; give fewer traces, fewer statistics or a larger max_bytes"
            )
        self.values = {name: np.empty((self._n, neurons), np.float32) for name in values}
        if moments.is_mixture:
            self.routed = np.empty((self._n, moments.count[0].size), np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A batch of choices as weights.

    Args:
        correct, incorrect: float64 ``[choice, trace]``, how often a trace is taken within its problem, as correct and as
            incorrect.
        all_correct, all_incorrect: the same times the copies of its problem.
        copies: int64 ``[choice, problem]``, how often a problem with both scores is taken; 0 for the others.
        rows: per problem its traces.
    """

    correct: NDArray[np.float64]
    incorrect: NDArray[np.float64]
    all_correct: NDArray[np.float64]
    all_incorrect: NDArray[np.float64]
    copies: NDArray[np.int64]
    rows: Sequence[NDArray[np.int64]]

    @classmethod
    def of(cls, choices: Sequence[Choice], correct: NDArray[np.bool_], problem: NDArray[np.int64]) -> "Drawn":
        """The weights of choices of traces that came with these labels. Raises InputError and NotEnoughDataError."""
        n_of_problem = np.bincount(problem)
        verdicts = np.stack([_checked(choice.correct, correct, "correct") for choice in choices])
        times = np.stack([_checked(choice.times, np.ones_like(problem), "times") for choice in choices])
        copies = np.stack([_checked(choice.copies, np.ones_like(n_of_problem), "copies") for choice in choices])
        as_correct, as_incorrect = (times * verdicts).astype(np.float64), (times * ~verdicts).astype(np.float64)
        all_correct, all_incorrect = as_correct * copies[:, problem], as_incorrect * copies[:, problem]
        for n_correct, n_incorrect in zip(all_correct.sum(axis=1), all_incorrect.sum(axis=1), strict=True):
            if not n_correct or not n_incorrect:
                raise empty_class(int(n_correct), int(n_incorrect))
        member = (problem[:, None] == np.arange(len(n_of_problem))).astype(np.float64)
        both = (as_correct @ member > 0) & (as_incorrect @ member > 0)
        rows = np.split(np.argsort(problem, kind="stable"), np.cumsum(n_of_problem)[:-1])
        return cls(as_correct, as_incorrect, all_correct, all_incorrect, copies * both, rows)


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
        values, routed, shape: of :class:`TraceMeans`.
        statistics: whether to compute ``difference`` and ``auroc``; the others are there if their values are.
    """
    n_traces, n_neurons = values["mean"].shape
    width = max(1, _BLOCK_BYTES // (8 * n_traces))
    blocks = [
        _block(drawn, values, routed, slice(start, min(start + width, n_neurons)), statistics)
        for start in range(0, n_neurons, width)
    ]
    arrays = {name: np.concatenate([block[name] for block in blocks], axis=1) for name in blocks[0]}
    for i in range(len(drawn.correct)):
        own = {name: array[i].reshape(shape) for name, array in arrays.items()}
        counts = {name: own.pop(name).astype(np.int64) for name in NeuronCounts._fields if name in own}
        yield ClassMoments(
            correct_mean=own["correct_mean"],
            incorrect_mean=own["incorrect_mean"],
            correct_magnitude=own.get("correct_magnitude"),
            incorrect_magnitude=own.get("incorrect_magnitude"),
            n_correct=int(drawn.all_correct[i].sum()),
            n_incorrect=int(drawn.all_incorrect[i].sum()),
            difference_mean=own.get("difference_mean"),
            difference_variance=own.get("difference_variance"),
            n_problems=int(drawn.copies[i].sum()),
            correct_rms=own.get("correct_rms"),
            incorrect_rms=own.get("incorrect_rms"),
            correct_norm=own.get("correct_norm"),
            auroc=own.get("auroc"),
            counts=NeuronCounts(counts["correct"], counts["incorrect"], counts.get("problems")) if counts else None,
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
    for side, taken in (("correct", drawn.all_correct), ("incorrect", drawn.all_incorrect)):
        n = taken.sum(axis=1, keepdims=True) if present is None else taken @ present
        if present is not None:
            found[side] = n
        for name in values.keys() - {"square"}:
            with np.errstate(invalid="ignore"):
                found[f"{side}_{name}"] = taken @ (mean if name == "mean" else filled(name)) / n
    if "square" in values:
        found["correct_norm"] = np.sqrt(drawn.all_correct @ filled("square"))
    return found


def _within(
    drawn: Drawn, mean: NDArray[np.float64], present: NDArray[np.float64] | None, statistics: frozenset[Statistic]
) -> dict[str, NDArray[np.float64]]:
    """What is compared within problems, ``[choice, neuron]`` each; the loop over problems bounds the memory."""
    shape = len(drawn.correct), mean.shape[1]
    differences, auroc = Spread(np.zeros(shape), np.zeros(shape)), Tally(np.zeros(shape))
    for problem, rows in enumerate(drawn.rows):
        times = drawn.copies[:, problem, None]
        if not times.any():
            continue
        correct, incorrect, here = drawn.correct[:, rows], drawn.incorrect[:, rows], mean[rows]
        there = np.ones((len(rows), 1)) if present is None else present[rows]
        n_correct, n_incorrect = correct @ there, incorrect @ there
        times = times * ((n_correct > 0) & (n_incorrect > 0))
        with np.errstate(invalid="ignore"):
            if "difference" in statistics:
                differences.add(correct @ here / n_correct - incorrect @ here / n_incorrect, times)
            if "auroc" in statistics:
                first, second = np.triu_indices(len(rows), 1)
                higher = np.sign(here[first] - here[second]) * there[first] * there[second]
                won = (correct[:, first] * incorrect[:, second] - incorrect[:, first] * correct[:, second]) @ higher
                auroc.add(0.5 + 0.5 * won / (n_correct * n_incorrect), times)
    found: dict[str, NDArray[np.float64]] = {}
    if "difference" in statistics:
        found = {"difference_mean": differences.mean(), "difference_variance": differences.variance()}
        if present is not None:
            found["problems"] = np.broadcast_to(np.asarray(differences.n, np.float64), shape)
    if "auroc" in statistics:
        found["auroc"] = np.broadcast_to(auroc.mean(), shape)
    return found
