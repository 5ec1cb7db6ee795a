"""A recording's per-trace means in memory, for a contrast that is computed again and again: permutations, halves, bootstraps."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.moments import Moments
from trimtab.ranking.contrast import DEFAULT_STATISTICS, ClassMoments, Statistic, checked_statistics
from trimtab.ranking.resampling import Choice, Drawn, class_moments_of
from trimtab.ranking.streamed import check_fit, empty_class, matched, values_of
from trimtab.ranking.tallies import FiniteCheck, presence
from trimtab.tasks.contrast import ContrastRow

MAX_BYTES = 4 * 2**30
_RESULT_BYTES = 256 * 2**20
_MOST_AT_ONCE = 64
_STATISTIC: Mapping[str, Statistic] = {"magnitude": "magnitude", "rms": "square", "square": "square"}


@dataclass(frozen=True, slots=True, eq=False)
class TraceMeans:
    """Per-trace means of every neuron, and the labels that the traces came with.

    Args:
        trace_ids: of the traces, in the order of the rows they were loaded for.
        problems: names, each once.
        problem: int64 ``[trace]``, index into `problems`.
        correct: bool ``[trace]``.
        shape: ``(layer, d_ff)``.
        values: float32 ``[trace, layer * d_ff]`` each: ``mean``, and with their statistics ``magnitude``, ``rms``, ``square``.
        routed: for a mixture of experts bool ``[trace, layer * expert]``, whether any token was routed there; else None.

    Example:
        >>> moments = Moments(np.ones(4, np.int64), sum=np.array([3, 1, 2, 0], np.float32).reshape(4, 1, 1))
        >>> rows = [ContrastRow(f"t{i}", "p", i < 2) for i in range(4)]
        >>> means = TraceMeans.load([(["t0", "t1", "t2", "t3"], moments)], rows)
        >>> means.class_moments().mean_difference
        array([[1.]])
        >>> rng = np.random.default_rng(0)
        >>> null = means.resampled((Choice(correct=means.shuffled(rng)) for _ in range(1000)), statistics=())
        >>> reached = [shuffled for shuffled in null if shuffled.mean_difference >= 1]  # in 2 of the 6 ways to label two traces
        correct >>> round(len(reached) / 1000, 1)
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
            max_bytes: bound on what is held: 4 bytes a trace and neuron, as much again for ``magnitude``, twice for ``square``.

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
        values = {name: array for name, array in self.values.items() if name == "mean" or _STATISTIC[name] in wanted}
        one = 8 * values["mean"].shape[1] * (2 * len(values) + len(wanted))
        at_once = max(1, min(_MOST_AT_ONCE, _RESULT_BYTES // one))
        remaining = iter(choices)
        while batch := list(islice(remaining, at_once)):
            drawn = Drawn.of(batch, self.correct, self.problem)
            yield from class_moments_of(drawn, values, self.routed, self.shape, wanted)

    def shuffled(self, rng: np.random.Generator) -> NDArray[np.bool_]:
        """The verdicts permuted at random within each problem, bool ``[trace]``."""
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
