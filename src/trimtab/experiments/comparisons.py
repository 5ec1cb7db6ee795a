"""Steerings beside the unsteered model on the same problems, and how a method that is compared gets its strength."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.pairing import paired
from trimtab.experiments.workbench import GateSetting, Workbench
from trimtab.results import Cell, Column, Dot, Dots, Figure, Table, bounded
from trimtab.stats.significance import holm
from trimtab.stats.values import PairedComparison
from trimtab.steering import Steering
from trimtab.traces import Problem, Split

COLUMNS = (
    Column(name="what"),
    Column(name="n", unit="count"),
    *bounded("accuracy", "percent"),
    *bounded("gain", "points"),
    Column(name="p", unit="p"),
    Column(name="p Holm", unit="p"),
    Column(name="fixed", unit="count"),
    Column(name="broken", unit="count"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One steering, or the mean over several random sets.

    ``comparisons`` holds one per set; ``p_holm`` is None until :func:`corrected` sets it, and for several sets, which are a
    control and no claim.
    """

    label: str
    comparisons: tuple[PairedComparison, ...]
    group: str = ""
    p_holm: float | None = None

    @property
    def gain(self) -> float:
        return self._mean("gain")

    @property
    def single(self) -> PairedComparison | None:
        """The comparison of a row that is no mean."""
        return self.comparisons[0] if len(self.comparisons) == 1 else None

    def cells(self) -> tuple[Cell, ...]:
        """In the order of :data:`COLUMNS`; a mean over sets has no p of its own."""
        shares = ("accuracy", "low", "high", "gain", "gain_low", "gain_high")
        p = self.single.p if self.single else None
        counts = (round(self._mean("fixed")), round(self._mean("broken")))
        return (self.label, self.comparisons[0].n, *map(self._mean, shares), p, self.p_holm, *counts)

    def dot(self) -> Dot:
        """Its gain with the interval; single sets as rings."""
        others = () if self.single else tuple(comparison.gain for comparison in self.comparisons)
        low, high = self._mean("gain_low"), self._mean("gain_high")
        return Dot(label=self.label, group=self.group, value=self.gain, low=low, high=high, others=others)

    def _mean(self, name: str) -> float:
        return float(np.mean([getattr(comparison, name) for comparison in self.comparisons]))


def compare_rows(
    base: Sequence[Outcome], conditions: Mapping[str, Sequence[Outcome] | Sequence[Sequence[Outcome]]], group: str = ""
) -> list[Row]:
    """A row per condition, each against ``base`` on the same problems; p corrected by Holm over the rows that are no means.

    Args:
        conditions: by label; several lists of outcomes are sets whose mean is shown.
    """
    rows = []
    for label, condition in conditions.items():
        sets = [condition] if isinstance(condition[0], Outcome) else condition
        rows.append(Row(label, tuple(paired(base, outcomes) for outcomes in sets), group))  # type: ignore[arg-type]
    return corrected(rows)


def corrected(rows: Sequence[Row]) -> list[Row]:
    """The rows with p corrected by Holm over all of them that are no means: one family of claims."""
    claims = [i for i, row in enumerate(rows) if row.single]
    adjusted = dict(zip(claims, holm([rows[i].single.p for i in claims]).tolist(), strict=True))  # type: ignore[union-attr]
    return [Row(row.label, row.comparisons, row.group, adjusted.get(i)) for i, row in enumerate(rows)]


def base_row(base: Sequence[Outcome], label: str = "unsteered") -> tuple[Cell, ...]:
    """The cells of the bare model, which has no gain."""
    comparison = paired(base, base)
    accuracy = (comparison.accuracy, comparison.low, comparison.high)
    return (label, comparison.n, *accuracy, *(None,) * 7)


def comparison_table(
    name: str, title: str, base: Sequence[Outcome], rows: Sequence[Row], note: str = "", highlight: str = ""
) -> Table:
    """The bare model and every row; ``highlight`` is a label."""
    labels = [row.label for row in rows]
    return Table(
        name=name,
        title=title,
        columns=COLUMNS,
        rows=(base_row(base), *(row.cells() for row in rows)),
        note=note,
        highlight=labels.index(highlight) + 1 if highlight else None,
    )


def gain_dots(name: str, title: str, rows: Sequence[Row], split: Split, reading: str) -> Dots:
    """The gains of the rows with their intervals."""
    rings = "; rings: single random sets" if any(row.single is None for row in rows) else ""
    return Dots(
        name=name,
        title=title,
        n=rows[0].comparisons[0].n,
        split=split,
        detail=f"dots with 95 % paired intervals{rings}",
        reading=reading,
        x_label="gain in accuracy over the unsteered model (percentage points)",
        unit="points",
        dots=tuple(row.dot() for row in rows),
        reference=0.0,
    )


def describe(row: Row) -> str:
    """One row in words: gain, interval and corrected p.

    Example:
        ``"+19.8 points [+17.1, +22.5], p = 3e-47"``
    """
    low, high = row.dot().low, row.dot().high
    p = "" if row.p_holm is None else f", p = {row.p_holm:.2g} after Holm"
    return f"{100 * row.gain:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]{p}"  # type: ignore[intervention]


def gain_words(comparison: PairedComparison) -> str:
    """A gain and its interval, in points.

    Example:
        ``"+19.8 points [+17.1, +22.5]"``
    """
    return describe(Row("", (comparison,)))


PUBLISHED_STRENGTH = 0.3
"""AdaRAS's, in every released configuration."""


def strengths(bench: Workbench) -> tuple[float, ...]:
    """The strengths that a method may choose from: the grid of the run, the published one, and 1."""
    return tuple(sorted({PUBLISHED_STRENGTH, 1.0, *bench.tune.strengths}))


def best_strength(
    bench: Workbench,
    steering: Steering,
    gate: GateSetting = "on",
    label: str = "",
    problems: Sequence[Problem] | None = None,
) -> Steering:
    """The same steering at the strength with the highest accuracy on the validation split; ties go to the weakest.

    The bare model is no candidate: a method that cannot help is shown at its best all the same.

    Args:
        problems: of the validation split; by default as many as each point of the grid ran.
    """
    problems = bench.split(Split.VALIDATION)[: bench.tune.problems] if problems is None else problems
    candidates = [steering.with_strength(strength) for strength in strengths(bench)]
    return max(candidates, key=lambda candidate: accuracy(bench.answers(Split.VALIDATION, candidate, gate, problems, label)))


def accuracy(outcomes: Sequence[Outcome]) -> float:
    """Share of correct answers; one that could not be scored is not correct."""
    return sum(outcome.correct for outcome in outcomes) / len(outcomes)


class Section(NamedTuple):
    """Tables, figures, and what they came to."""

    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    findings: tuple[str, ...] = ()
