"""From a finished run to its report: gathers what lies on disk, computes nothing that the stages decided."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from trimtab import __version__
from trimtab.evaluation.arms import ADARAS, ALWAYS, GATED, UNSTEERED
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.summary import ArmSummary, correct, flips, paired, random_gains, smallest_gain, summarise
from trimtab.evaluation.tune import TunePoint, best_point
from trimtab.evaluation.verdict import verdict
from trimtab.gate import Gate
from trimtab.gating import assess, fit_text, roc_points
from trimtab.pipeline.line import SAMPLED, Line
from trimtab.report import (
    ArmRow,
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
    TuneRow,
    VerdictReport,
    write_report,
)
from trimtab.store import ModelRecord, openings, read_json, write_table
from trimtab.testbed.sources import FailureSource, failure_sources
from trimtab.traces import Split

POSITIVE_CONTROL = (
    "This is a positive control: the bundled model's failures were taught by its training text. It shows that trimtab finds and "
    "turns what there is to find, and reports no evidence where there is nothing. It is not evidence that steering helps another "
    "model."
)
PACKAGES = ("torch", "transformers", "scikit-learn", "scipy", "numpy")


def judged_arm(gate: Gate) -> str:
    """The arm that the verdict is about: gated where there is a gate."""
    return ALWAYS if gate.kind == "always" else GATED


def build_report(line: Line) -> Report:
    """Everything the report shows, from the files of the run."""
    outcomes = line.outcomes()
    rows = summarise(outcomes)
    gate = line.gate()
    judged = judged_arm(gate)
    points = line.tune_points()
    best = best_point(points)
    return Report(
        verdict=_verdict(line, outcomes, judged),
        claims=(POSITIVE_CONTROL,) if line.config.task.source == "testbed" else (),
        arms=tuple(_arm(row) for row in rows.values()),
        random_gains={kind: tuple(gains) for kind, gains in random_gains(outcomes).items()},
        gate=_gate(line, gate, outcomes),
        neurons=_neurons(line, best),
        tune=TuneReport(points=tuple(_point(p) for p in points), chosen=_point(best), dose=_dose(points, best)),
        criteria=_criteria(line, points, best, rows),
        flips=_flips(line, outcomes, judged),
        run=_run(line),
        examples=_examples(line, outcomes, judged),
    )


def write_run_report(line: Line) -> None:
    """Write report.json and report.html, and on the testbed the sources of the failures."""
    if line.config.task.source == "testbed":
        write_table(line.directory.sources, _sources(line, line.outcomes()[UNSTEERED]))
    write_report(build_report(line), line.directory.path)


def _verdict(line: Line, outcomes: Mapping[str, Sequence[Outcome]], judged: str) -> VerdictReport:
    base, arm = outcomes[UNSTEERED], outcomes[judged]
    unscored = [sum(o.verdict == "unscored" for o in side) for side in (base, arm)]
    word, sentence = verdict(paired(base, arm), *unscored, alpha=line.config.evaluation.alpha)
    smallest = smallest_gain(base, arm)
    return VerdictReport(
        arm=judged,
        word=word,
        sentence=sentence,
        n=len(base),
        minimum_detectable_gain=smallest if np.isfinite(smallest) else None,
    )


def _arm(row: ArmSummary) -> ArmRow:
    return ArmRow.model_validate(row.to_json())


def _point(point: TunePoint) -> TuneRow:
    return TuneRow.model_validate(asdict(point))


def _dose(points: Sequence[TunePoint], best: TunePoint) -> tuple[DoseRow, ...]:
    same = [p for p in points if (p.criterion, p.k) == (best.criterion, best.k)]
    rows = [DoseRow(strength=p.strength, accuracy=p.always, n=p.n) for p in same]
    rows.append(DoseRow(strength=0.0, accuracy=best.unsteered, n=best.n))
    return tuple(sorted(rows, key=lambda row: row.strength))


def _gate(line: Line, gate: Gate, outcomes: Mapping[str, Sequence[Outcome]]) -> GateReport | None:
    if gate.kind == "always":
        return None
    failed = ~correct(outcomes[UNSTEERED])
    p_fail = np.array([o.p_fail for o in outcomes[GATED]], np.float64)
    text = fit_text([p.question for p in line.problems(Split.FIND)], line.failed(Split.FIND))
    p_text = text.probability([p.question for p in line.problems(Split.TEST)])
    assessment = assess(failed, p_fail, p_text)
    return GateReport.model_validate(
        {
            **asdict(assessment),
            "split": Split.TEST,
            "threshold": gate.threshold,
            "firing_rate": float(np.mean([bool(o.fired) for o in outcomes[GATED]])),
            "text_roc": roc_points(failed, p_text),
        }
    )


def _neurons(line: Line, best: TunePoint) -> NeuronsReport:
    neurons = line.neurons(best.criterion).top(best.k)
    columns = (neurons.layer, neurons.index, neurons.good, neurons.bad, neurons.delta, neurons.score)
    names = ("layer", "index", "good", "bad", "delta", "score")
    counts = read_json(line.directory.contrast.with_suffix(".json"))
    return NeuronsReport(
        criterion=best.criterion,
        k=best.k,
        share=neurons.share,
        strength=best.strength,
        scope=line.config.tune.scope,
        layer_counts=tuple(np.bincount(neurons.layer, minlength=neurons.model.n_layers).tolist()),
        top=tuple(
            NeuronRow.model_validate(dict(zip(names, row, strict=True)))
            for row in zip(*(column[:20].tolist() for column in columns), strict=True)
        ),
        contrast=counts,  # type: ignore[arg-type]
    )


def _criteria(
    line: Line, points: Sequence[TunePoint], best: TunePoint, rows: Mapping[str, ArmSummary]
) -> tuple[CriterionRow, ...]:
    table = []
    for criterion in line.config.ranking.criteria:
        arm = rows.get(ALWAYS if criterion == best.criterion else ADARAS if criterion == "mean-difference-polarity" else "")
        table.append(
            CriterionRow(criterion=criterion, best=_point(best_point(points, criterion)), test=_arm(arm) if arm else None)
        )
    return tuple(table)


def _sources(line: Line, unsteered: Sequence[Outcome]) -> list[FailureSource]:
    questions = {problem.id: problem.question for problem in line.problems(Split.TEST)}
    return failure_sources([(o.problem_id, questions[o.problem_id], o.response, o.correct) for o in unsteered])


def _flips(line: Line, outcomes: Mapping[str, Sequence[Outcome]], judged: str) -> FlipsReport:
    base, arm = outcomes[UNSTEERED], outcomes[judged]
    by_source = None
    if line.config.task.source == "testbed":
        by_source = flips(base, arm, {row.problem_id: row.source for row in _sources(line, base)})
    return FlipsReport.model_validate(
        {
            "by_domain": flips(base, arm, {o.problem_id: o.domain or "all" for o in base}),
            "by_difficulty": flips(base, arm, {o.problem_id: f"{o.difficulty:02d}" for o in base}),
            "by_source": by_source,
        }
    )


def _run(line: Line) -> RunReport:
    counts = {split.value: len(line.problems(split)) for split in Split}
    samples = {f"{split} problems": n for split, n in counts.items()}
    samples["sampled traces"] = len(line.grades(SAMPLED))
    samples["contrast traces"] = len(line.contrast())
    return RunReport(
        model=ModelRecord.model_validate(asdict(line.opened.identity)),
        task=line.config.task.source,
        config_digest=line.directory.digest,
        samples=samples,
        seconds=line.seconds,
        versions={
            "python": platform.python_version(),
            "trimtab": __version__,
            **{package: importlib.metadata.version(package) for package in PACKAGES},
        },
        ledger_openings=openings(line.directory.ledger),
        command=f"trimtab run {line.directory.path / 'run.toml'} --out NEW_FOLDER",
    )


def _examples(line: Line, outcomes: Mapping[str, Sequence[Outcome]], judged: str) -> tuple[Example, ...]:
    problems = {problem.id: problem for problem in line.problems(Split.TEST)}
    kinds = {(False, True): "fixed", (True, False): "broken", (False, False): "still wrong"}
    wanted = {"fixed": 2, "broken": 1, "still wrong": 1}
    found = []
    for before, after in zip(outcomes[UNSTEERED], outcomes[judged], strict=True):
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
