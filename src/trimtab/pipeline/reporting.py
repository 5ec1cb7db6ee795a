"""From a finished run to its report: gathers what lies on disk, computes nothing that the stages decided."""

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import asdict

from trimtab import __version__
from trimtab.evaluation.breakdown import break_down
from trimtab.evaluation.names import ALWAYS, GATED, UNSTEERED
from trimtab.evaluation.outcomes import Outcome, first_chains
from trimtab.evaluation.pairing import matched
from trimtab.evaluation.summary import flips, random_gains, summarise
from trimtab.evaluation.verdict import ConditionVerdict, judge
from trimtab.gate import AnyGate
from trimtab.pipeline.experimenting import experiment_results
from trimtab.pipeline.line import SAMPLED, Line
from trimtab.pipeline.reporting_gate import gate_report
from trimtab.pipeline.reporting_method import artifact_neurons, criteria_report, found_neurons, tune_report
from trimtab.report import (
    BreakdownReport,
    Example,
    FlipsReport,
    Report,
    RunReport,
    UnscoredBounds,
    VerdictReport,
    write_report,
)
from trimtab.stats.verdict import finite
from trimtab.store import openings, read_json, write_table
from trimtab.tasks.sandbox import describe_best
from trimtab.tasks.settings import TESTBED
from trimtab.testbed.sources import FailureSource, failure_sources
from trimtab.traces import AnswerKind, Split

POSITIVE_CONTROL = (
    "This is a positive control: the bundled model's failures were taught by its training text. It shows that trimtab finds and "
    "turns what there is to find, and reports no evidence where there is nothing. It is not evidence that steering helps another "
    "model."
)
PACKAGES = ("torch", "transformers", "scikit-learn", "scipy", "numpy")


def judged_condition(gate: AnyGate) -> str:
    """The condition that the verdict is about: gated where there is a gate."""
    return ALWAYS if gate.kind == "always" else GATED


def build_report(line: Line) -> Report:
    """Everything the report shows, from the files of the run."""
    outcomes, alpha = line.outcomes(), line.config.evaluation.alpha
    rows = summarise(outcomes, alpha)
    gate = line.gate()
    base, condition = outcomes[UNSTEERED], outcomes[judged_condition(gate)]
    found = not line.config.artifact.source
    return Report(
        verdict=_verdict(line, judge(base, condition, alpha), judged_condition(gate)),
        claims=_caveats(line, base, condition, alpha),
        conditions=tuple(rows.values()),
        breakdowns=tuple(BreakdownReport.model_validate(asdict(table)) for table in break_down(base, condition, alpha)),
        random_gains={kind: tuple(gains) for kind, gains in random_gains(outcomes).items()},
        gate=gate_report(line, gate, outcomes),
        neurons=found_neurons(line) if found else artifact_neurons(line),
        tune=tune_report(line) if found else None,
        criteria=criteria_report(line, rows) if found else (),
        flips=_flips(line, base, condition),
        run=_run(line, found),
        experiments=tuple(experiment_results(line)),
        examples=_examples(line, base, condition),
    )


def write_run_report(line: Line) -> None:
    """Write report.json and report.html, and on the testbed the sources of the failures."""
    if line.config.task.source == "testbed":
        write_table(line.directory.sources, _sources(line, line.outcomes()[UNSTEERED]))
    write_report(build_report(line), line.directory.path)


def _caveats(line: Line, base: Sequence[Outcome], condition: Sequence[Outcome], alpha: float) -> tuple[str, ...]:
    """What has to stand beside the verdict: that the testbed is a control, how programs were run, and what leaks."""
    if line.config.task.source == TESTBED:
        return (POSITIVE_CONTROL,)
    programs = any(problem.kind is AnswerKind.CODE for problem in line.problems(line.config.evaluation.split))
    confined = (f"Programs of the answers run behind these layers on this machine: {describe_best()}.",) if programs else ()
    return confined + _leaks(line, base, condition, alpha)


def _leaks(line: Line, base: Sequence[Outcome], condition: Sequence[Outcome], alpha: float) -> tuple[str, ...]:
    """The verdict without the problems that also stand in an earlier split."""
    shared: dict = read_json(line.directory.problems.with_suffix(".json"))["splits"]["near_duplicates"]  # type: ignore[index,assignment,call-overload]
    leaking = {pair["id"] for pair in shared["pairs"] if pair["split"] == line.config.evaluation.split}
    if not leaking:
        return ()
    kept_base, kept_condition = ([o for o in side if o.problem_id not in leaking] for side in (base, condition))
    note = f"{len(leaking)} of these problems stand, exactly or nearly, in an earlier split. Without them"
    return (f"{note}: {judge(kept_base, kept_condition, alpha).sentence}" if kept_base else f"{note} none is left.",)


def _verdict(line: Line, judgement: ConditionVerdict, condition: str) -> VerdictReport:
    return VerdictReport(
        condition=condition,
        split=line.config.evaluation.split,
        word=judgement.word,
        sentence=judgement.sentence,
        n=judgement.comparison.n,
        minimum_detectable_gain=finite(judgement.smallest_gain),
        bounds=None if judgement.ranges is None else UnscoredBounds.model_validate(judgement.ranges),
    )


def _sources(line: Line, unsteered: Sequence[Outcome]) -> list[FailureSource]:
    questions = {problem.id: problem.question for problem in line.problems(line.config.evaluation.split)}
    return failure_sources([(o.problem_id, questions[o.problem_id], o.response, o.correct) for o in first_chains(unsteered)])


def _flips(line: Line, base: Sequence[Outcome], condition: Sequence[Outcome]) -> FlipsReport:
    by_source = None
    if line.config.task.source == "testbed":
        by_source = flips(base, condition, {row.problem_id: row.source for row in _sources(line, base)})
    return FlipsReport.model_validate(
        {
            "by_domain": flips(base, condition, {o.problem_id: o.domain or "all" for o in base}),
            "by_difficulty": flips(base, condition, {o.problem_id: f"{o.difficulty:02d}" for o in base}),
            "by_source": by_source,
        }
    )


def _run(line: Line, found: bool) -> RunReport:
    counts = {split.value: len(line.problems(split)) for split in Split}
    samples = {f"{split} problems": n for split, n in counts.items()}
    if found:
        samples |= {"sampled traces": len(line.grades(SAMPLED)), "contrast traces": len(line.contrast())}
    return RunReport(
        model=line.model.identity,
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


def _examples(line: Line, base: Sequence[Outcome], condition: Sequence[Outcome]) -> tuple[Example, ...]:
    problems = {problem.id: problem for problem in line.problems(line.config.evaluation.split)}
    kinds = {(False, True): "fixed", (True, False): "broken", (False, False): "still wrong"}
    wanted = {"fixed": 2, "broken": 1, "still wrong": 1}
    found = []
    for before, after in matched(first_chains(base), first_chains(condition)):
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
