"""The gate's part of a report: how well it tells failures from successes on the problems of the verdict."""

from collections.abc import Mapping, Sequence

import numpy as np

from trimtab.evaluation.names import ALWAYS, GATED, UNSTEERED
from trimtab.evaluation.outcomes import Outcome, first_chains
from trimtab.evaluation.pairing import matched
from trimtab.evaluation.rows import ThresholdPoint
from trimtab.evaluation.summary import correct
from trimtab.evaluation.threshold_curve import threshold_curve
from trimtab.gate import AnyGate
from trimtab.gating import assess, fit_text, roc_points
from trimtab.pipeline.line import Line
from trimtab.report import GateReport
from trimtab.traces import Split


def gate_report(line: Line, gate: AnyGate, outcomes: Mapping[str, Sequence[Outcome]]) -> GateReport | None:
    """The gate on each problem's first response; None where it reads nothing, or fewer than two problems failed or were
    solved."""
    failed = ~correct(first_chains(outcomes[UNSTEERED]))
    if not gate.reads or min(failed.sum(), (~failed).sum()) < 2:
        return None
    gated = first_chains(outcomes[GATED])
    p_fail = np.array([outcome.p_fail for outcome in gated], np.float64)
    split, text_roc, p_text = line.config.evaluation.split, (), None
    # the text-only baseline is fitted on the train split, which a run on a finished artifact has not
    if not line.config.artifact.source:
        text = fit_text([problem.question for problem in line.problems(Split.TRAIN)], line.failed(Split.TRAIN))
        p_text = text.probability([problem.question for problem in line.problems(split)])
        text_roc = roc_points(failed, p_text)
    return GateReport(
        split=split,
        assessment=assess(failed, p_fail, p_text),
        threshold=gate.threshold,
        firing_rate=float(np.mean([bool(outcome.fired) for outcome in gated])),
        text_roc=text_roc,
        label=gate.label,
        thresholds=_thresholds(outcomes),
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
