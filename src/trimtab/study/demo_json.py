"""The one JSON object that ``trimtab demo --json`` prints; others rely on its keys."""

from trimtab.evaluation.rows import ALWAYS, GATED, RANDOM, UNSTEERED, ConditionSummary
from trimtab.report import GateReport, Report

CONDITIONS = (UNSTEERED, ALWAYS, GATED, RANDOM)
FIELDS = ("accuracy", "low", "high", "gain", "gain_low", "gain_high", "p", "fixed", "broken", "unscored", "truncated")


def demo_json(report: Report, seconds: float) -> dict[str, object]:
    """The demo's contract; ``controls`` holds the other conditions in the same form."""
    rows = {row.condition: row for row in report.conditions}
    return {
        "n": report.verdict.n,
        "verdict": report.verdict.word,
        "gate": report.gate and _gate(report.gate),
        "conditions": {name: _condition(rows[name]) for name in CONDITIONS},
        "controls": {name: _condition(row) for name, row in rows.items() if name not in CONDITIONS},
        "minimum_detectable_gain": report.verdict.minimum_detectable_gain,
        "steering": {
            "criterion": report.neurons.criterion,
            "neurons": report.neurons.k,
            "strength": report.neurons.strength,
            "scope": report.neurons.scope,
        },
        "seconds": seconds,
    }


def _gate(gate: GateReport) -> dict[str, object]:
    area, text, difference = gate.assessment.auroc, gate.assessment.text_auroc, gate.assessment.difference
    return {
        "auroc": area.value,
        "auroc_low": area.low,
        "auroc_high": area.high,
        "firing_rate": gate.firing_rate,
        "text_auroc": text and text.value,
        "difference_low": difference and difference.low,
        "difference_high": difference and difference.high,
    }


def _condition(row: ConditionSummary) -> dict[str, object]:
    return {name: getattr(row, name) for name in FIELDS}
