"""Steerings beside the unsteered model on the same problems, as rows of a frame; and how a compared method gets its strength."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.verdict import Clusters, paired
from trimtab.experiments.search import GateSetting, Search
from trimtab.findings import Cell, Findings, Frame
from trimtab.stats.significance import holm
from trimtab.stats.values import PairedComparison
from trimtab.steering import Steering
from trimtab.traces import Problem, Split

GAIN = "gain in accuracy over the unsteered model"
PUBLISHED_STRENGTH = 0.3
"""AdaRAS's, in every released configuration."""


class Part(NamedTuple):
    """Frames of one part of an experiment, and the sentences that state the results."""

    frames: tuple[Frame, ...] = ()
    sentences: tuple[str, ...] = ()


def gathered(name: str, title: str, question: str, split: Split, parts: Iterable[Part]) -> Findings:
    """The findings of an experiment, part by part."""
    parts = tuple(parts)
    sentences = tuple(sentence for part in parts for sentence in part.sentences)
    return Findings(name, title, question, sentences, split.value, tuple(frame for part in parts for frame in part.frames))


@dataclass(frozen=True, slots=True)
class Row:
    """One steering, or the mean over several random sets.

    ``comparisons`` holds one per set; ``p_holm`` is None until :func:`corrected` sets it, and for several sets, which are a
    control and no claim.
    """

    label: str
    comparisons: tuple[PairedComparison, ...]
    p_holm: float | None = None

    @property
    def gain(self) -> float:
        return self.mean("gain")

    @property
    def single(self) -> PairedComparison | None:
        """The comparison of a row that is no mean."""
        return self.comparisons[0] if len(self.comparisons) == 1 else None

    @property
    def differs(self) -> bool:
        """Whether the interval of the gain excludes 0."""
        return not self.mean("gain_low") <= 0 <= self.mean("gain_high")

    def mean(self, name: str) -> float:
        """Mean over the sets of a number of :class:`PairedComparison`."""
        return float(np.mean([getattr(comparison, name) for comparison in self.comparisons]))

    def cells(self, series: str = "steered") -> dict[str, Cell]:
        """The row of a frame; a mean over sets has no p of its own."""
        return {
            "label": self.label,
            "n": self.comparisons[0].n,
            "value": self.gain,
            "low": self.mean("gain_low"),
            "high": self.mean("gain_high"),
            "p": self.single.p if self.single else None,
            "p_holm": self.p_holm,
            "unit": "points",
            "series": series,
            "accuracy": self.mean("accuracy"),
            "accuracy_low": self.mean("low"),
            "accuracy_high": self.mean("high"),
            "fixed": round(self.mean("fixed")),
            "broken": round(self.mean("broken")),
        }

    def sets(self) -> list[dict[str, Cell]]:
        """A row for each set of a mean, without intervals: what one draw can do."""
        one_each = (
            [] if self.single else [Row(self.label, (comparison,)).cells("one random set") for comparison in self.comparisons]
        )
        return [{**row, "low": None, "high": None, "p": None} for row in one_each]


def compare_rows(
    base: Sequence[Outcome], conditions: Mapping[str, Sequence[Outcome] | Sequence[Sequence[Outcome]]], clusters: Clusters
) -> list[Row]:
    """A row per condition, each against ``base`` on the same problems; p corrected by Holm over the rows that are no means.

    Args:
        conditions: by label; several lists of outcomes are sets whose mean is shown.
        clusters: of near-duplicate problems, each of which counts once, see :func:`trimtab.evaluation.verdict.paired`.
    """
    rows = []
    for label, condition in conditions.items():
        sets = [condition] if isinstance(condition[0], Outcome) else condition
        rows.append(Row(label, tuple(paired(base, outcomes, clusters) for outcomes in sets)))  # type: ignore[arg-type]
    return corrected(rows)


def corrected(rows: Sequence[Row]) -> list[Row]:
    """The rows with p corrected by Holm over all of them that are no means: one family of claims."""
    claims = [i for i, row in enumerate(rows) if row.single]
    adjusted = dict(zip(claims, holm([rows[i].single.p for i in claims]).tolist(), strict=True))  # type: ignore[union-attr]
    return [Row(row.label, row.comparisons, adjusted.get(i)) for i, row in enumerate(rows)]


def base_cells(base: Sequence[Outcome]) -> dict[str, Cell]:
    """The row of the unsteered model: an accuracy and no gain."""
    nothing = dict.fromkeys(("value", "low", "high", "p", "p_holm", "fixed", "broken"))
    return {**Row("unsteered", (paired(base, base),)).cells("unsteered"), **nothing}


def gain_frame(
    name: str, title: str, base: Sequence[Outcome], rows: Sequence[Row], *, note: str = "", reading: str = "", chosen: str = ""
) -> Frame:
    """The unsteered model and every row, drawn as dots; ``chosen`` is the label of the row to mark."""
    control = " A mean over random sets is followed by its single sets." if any(row.single is None for row in rows) else ""
    told = sorted({words for row in rows for one in row.comparisons if (words := cluster_words(one))})
    note = " ".join(filter(None, (note, *told)))
    cells = [base_cells(base), *(one for row in rows for one in (row.cells(), *row.sets()))]
    return Frame(
        name,
        title,
        [{**row, "chosen": row["label"] == chosen} for row in cells],
        plot="dots",
        x_label=GAIN,
        reference=0.0,
        note=f"{note} Intervals are paired, at 95 %; p_holm is corrected over the rows that are no means.{control}".strip(),
        reading=reading,
    )


def cluster_words(comparison: PairedComparison) -> str:
    """How many problems are near-duplicates of others; nothing where none is."""
    if comparison.clusters is None:
        return ""
    return f"The {comparison.n} problems are {comparison.clusters} clusters of near-duplicates, each of which counts once in p."


def describe(row: Row) -> str:
    """One row in words: gain, interval and corrected p.

    Example:
        ``"+19.8 points [+17.1, +22.5], p = 3e-47 after Holm"``
    """
    p = "" if row.p_holm is None else f", p = {row.p_holm:.2g} after Holm"
    return f"{100 * row.gain:+.1f} points [{100 * row.mean('gain_low'):+.1f}, {100 * row.mean('gain_high'):+.1f}]{p}"


def listed(rows: Iterable[Row]) -> str:
    """Several rows in words, each with its label."""
    return "; ".join(f"{row.label} {describe(row)}" for row in rows)


def gain_words(comparison: PairedComparison) -> str:
    """A gain and its interval, in points.

    Example:
        ``"+19.8 points [+17.1, +22.5]"``
    """
    return describe(Row("", (comparison,)))


def strengths(search: Search) -> tuple[float, ...]:
    """The strengths that a method may choose from: the grid of the run, the published one, and 1."""
    return tuple(sorted({PUBLISHED_STRENGTH, 1.0, *search.tune.strengths}))


def best_strength(
    search: Search,
    steering: Steering,
    gate: GateSetting = "on",
    label: str = "",
    problems: Sequence[Problem] | None = None,
) -> Steering:
    """The same steering at the strength with the highest accuracy on the validation split; ties go to the weakest.

    The unsteered model is no candidate: a method that cannot help is shown at its best all the same.

    Args:
        problems: of the validation split; by default as many as each point of the grid ran.
    """
    problems = search.split(Split.VALIDATION)[: search.tune.problems] if problems is None else problems
    candidates = [steering.with_strength(strength) for strength in strengths(search)]
    return max(candidates, key=lambda candidate: accuracy(search.answers(Split.VALIDATION, candidate, gate, problems, label)))


def accuracy(outcomes: Sequence[Outcome]) -> float:
    """Share of correct answers; one that could not be scored is not correct."""
    return sum(outcome.correct for outcome in outcomes) / len(outcomes)
