"""Steerings by the groups of problems that they are tried on: a matrix of gains, and how much larger its diagonal is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.pairing import paired
from trimtab.experiments.comparisons import Row, corrected
from trimtab.experiments.grouping import Grouping
from trimtab.results import Cell, Column, Matrix, Point, Table, bounded
from trimtab.stats.estimates import bootstrap_macro, bootstrap_mean
from trimtab.traces import Split

Conditions: TypeAlias = Mapping[str, Sequence[Outcome] | Sequence[Sequence[Outcome]]]
"""Outcomes on all problems by label; several lists of outcomes are sets whose mean is shown."""

ALPHA = 0.05
RESAMPLES = 9_999
FEWEST_TO_PERMUTE = 5
"""With four groups even the largest diagonal of all 24 assignments has a two-sided p of 0.08."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """``cells[row][column]``: one condition against the base on the problems of one group."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Row, ...], ...]

    @property
    def n(self) -> int:
        """Problems of all columns."""
        return sum(cell.comparisons[0].n for cell in self.cells[0])

    def __iter__(self) -> Iterator[tuple[str, str, Row]]:
        """(row, column, cell) of every cell, row by row."""
        for row, cells in zip(self.rows, self.cells, strict=True):
            for column, cell in zip(self.columns, cells, strict=True):
                yield row, column, cell


class Excess(NamedTuple):
    """What a condition does to its own group beyond what the conditions of other groups do to it.

    Args:
        value, low, high: mean of the diagonal minus mean of the rest, with a 95 % bootstrap interval over problems.
        own, others: the two means.
        p: two-sided, were the conditions' names exchangeable; None for fewer than :data:`FEWEST_TO_PERMUTE` groups.
    """

    value: float
    low: float
    high: float
    own: float
    others: float
    p: float | None

    @property
    def differs(self) -> bool:
        """Whether neither the problems drawn nor the names given explain the difference, each at 5 %."""
        return not self.low <= 0 <= self.high and (self.p is None or self.p < ALPHA)


def cross(base: Sequence[Outcome], conditions: Conditions, grouping: Grouping) -> Crossing:
    """Compare every condition with the base on every group; p corrected by Holm over all cells that are no means."""
    (crossing,) = cross_together(base, [conditions], grouping)
    return crossing


def cross_together(base: Sequence[Outcome], families: Sequence[Conditions], grouping: Grouping) -> list[Crossing]:
    """Several crossings that stand in one table: p corrected by Holm over the cells of all of them."""
    cells = [
        _cell(base, f"{label} on {name}", condition, grouping, name)
        for conditions in families
        for label, condition in conditions.items()
        for name in grouping.names
    ]
    remaining = iter(corrected(cells))
    return [
        Crossing(tuple(conditions), grouping.names, tuple(tuple(next(remaining) for _ in grouping.names) for _ in conditions))
        for conditions in families
    ]


def excess(base: Sequence[Outcome], conditions: Mapping[str, Sequence[Outcome]], grouping: Grouping) -> Excess:
    """How much larger the diagonal is than the rest of the matrix, over the groups that have a condition of their own name.

    Of each problem in group j take the change under condition j minus the mean change under the other conditions; the value is
    the mean over groups of its mean, which is the mean of the diagonal minus the mean of the rest. Neither a condition that is
    strong everywhere nor a group that every condition moves shifts it. The bootstrap draws problems within groups, with the
    conditions as they are; the permutation gives the conditions each other's names.

    Raises:
        NotEnoughDataError: a group of fewer than two problems.
    """
    changes = _changes(base, conditions, grouping)
    interval = bootstrap_macro(changes.own - changes.others, changes.group)
    matrix, size = changes.matrix(), len(changes.names)
    own = float(np.trace(matrix)) / size
    others = float(matrix.sum() - np.trace(matrix)) / (size * (size - 1))
    return Excess(own - others, interval.low, interval.high, own, others, diagonal_p(matrix))


def excess_by_group(
    base: Sequence[Outcome], conditions: Mapping[str, Sequence[Outcome]], grouping: Grouping
) -> dict[str, Excess]:
    """The same for each group alone: a column's diagonal minus the mean of its rest; the intervals hold together at 95 %.

    Raises:
        NotEnoughDataError: a group of fewer than two problems.
    """
    changes = _changes(base, conditions, grouping)
    found = {}
    for i, name in enumerate(changes.names):
        own, others = (side[changes.group == i] for side in (changes.own, changes.others))
        interval = bootstrap_mean(own - others, level=1 - ALPHA / len(changes.names))
        value = float(own.mean() - others.mean())
        found[name] = Excess(value, interval.low, interval.high, float(own.mean()), float(others.mean()), None)
    return found


def diagonal_p(matrix: NDArray[np.float64]) -> float | None:
    """Two-sided p of the diagonal's mean if the rows were assigned to the columns at random; exact up to seven of them."""
    size = len(matrix)
    if size < FEWEST_TO_PERMUTE:
        return None

    def mean_diagonal(rows: NDArray[np.int64]) -> float:
        return float(matrix[rows, np.arange(size)].mean())

    result = stats.permutation_test(
        (np.arange(size),),
        mean_diagonal,
        permutation_type="pairings",
        vectorized=False,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def crossing_table(name: str, title: str, crossings: Mapping[str, Crossing], found: str, tested: str, note: str = "") -> Table:
    """One row a cell; ``crossings`` of the same rows and columns stand side by side, each under its label."""
    columns = [Column(name=found), Column(name=tested), Column(name="n", unit="count"), Column(name="unsteered", unit="percent")]
    for label in crossings:
        gain = f"gain {label}".rstrip()
        columns += [
            *bounded(gain, "points"),
            Column(name=f"p Holm {label}".rstrip(), unit="p"),
        ]
    first = next(iter(crossings.values()))
    rows: list[tuple[Cell, ...]] = []
    for (row, column, cell), *others in zip(first, *list(crossings.values())[1:], strict=True):
        comparison = cell.comparisons[0]
        numbers = [
            number
            for one in (cell, *(other for _, _, other in others))
            for number in (one.gain, one.dot().low, one.dot().high, one.p_holm)
        ]
        rows.append((row, column, comparison.n, comparison.base_accuracy, *numbers))
    return Table(name=name, title=title, columns=tuple(columns), rows=tuple(rows), note=note)


def crossing_matrix(name: str, title: str, crossing: Crossing, found: str, tested: str, detail: str, reading: str) -> Matrix:
    """The gains as a picture; the intervals are in the table."""
    return Matrix(
        name=name,
        title=title,
        n=crossing.n,
        split=Split.TEST,
        detail=detail,
        reading=reading,
        row_label=found,
        column_label=tested,
        unit="points",
        rows=crossing.rows,
        columns=crossing.columns,
        cells=tuple(tuple(_point(cell) for cell in row) for row in crossing.cells),
    )


def describe_excess(found: Excess) -> str:
    """In words: the two means, their difference with its interval, and p.

    Example:
        ``"+19.0 points on the own one and +17.5 on the others, a difference of +1.5 [-0.3, +3.2]"``
    """
    p = "" if found.p is None else f", p = {found.p:.2g} with the names permuted"
    difference = f"a difference of {100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]{p}"
    return f"{100 * found.own:+.1f} points on the own one and {100 * found.others:+.1f} on the others, {difference}"


def _cell(
    base: Sequence[Outcome],
    label: str,
    condition: Sequence[Outcome] | Sequence[Sequence[Outcome]],
    grouping: Grouping,
    name: str,
) -> Row:
    def here(outcomes: Sequence[Outcome]) -> list[Outcome]:
        return [outcome for outcome in outcomes if grouping.of.get(outcome.problem_id) == name]

    sets = [condition] if isinstance(condition[0], Outcome) else condition
    return Row(label, tuple(paired(here(base), here(outcomes)) for outcomes in sets))  # type: ignore[arg-type]


class _Changes(NamedTuple):
    """What became of the problems of the groups that have a condition of their own name.

    Args:
        names: the groups.
        group: int64 ``[problem]``, position in the names.
        changes: ``[condition, problem]``, 1 fixed, -1 broken, 0 as before.
    """

    names: tuple[str, ...]
    group: NDArray[np.int64]
    changes: NDArray[np.float64]

    @property
    def own(self) -> NDArray[np.float64]:
        """Each problem's change under its own group's condition."""
        return self.changes[self.group, np.arange(len(self.group))]

    @property
    def others(self) -> NDArray[np.float64]:
        """Each problem's mean change under the other groups' conditions."""
        return (self.changes.sum(axis=0) - self.own) / (len(self.names) - 1)

    def matrix(self) -> NDArray[np.float64]:
        """Mean changes ``[condition, group]``."""
        columns = range(len(self.names))
        return np.array([[condition[self.group == column].mean() for column in columns] for condition in self.changes])


def _changes(base: Sequence[Outcome], conditions: Mapping[str, Sequence[Outcome]], grouping: Grouping) -> _Changes:
    names = tuple(name for name in grouping.names if name in conditions)
    before = {o.problem_id: o.correct for o in base if grouping.of.get(o.problem_id) in names}
    group = np.array([names.index(grouping.of[problem_id]) for problem_id in before])
    after = ({outcome.problem_id: outcome.correct for outcome in conditions[name]} for name in names)
    return _Changes(
        names, group, np.array([[float(condition[i]) - float(correct) for i, correct in before.items()] for condition in after])
    )


def _point(cell: Row) -> Point:
    dot = cell.dot()
    return Point(value=dot.value, low=dot.low, high=dot.high)
