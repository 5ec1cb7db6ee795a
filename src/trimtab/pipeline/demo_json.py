"""The one JSON object that ``trimtab demo --json`` prints; others rely on its keys."""

from trimtab.evaluation.arms import ALWAYS, GATED, RANDOM, UNSTEERED
from trimtab.report import ArmRow, Report

ARMS = (UNSTEERED, ALWAYS, GATED, RANDOM)
FIELDS = ("accuracy", "low", "high", "gain", "gain_low", "gain_high", "p", "fixed", "broken", "unscored", "truncated")


def demo_json(report: Report, seconds: float) -> dict[str, object]:
    """The demo's contract; ``controls`` holds the other arms in the same form."""
    rows = {row.arm: row for row in report.arms}
    gate = report.gate
    return {
        "n": report.verdict.n,
        "verdict": report.verdict.word,
        "gate": gate
        and {
            "auroc": gate.auroc.value,
            "auroc_low": gate.auroc.low,
            "auroc_high": gate.auroc.high,
            "firing_rate": gate.firing_rate,
            "text_auroc": gate.text_auroc.value,
            "difference_low": gate.difference.low,
            "difference_high": gate.difference.high,
        },
        "arms": {name: _arm(rows[name]) for name in ARMS},
        "controls": {name: _arm(row) for name, row in rows.items() if name not in ARMS},
        "minimum_detectable_gain": report.verdict.minimum_detectable_gain,
        "steering": {
            "criterion": report.neurons.criterion,
            "neurons": report.neurons.k,
            "strength": report.neurons.strength,
            "scope": report.neurons.scope,
        },
        "seconds": seconds,
    }


def _arm(row: ArmRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in FIELDS}
