"""Measuring the settings of ``sweep`` on the validation split, and showing them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.pairing import paired
from trimtab.experiments.sweep_axes import Axis, Series, Setting
from trimtab.experiments.workbench import Workbench
from trimtab.results import Cell, Column, Curve, CurvePoint, Curves, Dot, Dots, Figure, Table, bounded
from trimtab.stats.values import PairedComparison
from trimtab.steering import Steering
from trimtab.traces import Problem, Split

GAIN = "gain in accuracy over the unsteered model (percentage points)"
NOTE = (
    "The point was chosen on this split, so the figures are optimistic and no p is given. "
    "Accuracy and the difference to the chosen point are of the first view."
)


@dataclass(frozen=True)
class TuneAnswers:
    """Answers to problems of the validation split under any steering.

    A hard gate reads the prompt before anything is steered, so the answers behind it are put together: those of the steering that
    is always on where it fires, those of the bare model elsewhere. One run serves both views.
    """

    bench: Workbench
    problems: Sequence[Problem]

    @cached_property
    def base(self) -> list[Outcome]:
        return self.bench.answers(Split.VALIDATION, None, problems=self.problems, label="unsteered")

    @cached_property
    def fires(self) -> list[bool]:
        """For which problems a gate that reads the prompt fires."""
        outcomes = self.bench.answers(Split.VALIDATION, self.bench.steering, "auto", self.problems, "gate")
        p_fail = np.array([float(outcome.p_fail) for outcome in outcomes])  # type: ignore[arg-type]  # such a gate has one
        return (self.bench.steering.gate.value(p_fail) > 0).tolist()

    def under(self, steering: Steering, gated: bool, label: str = "") -> list[Outcome]:
        """Answers with the steering always on, or behind the gate of the chosen point."""
        gate = self.bench.steering.gate
        if gated and gate.mode == "proportional":
            return self.bench.answers(Split.VALIDATION, steering.with_gate(gate), "auto", self.problems, label)
        steered = self.bench.answers(Split.VALIDATION, steering, "on", self.problems, label)
        if not gated:
            return steered
        return [s if fires else b for s, b, fires in zip(steered, self.base, self.fires, strict=True)]


class Measured(NamedTuple):
    """A setting, its gain over the bare model, and over the chosen point in the same view (None: it is that point)."""

    setting: Setting
    gain: PairedComparison
    against: PairedComparison | None


Rows = list[tuple[Series, list[Measured]]]


def measure(axis: Axis, answers: TuneAnswers) -> Rows:
    """Every setting of an axis."""
    return [(series, [_measured(axis, series, setting, answers) for setting in series.settings]) for series in axis.series]


def _measured(axis: Axis, series: Series, setting: Setting, answers: TuneAnswers) -> Measured:
    chosen = answers.bench.steering
    outcomes = answers.under(setting.steering, series.gated, axis.title)
    gain = paired(answers.base, outcomes)
    if is_chosen(setting, chosen):
        return Measured(setting, gain, None)
    return Measured(setting, gain, paired(answers.under(chosen, series.gated, "chosen point"), outcomes))


def is_chosen(setting: Setting, chosen: Steering) -> bool:
    """Whether a setting is the point that tune chose, whatever its gate."""
    return setting.steering.with_gate(chosen.gate).digest == chosen.digest if setting.steering.scope == chosen.scope else False


def sweep_table(axis: Axis, rows: Rows, answers: TuneAnswers) -> Table:
    """The bare model and every setting: the first view in full, of the others the gain."""
    base = paired(answers.base, answers.base)
    views = [(series, {m.setting.label: m for m in measured}) for series, measured in rows]
    _, first = views[0]
    cells: list[tuple[Cell, ...]] = []
    for label, m in first.items():
        accuracy = (m.gain.accuracy, m.gain.low, m.gain.high)
        gains = [_gain(view.get(label)) for _, view in views]
        against = (None,) * 3 if m.against is None else (m.against.gain, m.against.gain_low, m.against.gain_high)
        more = tuple(cell for gain in gains[1:] for cell in gain)
        cells.append((label, len(m.setting.steering), m.gain.n, *accuracy, *gains[0], *against, *more))
    chosen = [i for i, m in enumerate(first.values()) if m.against is None]
    columns = _columns(views[0][0], [series for series, _ in views[1:]])
    unsteered = ("unsteered", 0, base.n, base.accuracy, base.low, base.high, *(None,) * (len(columns) - 6))
    return Table(
        name=axis.name,
        title=f"Sweep: {axis.title}",
        columns=columns,
        rows=(unsteered, *cells),
        note=f"{NOTE} {axis.note}".strip(),
        highlight=chosen[0] + 1 if chosen else None,
    )


def _gain(m: Measured | None) -> tuple[float | None, ...]:
    return (None,) * 3 if m is None else (m.gain.gain, m.gain.gain_low, m.gain.gain_high)


def _columns(first: Series, others: Sequence[Series]) -> tuple[Column, ...]:
    names = [f"gain, {first.label}", "against the chosen point", *(f"gain, {series.label}" for series in others)]
    return (
        Column(name="setting"),
        Column(name="neurons", unit="count"),
        Column(name="n", unit="count"),
        *bounded("accuracy", "percent"),
        *(column for name in names for column in bounded(name, "points")),
    )


def sweep_figure(axis: Axis, rows: Rows, answers: TuneAnswers) -> Figure:
    """Gains with their paired intervals; the bare model is the line at 0."""
    title = f"Sweep: {axis.title}"
    n = len(answers.base)
    detail = "95 % paired intervals, without correction"
    if axis.kind == "dots":
        gated = any(series.gated for series, _ in rows)
        return Dots(
            name=axis.name,
            title=title,
            n=n,
            split=Split.VALIDATION,
            detail=detail,
            reading=f"The chosen point stands among them, on the problems that it was chosen on. {axis.note}".strip(),
            x_label=GAIN,
            unit="points",
            dots=tuple(_dot(m, series, len(rows) > 1, gated) for series, measured in rows for m in measured),
            reference=0.0,
        )
    return Curves(
        name=axis.name,
        title=title,
        n=n,
        split=Split.VALIDATION,
        detail=detail,
        reading=f"Everything else stays as tune chose it; the dotted line is the unsteered model. {axis.note}".strip(),
        x_label=axis.title,
        y_label="gain in accuracy (percentage points)",
        unit="points",
        log_x=axis.log_x,
        curves=tuple(_curve(series, measured) for series, measured in rows if measured),
        mark=axis.chosen,
        reference=0.0,
    )


def _dot(m: Measured, series: Series, several: bool, gated: bool) -> Dot:
    label = f"{m.setting.label}, {series.label}" if several else m.setting.label
    if m.against is None and series.gated == gated:
        label += " (chosen)"
    return Dot(label=label, group=series.label, value=m.gain.gain, low=m.gain.gain_low, high=m.gain.gain_high)


def _curve(series: Series, measured: Sequence[Measured]) -> Curve:
    points = tuple(CurvePoint(x=m.setting.x, value=m.gain.gain, low=m.gain.gain_low, high=m.gain.gain_high) for m in measured)
    return Curve(label=series.label, points=points)
