"""Class moments from a recording, part by part; what is compared within problems also by blocks of layers."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.moments import CONTRIBUTION, MAX_STATE_BYTES, Moments, TokenScope, layer_blocks
from trimtab.ranking.contrast import (
    DEFAULT_STATISTICS,
    ClassMoments,
    NeuronCounts,
    Statistic,
    TraceContributions,
    checked_statistics,
)
from trimtab.ranking.tallies import FiniteCheck, Tally, WithinProblems, presence
from trimtab.tasks.contrast import ContrastRow

if TYPE_CHECKING:
    from trimtab.recording import Recording  # torch, which ranking needs nowhere

RunBlocks: TypeAlias = Callable[[Callable[[tuple[int, int]], ClassMoments], Iterable[tuple[int, int]]], Iterable[ClassMoments]]
MAX_CONTRIBUTION_BYTES = 8 * 2**30
"""Bound on the contributions of all traces, which are in memory together."""
LabelledMoments: TypeAlias = tuple[Moments, Sequence[str], Sequence[bool]]


def matched(
    parts: Iterable[tuple[Sequence[str], Moments]], rows: Iterable[ContrastRow]
) -> Iterator[tuple[list[ContrastRow], Moments]]:
    """The traces of a recording that have a row, part by part; a part may have none.

    Args:
        parts: trace ids and their moments, as :meth:`trimtab.recording.Recording.stream` yields them.
        rows: the contrast, or some of it.

    Raises:
        InputError: a trace that has two rows, or a row whose trace is not in the recording.
    """
    rows = list(rows)
    wanted = {row.trace_id: row for row in rows}
    if len(wanted) < len(rows):
        raise InputError(
            f"{len(rows)} rows name {len(wanted)} different traces; give each once, and draw with replacement by TraceMeans"
        )
    for ids, moments in parts:
        kept = [i for i, trace_id in enumerate(ids) if trace_id in wanted]
        chosen = [wanted.pop(ids[i]) for i in kept]
        yield chosen, moments if len(kept) == len(ids) else moments.take(kept)
    if wanted:
        raise InputError(
            f"{len(wanted)} traces of the contrast are not in the recording, such as {next(iter(wanted))}; "
            "record the traces of this contrast"
        )


def labelled(parts: Iterable[tuple[Sequence[str], Moments]], rows: Iterable[ContrastRow]) -> Iterator[LabelledMoments]:
    """Give the traces of a recording their problem and score, for :func:`class_moments`; arguments and errors of
    :func:`matched`."""
    for chosen, moments in matched(parts, rows):
        yield moments, [row.problem_id for row in chosen], [row.correct for row in chosen]


def class_moments(
    parts: Iterable[LabelledMoments],
    traces_per_problem: Mapping[str, int] | None = None,
    statistics: Collection[Statistic] = DEFAULT_STATISTICS,
) -> ClassMoments:
    """Read parts of a recording once and sum them up in float64.

    Needs memory for one part and a few arrays ``[layer, d_ff]``. For each problem that is still open it needs one float64 array
    per class with the statistic ``difference``, and one float32 array per trace with ``auroc``. Without `traces_per_problem`
    every problem stays open to the end, since its next trace may be in the next part.

    Args:
        parts: per part the moments, and per trace its problem's id and whether it is correct. The traces of a problem may be
            spread over parts.
        traces_per_problem: how many traces each problem has in all parts together; a problem's memory is freed after its last.
        statistics: what to compute beside the class means; :data:`trimtab.ranking.NEEDS` says what a criterion reads. A statistic
            whose moment was not recorded stays None.

    Raises:
        InputError: NaN or infinite activations, parts that do not fit together, more traces of a problem than announced, or an
            unknown statistic.
        NotEnoughDataError: no correct or no incorrect trace.

    Example:
        >>> moments = Moments(np.array([2, 4]), sum=np.array([[[2.0]], [[-4.0]]], np.float32))
        >>> class_moments([(moments, ["p1", "p1"], [True, False])]).mean_difference
        array([[2.]])
    """
    return _class_moments(parts, traces_per_problem, checked_statistics(statistics))


def recorded_class_moments(
    recording: "Recording",
    scope: TokenScope,
    rows: Sequence[ContrastRow],
    statistics: Collection[Statistic] = DEFAULT_STATISTICS,
    max_bytes: int = MAX_STATE_BYTES,
    *,
    at_once: int = 1,
    run_blocks: RunBlocks = map,
) -> ClassMoments:
    """:func:`class_moments` of a contrast from disk, the same numbers bit by bit, in bounded memory.

    A recording is sorted by length, so the traces of a problem lie far apart and nearly every problem stays open to the end.
    Where what is kept of them exceeds the bound, the recording is read once for each of several blocks of layers, and of each
    part only those layers. Moments that no statistic reads stay on disk.

    Args:
        recording: the moments.
        scope: the token scope to read.
        rows: the contrast; all of its traces have to be in the recording.
        statistics: as for :func:`class_moments`.
        max_bytes: bound on what is kept of open problems; parts and results come on top, and one layer is the smallest block.
        at_once: make at least this many blocks, where there are as many layers.
        run_blocks: applies a function to the blocks and keeps their order, such as an executor's ``map``; each of those that run
            at the same time keeps ``max_bytes``.

    Raises:
        InputError: as :func:`class_moments`, a row whose trace is not in the recording, or a scope that was not recorded.
        StoreError: a part is missing or truncated.
        NotEnoughDataError: no correct or no incorrect trace.
    """
    wanted = checked_statistics(statistics)
    moments = {"sum", *wanted & {"magnitude", "square", CONTRIBUTION}}
    counts = Counter(row.problem_id for row in rows)
    n_layers, d_ff, n_blocks = recording.shape(scope)
    # a float64 sum per problem and class, and for experts as wide a count; a float32 mean per trace
    sums, means = 16 * (2 if n_blocks else 1) * len(counts), 4 * len(rows)
    layer_bytes = d_ff * (sums * ("difference" in wanted) + means * len(wanted & {"auroc", CONTRIBUTION}))
    if CONTRIBUTION in wanted:
        refuse_large(n_layers * d_ff, len(rows))
    block = partial(_block, recording, scope, moments, rows, counts, wanted)
    return _joined(list(run_blocks(block, layer_blocks(n_layers, layer_bytes, max_bytes, at_once))))


def _block(
    recording: "Recording",
    scope: TokenScope,
    moments: Collection[str],
    rows: Sequence[ContrastRow],
    counts: Mapping[str, int],
    statistics: frozenset[Statistic],
    layers: tuple[int, int],
) -> ClassMoments:
    return _class_moments(labelled(recording.stream(scope, moments, slice(*layers)), rows), counts, statistics, layers[0])


def _joined(blocks: Sequence[ClassMoments]) -> ClassMoments:
    """Blocks of layers, one below the other."""

    def join(values: Sequence[Any]) -> Any:
        return np.concatenate(values) if isinstance(values[0], np.ndarray) else values[0]

    apart = ("counts", "contributions")
    joined = {f.name: join([getattr(block, f.name) for block in blocks]) for f in fields(ClassMoments) if f.name not in apart}
    counts = [block.counts for block in blocks if block.counts is not None]
    traces = [block.contributions for block in blocks if block.contributions is not None]
    return ClassMoments(
        **joined,
        counts=NeuronCounts(*map(join, zip(*counts, strict=True))) if counts else None,
        contributions=TraceContributions.of_layers(traces) if traces else None,
    )


def refuse_large(n_neurons: int, n_traces: int) -> None:
    """Raise InputError where the contributions of all traces, which a classifier reads together, exceed the bound."""
    size = 4 * n_neurons * n_traces
    if size > MAX_CONTRIBUTION_BYTES:
        raise InputError(
            f"the contributions of {n_neurons:,} neurons to {n_traces:,} traces take {size / 1e9:.1f} GB, more than the bound of "
            f"{MAX_CONTRIBUTION_BYTES / 1e9:.1f} GB; contrast fewer traces (contrast.per_class, task.train), or leave out 'cett'"
        )


def _class_moments(
    parts: Iterable[LabelledMoments],
    traces_per_problem: Mapping[str, int] | None,
    statistics: frozenset[Statistic],
    first_layer: int = 0,
) -> ClassMoments:
    stream = _Stream(statistics, traces_per_problem, check=FiniteCheck(first_layer))
    for moments, problems, correct in parts:
        if not len(problems) == len(correct) == len(moments.count):
            raise InputError(
                f"{len(moments.count)} traces with {len(problems)} problem ids and {len(correct)} verdicts; give one each"
            )
        if len(correct):
            stream.add(moments, problems, correct)
    return stream.finish()


def values_of(moments: Moments, statistics: Collection[Statistic]) -> dict[str, NDArray[np.float32]]:
    """What is summed over the traces of a class, ``[trace, layer, d_ff]`` each; what was not recorded is left out."""
    values = {"mean": moments.mean()}
    if "magnitude" in statistics and moments.magnitude is not None:
        values["magnitude"] = moments.mean_magnitude()
    if "square" in statistics and moments.square is not None:
        values["rms"], values["square"] = moments.rms(), moments.square
    return values


def check_fit(shape: tuple[int, ...], names: Collection[str], values: Mapping[str, NDArray[np.float32]]) -> None:
    """Raise InputError unless a part has the shape and the moments of the first one."""
    own = values["mean"].shape[1:]
    if shape != own or set(names) != set(values):
        raise InputError(
            f"parts of one recording differ: [layer, d_ff] {list(shape)} and {list(own)}, values {', '.join(names)} and "
            f"{', '.join(values)}; record all parts with one model and one setting"
        )


def empty_class(n_correct: int, n_incorrect: int) -> NotEnoughDataError:
    """The error of a contrast with one side only."""
    return NotEnoughDataError(
        f"a contrast needs correct and incorrect traces, got {n_correct} correct and {n_incorrect} incorrect; "
        "sample more responses per problem, or problems that the model solves only sometimes"
    )


@dataclass(slots=True)
class _Stream:
    """The state of :func:`class_moments` between parts; ``classes`` has a tally per value and verdict."""

    statistics: frozenset[Statistic]
    traces_per_problem: Mapping[str, int] | None
    shape: tuple[int, ...] = ()
    n: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    classes: dict[str, dict[bool, Tally]] = field(default_factory=dict)
    within: WithinProblems | None = None
    contributions: list[NDArray[np.float32]] = field(default_factory=list)
    verdicts: list[bool] = field(default_factory=list)
    check: FiniteCheck = field(default_factory=FiniteCheck)

    def add(self, moments: Moments, problems: Sequence[str], correct: Sequence[bool]) -> None:
        values, present = values_of(moments, self.statistics), presence(moments)
        within = self._fit(values)
        if CONTRIBUTION in self.statistics and moments.contribution is not None:
            self.contributions.append(moments.mean_contribution())
            self.verdicts += correct
        for row in np.flatnonzero(self.check.usable(list(values.values()), present)).tolist():
            verdict, here = bool(correct[row]), None if present is None else present[row]
            self.n[verdict] += 1
            for name, array in values.items():
                self.classes[name][verdict].add(array[row], 1 if here is None else here)
            within.add(problems[row], verdict, values["mean"][row], here)

    def finish(self) -> ClassMoments:
        self.check.raise_if_broken()
        if not all(self.n.values()) or self.within is None:
            raise empty_class(self.n[True], self.n[False])
        within = self.within
        within.finish()
        differs = "difference" in self.statistics
        return ClassMoments(
            correct_mean=self.classes["mean"][True].mean(),
            incorrect_mean=self.classes["mean"][False].mean(),
            correct_magnitude=self._mean("magnitude", True),
            incorrect_magnitude=self._mean("magnitude", False),
            n_correct=self.n[True],
            n_incorrect=self.n[False],
            difference_mean=within.differences.mean() if differs else None,
            difference_variance=within.differences.variance() if differs else None,
            n_problems=within.n_problems,
            correct_rms=self._mean("rms", True),
            incorrect_rms=self._mean("rms", False),
            correct_norm=np.sqrt(self.classes["square"][True].total) if "square" in self.classes else None,
            auroc=within.auroc.mean() if "auroc" in self.statistics else None,
            counts=self._counts(within),
            contributions=self._contributions(),
        )

    def _contributions(self) -> TraceContributions | None:
        if not self.contributions:
            return None
        value = np.concatenate(self.contributions).transpose(1, 0, 2)
        return TraceContributions(
            np.ascontiguousarray(value), np.array(self.verdicts, np.bool_), np.ones(value.shape[1], np.int64)
        )

    def _mean(self, name: str, verdict: bool) -> NDArray[np.float64] | None:
        return self.classes[name][verdict].mean() if name in self.classes else None

    def _counts(self, within: WithinProblems) -> NeuronCounts | None:
        correct, incorrect = (self.classes["mean"][verdict].n for verdict in (True, False))
        if isinstance(correct, int) or isinstance(incorrect, int):
            return None
        # no problem with both scores leaves the count at the integer 0
        problems = np.broadcast_to(within.differences.n, self.shape) if "difference" in self.statistics else None
        return NeuronCounts(correct, incorrect, problems)

    def _fit(self, values: Mapping[str, NDArray[np.float32]]) -> WithinProblems:
        """Start at the first part; every later one must hold the same."""
        shape = values["mean"].shape[1:]
        if self.within is None:
            self.shape = shape
            self.classes = {name: {verdict: Tally(np.zeros(shape)) for verdict in (True, False)} for name in values}
            self.within = WithinProblems(shape, self.statistics, self.traces_per_problem)
        check_fit(self.shape, self.classes, values)
        return self.within
