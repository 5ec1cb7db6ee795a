"""The figures of a report as frames, in reading order, and those that the ``plot()`` of a value draws."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from trimtab.errors import InputError
from trimtab.evaluation.control_rows import GateAlone
from trimtab.evaluation.rows import UNSTEERED, ConditionSummary
from trimtab.findings import Cell, Frame
from trimtab.report.data import FlipTable, GateReport, Report, TuneReport
from trimtab.report.wording import (
    accuracy_intervals,
    base_condition,
    condition_name,
    count,
    flip_counts,
    ordered_groups,
    percent,
    points,
    points_interval,
)
from trimtab.stats.estimates import wilson
from trimtab.stats.values import GateAssessment, RunningAssessment

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from trimtab.gate import PromptGate, RunningGate
    from trimtab.neurons import Neurons

Gains = Mapping[str, Sequence[float]]
SET = "single random sets"
WILSON = "95 % Wilson intervals."


def report_frames(report: Report) -> list[Frame]:
    """The frames that this report has data for."""
    split = report.verdict.split
    frames = [
        accuracy_frame(report.conditions, report.random_gains, report.verdict.condition),
        *([gain_frame(report.conditions, report.random_gains, report.verdict.condition)] if len(report.conditions) > 1 else []),
    ]
    flips = report.flips
    groups = {"failure source": flips.by_source or {}, "domain": flips.by_domain, "difficulty": flips.by_difficulty}
    frames += [flip_frame(what, table) for what, table in groups.items() if len(table) > 1]
    if report.gate is not None:
        frames += [roc_frame(report.gate), calibration_frame(report.gate)]
        frames += [threshold_frame(report.gate)] if report.gate.thresholds else []
    if report.controls is not None and report.controls.gate is not None:
        frames.append(coverage_frame(report.controls.gate))
    frames += [layer_frame(report.neurons.layer_counts, report.neurons.criterion)] if report.neurons.k else []
    if report.tune is not None:
        frames.append(tune_frame(report.tune))
        base = {"validation": report.tune.chosen.unsteered, split: base_condition(report).accuracy}
        frames += [dose_frame(report.tune, base.get(report.tune.dose_split))] if report.tune.dose else []
    return frames


def frame_split(report: Report, name: str) -> str:
    """The split whose problems a frame of :func:`report_frames` shows."""
    if name == "layers":
        return "train"
    if name in ("roc", "calibration", "thresholds") and report.gate is not None:
        return report.gate.split
    if name == "dose" and report.tune is not None:
        return report.tune.dose_split
    return "validation" if name == "tune" else report.verdict.split


def accuracy_frame(rows: Sequence[ConditionSummary], random_gains: Gains, judged: str = "") -> Frame:
    """Accuracy of each condition, and of every random set."""
    base = next((row.accuracy for row in rows if row.condition == UNSTEERED), None)
    cells: list[dict[str, Cell]] = []
    for row in rows:
        mark = {"label": condition_name(rows, random_gains, row.condition), "n": row.n, "unit": "share"}
        interval = {"value": row.accuracy, "low": row.low, "high": row.high}
        cells.append({**mark, **interval, "series": row.condition, "chosen": row.condition == judged})
        gains = random_gains.get(row.condition, ()) if base is not None else ()
        cells += [{**mark, "value": (base or 0.0) + gain, "series": SET, "chosen": False} for gain in gains]
    return Frame(
        "accuracy",
        "Accuracy per condition",
        cells,
        plot="dots",
        x_label="accuracy",
        reference=base,
        note=f"{accuracy_intervals(rows)}.",
        reading="Each dot is a condition on the same problems, the bar its interval, the dotted line the unsteered model. "
        "Whether a condition differs from it is read from the paired gain, not from the overlap of two bars.",
    )


def gain_frame(rows: Sequence[ConditionSummary], random_gains: Gains, judged: str = "") -> Frame:
    """Paired gain of each condition over the unsteered model, and of every random set."""
    cells: list[dict[str, Cell]] = []
    for row in rows:
        base = row.condition == UNSTEERED
        mark = {"label": condition_name(rows, random_gains, row.condition), "n": row.n, "unit": "points"}
        interval = (
            {} if base else {"value": row.gain, "low": row.gain_low, "high": row.gain_high, "p": row.p, "p_holm": row.p_holm}
        )
        empty: dict[str, Cell] = {"value": None, "low": None, "high": None, "p": None, "p_holm": None}
        cells.append({**mark, **empty, **interval, "series": row.condition, "chosen": row.condition == judged})
        gains = random_gains.get(row.condition, ())
        cells += [{**mark, **empty, "value": gain, "series": SET, "chosen": False} for gain in gains]
    return Frame(
        "gain",
        "Paired gain over the unsteered model",
        cells,
        plot="dots",
        x_label="gain in accuracy",
        reference=0.0,
        note="95 % paired intervals.",
        reading=_gain_reading(rows, random_gains, judged),
    )


def _gain_reading(rows: Sequence[ConditionSummary], random_gains: Gains, judged: str) -> str:
    reading = (
        "An interval that leaves out 0 is an effect on these problems. A single random set can gain by luck, so all are drawn."
    )
    row = next((row for row in rows if row.condition == judged), None)
    gains = [gain for kind in random_gains.values() for gain in kind]
    if row is None or not gains:
        return reading
    as_good = sum(gain >= row.gain for gain in gains)
    return f"{reading} {as_good} of {len(gains)} random sets gain as much as the condition that is judged ({points(row.gain)})."


def flip_frame(what: str, table: FlipTable) -> Frame:
    """Shares of the problems of each group that were fixed, broken or stayed wrong; the rest stayed right."""
    cells: list[dict[str, Cell]] = []
    for group in ordered_groups(table):
        counts = flip_counts(table, group)
        total = sum(counts.values())
        for kind in ("fixed", "broken", "still wrong"):
            share = counts[kind] / total if total else None
            cells.append({"label": group, "x": group, "n": total, "value": share, "unit": "share", "series": kind})
    return Frame(
        f"flips-{what.removeprefix('failure ')}",
        f"Fixed and broken by {what}",
        cells,
        plot="bars",
        x_label=what,
        y_label="share of the group's problems",
        reading=f"What steering repairs, what it costs and the failures that it leaves, by {what}; the rest stayed right.",
    )


def roc_frame(gate: GateReport) -> Frame:
    """ROC of the gate and, where there is one, of the text-only baseline."""
    assessed = gate.assessment
    curves = [("gate", assessed.roc, assessed.auroc)]
    if assessed.text_auroc is not None:
        curves.append(("wording only", gate.text_roc, assessed.text_auroc))
    return Frame(
        "roc",
        "Gate: ROC",
        [
            {
                "label": name,
                "n": assessed.n,
                "value": area.value,
                "low": area.low,
                "high": area.high,
                "unit": "number",
                "series": name,
                "false_positive_rate": x,
                "true_positive_rate": y,
            }
            for name, curve, area in curves
            for x, y in curve
        ],
        plot="roc",
        x_label="false alarms (share of solved problems)",
        y_label="failures caught",
        note=f"{count(assessed.n_failed)} of {count(assessed.n)} problems failed unsteered; DeLong's 95 % intervals.",
        reading=f"The further a curve lies above the diagonal the better; {_against_wording(assessed)}.",
    )


def _against_wording(assessed: GateAssessment) -> str:
    difference = assessed.difference
    if difference is None:
        return "no text-only baseline was fitted, so it is open whether this gate knows more than the wording"
    ahead = "knows more than the wording" if assessed.beats_text else "is not shown to know more than the wording"
    return f"this gate {ahead}: AUROC difference {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def calibration_frame(gate: GateReport) -> Frame:
    """Observed failures over predicted p(fail), in bins of equal counts."""
    assessed = gate.assessment
    cells: list[dict[str, Cell]] = []
    for row in assessed.calibration:
        ends = wilson(round(row.observed * row.n), row.n)
        interval = {"value": row.observed, "low": ends.low, "high": ends.high}
        cells.append({"label": "gate", "n": row.n, **interval, "unit": "share", "series": "gate", "x": row.predicted})
    ideal = {
        "label": "perfect calibration",
        "n": None,
        "low": None,
        "high": None,
        "unit": "share",
        "series": "perfect calibration",
    }
    cells += [{**ideal, "value": x, "x": x} for x in (0.0, 1.0)]
    beside = "" if assessed.text_brier is None else f", wording only {assessed.text_brier:.3f}"
    return Frame(
        "calibration",
        "Gate: calibration",
        cells,
        plot="curves",
        x_label="share predicted to fail, p(fail)",
        y_label="share that failed",
        mark=gate.threshold,
        note=f"{WILSON} The gate fires from the marked p(fail) on.",
        reading=f"Dots on the dotted line mean that a p(fail) can be taken at its word; Brier score "
        f"{assessed.brier:.3f}{beside} (0 is perfect).",
    )


def threshold_frame(gate: GateReport) -> Frame:
    """What a hard gate gains over the share of problems that it steers, one row for each threshold."""
    rows = sorted(gate.thresholds, key=lambda row: row.threshold)
    here = next((row for row in rows if row.threshold >= gate.threshold), rows[-1])
    seen = "the threshold may have been chosen on these problems" if gate.split == "validation" else "it was not chosen here"
    return Frame(
        "thresholds",
        "Gate: what each threshold gains",
        [
            {
                "label": f"p(fail) >= {row.threshold:.3f}",
                "n": gate.assessment.n,
                "value": row.gain,
                "low": row.low,
                "high": row.high,
                "unit": "points",
                "series": "hard gate",
                "x": row.steered,
                "threshold": row.threshold,
                "accuracy": row.accuracy,
            }
            for row in reversed(rows)
        ],
        plot="curves",
        x_label="share of the problems that are steered",
        y_label="gain",
        reference=0.0,
        mark=here.steered,
        note=f"Pointwise 95 % paired intervals; the marked threshold is the gate's, and {seen}.",
        reading=f"From no problem steered on the left to all on the right ({points(rows[0].gain)} points). At the gate's "
        f"threshold {percent(here.steered)} are, for {points(here.gain)} points {points_interval(here.low, here.high)}; the best "
        "point of this curve would be too good, because it would be chosen for it.",
    )


def coverage_frame(gate: GateAlone) -> Frame:
    """Accuracy of the unsteered model where only the problems with the lowest p(fail) are answered, over their share."""
    at = gate.at_threshold
    return Frame(
        "coverage",
        "Gate alone: accuracy of what is answered",
        [
            {
                "label": "gate",
                "n": row.n,
                "value": row.accuracy,
                "low": row.low,
                "high": row.high,
                "unit": "share",
                "series": "gate",
                "x": row.coverage,
            }
            for row in gate.curve
        ],
        plot="curves",
        x_label="share of the problems that are answered",
        y_label="accuracy, unsteered",
        reference=1 - gate.n_failed / gate.n,
        mark=None if at is None else at.coverage,
        note=f"Pointwise {WILSON}" + ("" if at is None else " The marked share is what the gate lets through."),
        reading="Abstaining instead of steering: the problems with the lowest p(fail) are answered by the unsteered model, the "
        "others by nobody. The dotted line is its accuracy on all of them, which a gate that knows nothing would keep.",
    )


def directions_frame(layers: Sequence[int], norms: Sequence[float], criterion: str) -> Frame:
    """The norm of the direction after each of some layers."""
    return Frame(
        "directions",
        f"Norm of each layer's direction ({criterion})",
        [
            {"label": f"layer {layer}", "value": norm, "unit": "number", "series": criterion, "x": str(layer)}
            for layer, norm in zip(layers, norms, strict=True)
        ],
        plot="bars",
        x_label="after layer (0 is nearest to the input)",
        y_label="norm",
    )


def layer_frame(counts: Sequence[int], criterion: str) -> Frame:
    """Selected neurons per layer, every layer of the model."""
    k, most = sum(counts), max(range(len(counts)), key=counts.__getitem__)
    return Frame(
        "layers",
        f"Where the {count(k)} selected neurons sit ({criterion})",
        [
            {"label": f"layer {layer}", "value": number, "unit": "count", "series": criterion, "x": str(layer)}
            for layer, number in enumerate(counts)
        ],
        plot="bars",
        x_label="layer (0 is nearest to the input)",
        y_label="neurons",
        reading=f"Layer {most} holds the most, {counts[most]} of {count(k)}.",
    )


def tune_frame(tune: TuneReport) -> Frame:
    """Accuracy behind the gate for each criterion, intervention and K over strength; the chosen point is framed."""
    cells: list[dict[str, Cell]] = []
    for point in sorted(tune.points, key=lambda p: (p.criterion, p.intervention, p.k, p.strength)):
        name = f"{point.criterion}, {point.intervention}, K = {point.k}"
        ends = wilson(round(point.gated * point.n), point.n)
        cells.append(
            {
                "label": f"{name}, strength {point.strength:g}",
                "n": point.n,
                "value": point.gated,
                "low": ends.low,
                "high": ends.high,
                "unit": "share",
                "row": name,
                "column": f"{point.strength:g}",
                "always": point.always,
                "chosen": point == tune.chosen,
            }
        )
    return Frame(
        "tune",
        "Tuning: accuracy with the gate",
        cells,
        plot="matrix",
        x_label="strength",
        reference=tune.chosen.unsteered,
        note=f"White is the unsteered accuracy, {percent(tune.chosen.unsteered)}.",
        reading="The framed point was taken to the test split. Neighbours that do as well speak for an effect, a lone peak for "
        "luck; its accuracy here is too high either way, because it was chosen for it.",
    )


def dose_frame(tune: TuneReport, unsteered: float | None) -> Frame:
    """Accuracy over strength, negative ones too, with everything else as chosen."""
    cells: list[dict[str, Cell]] = []
    for row in sorted(tune.dose, key=lambda row: row.strength):
        ends = wilson(round(row.accuracy * row.n), row.n)
        interval = {"value": row.accuracy, "low": ends.low, "high": ends.high}
        cells.append(
            {"label": "always on", "n": row.n, **interval, "unit": "share", "series": "always", "x": f"{row.strength:g}"}
        )
    return Frame(
        "dose",
        "Dose and response",
        cells,
        plot="curves",
        x_label="strength",
        y_label="accuracy",
        reference=unsteered,
        note=f"Always on; {WILSON}",
        reading="An effect of the found direction rises with strength, falls when that is too high, and turns with the sign.",
    )


def evaluation_figure(
    rows: Sequence[ConditionSummary], random_gains: Gains | None = None, split: str = "test", judged: str = ""
) -> "go.Figure":
    """Accuracy and paired gain of every condition, side by side: ``Evaluation.plot()``.

    Args:
        rows: in the order of the table, the unsteered model among them.
        random_gains: of every random set, by kind; drawn as rings.
        judged: the condition whose name is bold.
    """
    from trimtab.report.plots import together

    frames = [make(rows, random_gains or {}, judged) for make in (accuracy_frame, gain_frame)]
    # both panels need the same lines, and the unsteered model gains nothing on itself
    zero = [{**row, "value": 0.0} if row["series"] == UNSTEERED else row for row in frames[1].rows]
    frames[1] = Frame("gain", "Paired gain", zero, plot="dots", x_label="gain", reference=0.0, note=frames[1].note)
    figure = together(frames, "Accuracy and paired gain", split)
    figure.update_yaxes({"showticklabels": False}, row=1, col=2)
    return figure


def gate_figure(gate: "PromptGate") -> "go.Figure":
    """ROC and calibration on the validation problems: the ``plot()`` of a gate.

    Raises:
        InputError: a gate that was not assessed.
    """
    from trimtab.report.plots import together

    facts = gate.facts.get("validation_assessment")
    if not isinstance(facts, Mapping):
        raise InputError(f"{gate.label} was not assessed on validation problems; study.fit_gate() fits and assesses a gate")
    known = {name: value for name, value in facts.items() if name != "beats_text"}
    assessed = TypeAdapter(GateAssessment).validate_python(known)
    report = GateReport(split="validation", assessment=assessed, threshold=gate.cutoff, firing_rate=0.0, label=gate.label)
    return together([roc_frame(report), calibration_frame(report)], "Gate", report.split)


def running_gate_figure(gate: "RunningGate") -> "go.Figure":
    """AUROC and warnings by the share of the response seen: ``RunningGate.plot()``.

    Raises:
        InputError: a gate that was not assessed.
    """
    from trimtab.report.plots import together

    facts = gate.facts.get("validation_assessment")
    if not isinstance(facts, Mapping):
        raise InputError(
            f"{gate.label} was not assessed on validation responses; study.fit_running_gate() fits and assesses a gate"
        )
    assessed = TypeAdapter(RunningAssessment).validate_python(dict(facts))
    return together([timed_auroc_frame(assessed), warned_frame(assessed)], "Running gate", "validation")


def timed_auroc_frame(assessed: RunningAssessment) -> Frame:
    """AUROC by the share of the response seen, beside that of its length and of its words."""
    rows: list[dict[str, Cell]] = []
    for point in assessed.points:
        of = {"running gate": point.auroc, "length so far": point.length_auroc, "words so far": point.text_auroc}
        for series, area in of.items():
            if area is not None:
                value: dict[str, Cell] = {"value": area.value, "low": area.low, "high": area.high, "unit": "number"}
                rows.append({"label": f"{series}, {point.share:.0%}", **value, "series": series, "x": point.share})
    return Frame(
        "running-auroc",
        "AUROC while the response is written",
        rows,
        plot="curves",
        x_label="share of the response seen",
        y_label="AUROC",
        reference=0.5,
        note=f"{assessed.n_failed} of {assessed.n} responses failed; DeLong's 95 % intervals.",
        reading="Where the gate's line lies above that of the words, it knows more than they say.",
    )


def warned_frame(assessed: RunningAssessment) -> Frame:
    """Share of failed and of correct responses about which the gate has warned so far."""
    rows: list[dict[str, Cell]] = []
    for point in assessed.points:
        of = {"failed": (point.warned, assessed.n_failed), "correct": (point.false_alarms, assessed.n - assessed.n_failed)}
        for series, (share, n) in of.items():
            low, high = wilson(round(share * n), n)
            value: dict[str, Cell] = {"n": n, "value": share, "low": low, "high": high, "unit": "share"}
            rows.append({"label": f"{series}, {point.share:.0%}", **value, "series": series, "x": point.share})
    return Frame(
        "running-warned",
        f"Responses warned of at p >= {assessed.threshold:.3f}",
        rows,
        plot="curves",
        x_label="share of the response seen",
        y_label="share of responses warned of",
        note=WILSON,
        reading="The upper line are failures that are announced, the lower false alarms.",
    )


def neurons_figure(neurons: "Neurons") -> "go.Figure":
    """Neurons per layer, and the mean difference of the first 20: ``Neurons.plot()``."""
    from trimtab.report.plots import together

    counts = [0] * neurons.model.n_layers
    for layer in neurons.layer.tolist():
        counts[layer] += 1
    first = zip(neurons.layer.tolist(), neurons.index.tolist(), neurons.mean_difference.tolist(), strict=True)
    cells = [
        {"label": f"layer {layer}, {index}", "value": difference, "unit": "number"}
        for layer, index, difference in list(first)[:20]
    ]
    best = Frame("best", f"Best {len(cells)}", cells, plot="dots", x_label="correct mean - incorrect mean", reference=0.0)
    return together([layer_frame(counts, neurons.criterion), best], f"{count(len(neurons))} neurons")
