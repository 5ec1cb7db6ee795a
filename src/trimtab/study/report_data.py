"""From an evaluation to its report: gathers what the verbs of a study returned, and decides nothing that they decided."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from trimtab import __version__
from trimtab.evaluation.control_rows import Controls
from trimtab.evaluation.controls import gate_alone
from trimtab.evaluation.outcomes import Outcome, first_responses
from trimtab.evaluation.rows import ADARAS, ALWAYS, GATED, UNSTEERED, ConditionSummary, ThresholdPoint, TunePoint
from trimtab.evaluation.settings import best_point
from trimtab.evaluation.summary import break_down, correct, flips, random_gains, threshold_curve
from trimtab.evaluation.verdict import ConditionVerdict, judge, matched
from trimtab.experiments import EXPERIMENT_NAMES
from trimtab.findings import Findings
from trimtab.gating import assess, fit_text, roc_points
from trimtab.report import (
    CriterionRow,
    DoseRow,
    Example,
    FlipsReport,
    GateReport,
    NeuronRow,
    NeuronsReport,
    Report,
    RunReport,
    TuneReport,
    UnscoredBounds,
    VerdictReport,
)
from trimtab.sampling import way_of
from trimtab.stats.verdict import finite
from trimtab.study import find, gather
from trimtab.study.values import Evaluation, Tuning
from trimtab.tasks.sandbox import describe_best
from trimtab.tasks.settings import TESTBED
from trimtab.testbed.sources import FailureSource, failure_sources
from trimtab.traces import AnswerKind, Problem, Split

if TYPE_CHECKING:
    from trimtab.study.study import Study

POSITIVE_CONTROL = (
    "This is a positive control: the bundled model's failures were taught by its training text. It shows that trimtab finds and "
    "turns what there is to find, and reports no evidence where there is nothing. It is not evidence that steering helps another "
    "model."
)
PACKAGES = ("torch", "transformers", "scikit-learn", "scipy", "numpy")


# what the paper's own method is made of
ADARAS_CRITERION, ADARAS_INTERVENTION = "adaras", "add"


def build_report(study: "Study", evaluation: Evaluation, tuning: Tuning | None) -> Report:
    """Everything that the report shows.

    Args:
        study: that made it.
        evaluation: whose verdict it is.
        tuning: where the steering was chosen; None where a finished artifact is judged.
    """
    outcomes, alpha = evaluation.outcomes, study.settings.evaluation.alpha
    base, judged = outcomes[UNSTEERED], outcomes[evaluation.condition]
    noise = evaluation.controls.noise
    return Report(
        verdict=_verdict(evaluation),
        claims=_caveats(study, evaluation, base, judged, alpha),
        conditions=tuple(evaluation.rows.values()),
        controls=_controls(study, evaluation, tuning is not None),
        breakdowns=break_down(base, judged, alpha, noise.floor if noise else 0.0, study.problems().clusters),
        random_gains={kind: tuple(gains) for kind, gains in random_gains(outcomes).items()},
        gate=_gate(study, evaluation, tuning is not None),
        neurons=_found_neurons(study, tuning) if tuning else _artifact_neurons(evaluation),
        tune=_tune(tuning) if tuning else None,
        criteria=_criteria(study, tuning, evaluation.rows) if tuning else (),
        flips=_flips(study, evaluation, base, judged),
        run=_run(study, evaluation, tuning),
        experiments=tuple(finished_experiments(study, tuning)),
        examples=_examples(evaluation, base, judged),
    )


def finished_experiments(study: "Study", tuning: Tuning | None) -> list[Findings]:
    """The findings of every finished experiment on the tuned steering, in the order of their names."""
    if tuning is None:
        return []
    return [study.experiment(name) for name in EXPERIMENT_NAMES if study.experiment_entry(name, tuning).done]


def _caveats(
    study: "Study", evaluation: Evaluation, base: Sequence[Outcome], condition: Sequence[Outcome], alpha: float
) -> tuple[str, ...]:
    """What has to stand beside the verdict: that the testbed is a control, how programs were run, and what leaks."""
    if study.settings.task.source == TESTBED:
        return (POSITIVE_CONTROL,)
    programs = any(problem.kind is AnswerKind.CODE for problem in evaluation.problems.values())
    confined = (f"Programs of the answers run behind these layers on this machine: {describe_best()}.",) if programs else ()
    return confined + _leaks(study, evaluation, base, condition, alpha)


def _leaks(
    study: "Study", evaluation: Evaluation, base: Sequence[Outcome], condition: Sequence[Outcome], alpha: float
) -> tuple[str, ...]:
    """The verdict without the problems that also stand in an earlier split."""
    shared: dict = study.problems().facts["splits"]["near_duplicates"]  # type: ignore[index,assignment]
    leaking = {pair["id"] for pair in shared["pairs"] if pair["split"] == evaluation.split}
    if not leaking:
        return ()
    kept_base, kept_condition = ([o for o in side if o.problem_id not in leaking] for side in (base, condition))
    note = f"{len(leaking)} of these problems stand, exactly or nearly, in an earlier split. Without them"
    return (
        f"{note}: {judge(kept_base, kept_condition, alpha, clusters=study.problems().clusters).sentence}"
        if kept_base
        else f"{note} none is left.",
    )


def _verdict(evaluation: Evaluation) -> VerdictReport:
    judgement: ConditionVerdict = evaluation.verdict
    return VerdictReport(
        condition=evaluation.condition,
        split=evaluation.split,
        word=judgement.word,
        sentence=judgement.sentence,
        n=judgement.comparison.n,
        minimum_detectable_gain=finite(judgement.smallest_gain),
        bounds=None if judgement.ranges is None else UnscoredBounds.model_validate(judgement.ranges),
    )


def testbed_sources(evaluation: Evaluation) -> list[FailureSource]:
    """Where each failure of the unsteered model comes from; on the testbed alone, which knows."""
    responses = first_responses(evaluation.outcomes[UNSTEERED])
    problems = evaluation.problems
    return failure_sources([(o.problem_id, problems[o.problem_id].question, o.response, o.correct) for o in responses])


def _flips(study: "Study", evaluation: Evaluation, base: Sequence[Outcome], condition: Sequence[Outcome]) -> FlipsReport:
    by_source = None
    if study.settings.task.source == "testbed":
        by_source = flips(base, condition, {row.problem_id: row.source for row in testbed_sources(evaluation)})
    return FlipsReport.model_validate(
        {
            "by_domain": flips(base, condition, {o.problem_id: o.domain or "all" for o in base}),
            "by_difficulty": flips(base, condition, {o.problem_id: f"{o.difficulty:02d}" for o in base}),
            "by_source": by_source,
        }
    )


def _run(study: "Study", evaluation: Evaluation, tuning: Tuning | None) -> RunReport:
    problems = study.problems()
    samples = {f"{split} problems": len(problems.split(split)) for split in Split}
    if tuning:
        samples |= {"sampled traces": len(study.traces()), "contrast traces": len(study.contrast())}
    where = study.path or study.cache.root
    return RunReport(
        model=study.model.identity,
        task=study.settings.task.source,
        config_digest=evaluation.key,
        samples=samples,
        seconds=study.seconds,
        versions={
            "python": platform.python_version(),
            "trimtab": __version__,
            **{package: importlib.metadata.version(package) for package in PACKAGES},
        },
        ledger_openings=evaluation.openings,
        command=f"trimtab run {where / 'run.toml'} --out NEW_FOLDER",
        sampling=_sampling(study),
    )


def _sampling(study: "Study") -> str:
    way = way_of(study.model) if study.settings.engine == "transformers" else None
    return str(way) if way is not None and way.reason else ""


def _examples(evaluation: Evaluation, base: Sequence[Outcome], condition: Sequence[Outcome]) -> tuple[Example, ...]:
    problems: Mapping[str, Problem] = evaluation.problems
    kinds = {(False, True): "fixed", (True, False): "broken", (False, False): "still wrong"}
    wanted = {"fixed": 2, "broken": 1, "still wrong": 1}
    found = []
    for before, after in matched(first_responses(base), first_responses(condition)):
        kind = kinds.get((before.correct, after.correct))
        if kind is None or not wanted[kind]:
            continue
        wanted[kind] -= 1
        problem = problems[before.problem_id]
        found.append(
            Example(
                problem_id=problem.id,
                question=problem.question,
                gold=problem.answer,
                unsteered=before.response,
                steered=after.response,
                kind=kind,  # type: ignore[arg-type]
                p_fail=after.p_fail,
            )
        )
    return tuple(found)


def _gate(study: "Study", evaluation: Evaluation, found: bool) -> GateReport | None:
    """The gate on each problem's first response; None where it reads nothing, or fewer than two problems failed or were
    solved."""
    outcomes, gate = evaluation.outcomes, evaluation.steering.gate
    failed = ~correct(first_responses(outcomes[UNSTEERED]))
    if not gate.reads or min(failed.sum(), (~failed).sum()) < 2:
        return None
    gated = first_responses(outcomes[GATED])
    p_fail = np.array([outcome.p_fail for outcome in gated], np.float64)
    text_roc, p_text = (), None
    # the text-only baseline is fitted on the train split, which a run on a finished artifact has not
    if found:
        text = fit_text([problem.question for problem in study.problems().split(Split.TRAIN)], find.failed(study, Split.TRAIN))
        p_text = text.probability([problem.question for problem in evaluation.problems.values()])
        text_roc = roc_points(failed, p_text)
    return GateReport(
        split=evaluation.split,
        assessment=assess(failed, p_fail, p_text),
        threshold=gate.cutoff,
        firing_rate=float(np.mean([bool(outcome.fired) for outcome in gated])),
        text_roc=text_roc,
        label=gate.label,
        thresholds=_thresholds(outcomes),
    )


def _thresholds(outcomes: Mapping[str, Sequence[Outcome]]) -> tuple[ThresholdPoint, ...]:
    """What every threshold would gain: the steered answer where p(fail) reaches it, the unsteered one below."""
    p_fail = {outcome.problem_id: outcome.p_fail for outcome in first_responses(outcomes[GATED])}
    pairs = matched(first_responses(outcomes[UNSTEERED]), first_responses(outcomes[ALWAYS]))
    return threshold_curve(
        np.array([base.correct for base, _ in pairs]),
        np.array([steered.correct for _, steered in pairs]),
        np.array([p_fail[base.problem_id] for base, _ in pairs], np.float64),
    )


def _controls(study: "Study", evaluation: Evaluation, found: bool) -> Controls:
    """The controls of the evaluation, the gate by itself where it reads, and the contrast's traces where this run found them."""
    gate = evaluation.steering.gate
    return replace(
        evaluation.controls,
        gate=gate_alone(evaluation.outcomes, gate.cutoff) if gate.reads else None,
        recurrence=gather.recurrence(study) if found else None,
    )


def _found_neurons(study: "Study", tuning: Tuning) -> NeuronsReport:
    """The neurons that this run found and tuned."""
    best = tuning.best
    neurons = find.rankings(study, [best.criterion], study.settings.ranking.k)[best.criterion].top(best.k)
    expert = neurons.model.experts_of(neurons.layer, neurons.index)
    index = np.where(expert < 0, neurons.index, neurons.index % neurons.model.d_expert)
    columns = {
        "layer": neurons.layer,
        "index": index,
        "correct_mean": neurons.correct_mean,
        "incorrect_mean": neurons.incorrect_mean,
        "mean_difference": neurons.mean_difference,
    }
    columns |= {"score": neurons.score} | ({"expert": expert} if neurons.model.n_experts > 1 else {})
    return NeuronsReport(
        criterion=best.criterion,
        intervention=best.intervention,
        k=best.k,
        share=neurons.share,
        strength=best.strength,
        scope=study.settings.tune.scope,
        layer_counts=tuple(np.bincount(neurons.layer, minlength=neurons.model.n_layers).tolist()),
        top=tuple(
            NeuronRow.model_validate(dict(zip(columns, row, strict=True)))
            for row in zip(*(column[:20].tolist() for column in columns.values()), strict=True)
        ),
        contrast=gather.contrast(study)[1],  # type: ignore[arg-type]
    )


def _artifact_neurons(evaluation: Evaluation) -> NeuronsReport:
    """The neurons of a finished artifact, which holds what is done to them and not the class means they were found from."""
    steering = evaluation.steering
    return NeuronsReport(
        criterion=str(steering.facts.get("criterion", "not recorded")),
        intervention=str(steering.facts.get("intervention", "not recorded")),
        k=len(steering.layer),
        share=len(steering.layer) / steering.model.n_neurons,
        strength=steering.strength,
        scope=steering.scope,
        layer_counts=tuple(np.bincount(steering.layer, minlength=steering.model.n_layers).tolist()),
        top=(),
        contrast={},
        directions=tuple(steering.direction_layer.tolist()),
    )


def _tune(tuning: Tuning) -> TuneReport:
    """The grid, its best point, and that point's dose and response."""
    points, best = tuning.points, tuning.best
    return TuneReport(points=tuple(points), chosen=best, dose=_dose(points, best))


def _criteria(study: "Study", tuning: Tuning, rows: Mapping[str, ConditionSummary]) -> tuple[CriterionRow, ...]:
    """The best point of each criterion with each intervention, and its row on the problems of the verdict where it has one."""
    points = tuning.points
    conditions = {best_point(points): ALWAYS}
    if ADARAS in rows:
        conditions[best_point(points, ADARAS_CRITERION, ADARAS_INTERVENTION)] = ADARAS
    table = []
    for criterion, intervention in product(study.settings.ranking.criteria, study.settings.tune.interventions):
        best = best_point(points, criterion, intervention)
        table.append(CriterionRow(best=best, test=rows.get(conditions.get(best, ""))))
    return tuple(table)


def _dose(points: Sequence[TunePoint], best: TunePoint) -> tuple[DoseRow, ...]:
    same = [p for p in points if (p.criterion, p.intervention, p.k) == (best.criterion, best.intervention, best.k)]
    rows = [DoseRow(strength=p.strength, accuracy=p.always, n=p.n) for p in same]
    rows.append(DoseRow(strength=0.0, accuracy=best.unsteered, n=best.n))
    return tuple(sorted(rows, key=lambda row: row.strength))
