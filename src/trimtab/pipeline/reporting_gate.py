"""The gate's part of a report: how well it tells failures from successes on the problems of the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from trimtab.evaluation.names import ALWAYS, GATED, UNSTEERED
from trimtab.evaluation.outcomes import Outcome, first_chains
from trimtab.evaluation.pairing import matched
from trimtab.evaluation.summary import correct
from trimtab.evaluation.threshold_curve import ThresholdPoint, threshold_curve
from trimtab.gate import AnyGate
from trimtab.gating import assess, fit_text, roc_points
from trimtab.gating.assess import calibration_curve
from trimtab.pipeline.line import Line
from trimtab.report import GateReport
from trimtab.stats.auroc import auroc, delong_interval
from trimtab.traces import Split


def gate_report(line: Line, gate: AnyGate, outcomes: Mapping[str, Sequence[Outcome]]) -> GateReport | None:
    """The gate on each problem's first response; None where it reads nothing, or fewer than two problems failed or were
    solved."""
    failed = ~correct(first_chains(outcomes[UNSTEERED]))
    if not gate.reads or min(failed.sum(), (~failed).sum()) < 2:
        return None
    gated = first_chains(outcomes[GATED])
    p_fail = np.array([outcome.p_fail for outcome in gated], np.float64)
    split = line.config.evaluation.split
    # the text-only baseline is fitted on the train split, which a run on a finished artifact has not
    figures = _alone(failed, p_fail) if line.config.artifact.source else _beside_text(line, failed, p_fail, split)
    return GateReport.model_validate(
        {
            **figures,
            "split": split,
            "threshold": gate.cutoff,
            "firing_rate": float(np.mean([bool(outcome.fired) for outcome in gated])),
            "label": gate.label,
            "thresholds": [asdict(point) for point in _thresholds(outcomes)],
        }
    )


def _thresholds(outcomes: Mapping[str, Sequence[Outcome]]) -> tuple[ThresholdPoint, ...]:
    """What every threshold would gain: the steered answer where p(fail) reaches it, the unsteered one below."""
    p_fail = {outcome.problem_id: outcome.p_fail for outcome in first_chains(outcomes[GATED])}
    pairs = matched(first_chains(outcomes[UNSTEERED]), first_chains(outcomes[ALWAYS]))
    return threshold_curve(
        np.array([base.correct for base, _ in pairs]),
        np.array([steered.correct for _, steered in pairs]),
        np.array([p_fail[base.problem_id] for base, _ in pairs], np.float64),
    )


def _beside_text(line: Line, failed: NDArray[np.bool_], p_fail: NDArray[np.float64], split: Split) -> dict[str, object]:
    text = fit_text([problem.question for problem in line.problems(Split.TRAIN)], line.failed(Split.TRAIN))
    p_text = text.probability([problem.question for problem in line.problems(split)])
    return {**asdict(assess(failed, p_fail, p_text)), "text_roc": roc_points(failed, p_text)}


def _alone(failed: NDArray[np.bool_], p_fail: NDArray[np.float64]) -> dict[str, object]:
    low, high = delong_interval(failed, p_fail)
    return {
        "n": len(failed),
        "n_failed": int(failed.sum()),
        "auroc": {"value": auroc(failed, p_fail), "low": low, "high": high},
        "text_auroc": None,
        "difference": None,
        "brier": float(((p_fail - failed) ** 2).mean()),
        "text_brier": None,
        "calibration": [asdict(bin_) for bin_ in calibration_curve(failed, p_fail)],
        "roc": roc_points(failed, p_fail),
    }
