"""The whole pipeline, or one stage of it, on a study, as the command line calls it."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from trimtab.errors import ConfigError, StoreError
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.rows import UNSTEERED
from trimtab.evaluation.settings import best_point
from trimtab.steering import Steering
from trimtab.store import AnyPath, load_steering, save_neurons, save_steering, write_table
from trimtab.study import find, gather
from trimtab.study.report_data import testbed_sources
from trimtab.study.settings import Stage, check_until
from trimtab.study.study import Study
from trimtab.tasks.settings import TESTBED
from trimtab.traces import Score, Split

OnStage = Callable[[Stage, float, Mapping[str, object]], None]
"""Called with a finished stage, its seconds, and what it came to in a few figures."""


def run(
    study: Study,
    *,
    until: Stage = "report",
    on_stage: OnStage = lambda stage, seconds, summary: None,  # noqa: ARG005
) -> None:
    """Run from problems to the report. Results in the cache are read, so a run that was killed continues where it was.

    A study with a path leaves there, beside the cache: ``run.toml``, ``neurons/CRITERION/``, ``steering/``,
    ``outcomes.parquet`` and the report.

    Args:
        study: with a path.
        until: the last stage.
        on_stage: is told of every stage when it is done.

    Raises:
        ConfigError: a study without a path, or a stage that it has not.
    """
    check_until(study.settings, until)
    if study.path is None:
        raise ConfigError("a whole run leaves files; give the study a path: Study(..., path=FOLDER)")
    stages = study.settings.stages
    for stage in stages[: stages.index(until) + 1]:
        run_stage(study, stage, on_stage)


def run_stage(
    study: Study,
    stage: Stage,
    on_stage: OnStage = lambda stage, seconds, summary: None,  # noqa: ARG005
) -> dict[str, object]:
    """One stage, and whatever it needs that is not in the cache; returns a few figures of its result."""
    check_until(study.settings, stage)
    study.save()  # first, so that a run which is killed in its first stage can be gone on with from its folder
    start = time.perf_counter()
    summary = _STAGES[stage](study)
    study.save()
    on_stage(stage, time.perf_counter() - start, summary)
    return summary


def _problems(study: Study) -> dict[str, object]:
    return {f"{split} problems": len(study.problems().split(split)) for split in Split}


def _sample(study: Study) -> dict[str, object]:
    settings = study.settings
    if not settings.traces.path:
        wanted = [(Split.TRAIN, settings.sampling)]
        if settings.gate.fitted:
            wanted += [(split, settings.sampling.greedy()) for split in (Split.TRAIN, Split.VALIDATION)]
        gather.sample(study, wanted)
    found = study.traces()
    tokens = sum(len(trace.response_ids) for trace in found)
    return {"traces": len(found), "tokens": tokens, "truncated": found.truncated}


def _grade(study: Study) -> dict[str, object]:
    found = study.traces()
    if hint := gather.starved(found):
        study.note(hint)
    wrong_steps = sum(grade.score is Score.CORRECT and grade.quality is False for grade in found.grades)
    checked = any(grade.quality is not None for grade in found.grades)  # few tasks have a checker of steps
    counts: dict[str, object] = dict(Counter(str(grade.score) for grade in found.grades))
    return counts | ({"right answer, wrong steps": wrong_steps} if checked else {})


def _contrast(study: Study) -> dict[str, object]:
    counts, recurrence = dict(gather.contrast(study)[1]), gather.recurrence(study)
    if recurrence is not None and recurrence.difference is not None:
        low, high = (f"{100 * end:+.1f}" for end in (recurrence.difference.low, recurrence.difference.high))
        counts["right after a right beginning"] = f"{100 * recurrence.difference.value:+.1f} points [{low}, {high}]"
    return counts


def _record(study: Study) -> dict[str, object]:
    gate = study.settings.gate.fitted and not study.settings.traces.path
    found = find.recordings(study, criteria=study.settings.ranking.criteria, gate=gate)
    files = [file for recording in found.values() for file in recording.folder.glob("part-*.safetensors")]
    return {"parts": len(files), "megabytes": round(sum(file.stat().st_size for file in files) / 1e6, 1)}


def _rank(study: Study) -> dict[str, object]:
    summary: dict[str, object] = {}
    settings = study.settings.ranking
    for criterion, neurons in find.rankings(study, settings.criteria, settings.k).items():
        _leave(study.cache.root / "neurons" / criterion, partial(save_neurons, neurons, under=study.keys[f"rank-{criterion}"]))
        first = ", ".join(f"{layer}:{index}" for layer, index in zip(neurons.layer[:5], neurons.index[:5], strict=True))
        summary[criterion] = f"{len(neurons)} neurons ({neurons.share:.2%} of {neurons.model.n_neurons}), first {first}"
    return summary


def _gate(study: Study) -> dict[str, object]:
    gate = find.fit_gate(study)
    if not gate.reads:
        return {"gate": gate.label}
    assessment: dict[str, dict[str, float]] = gate.facts["validation_assessment"]  # type: ignore[assignment]
    shown = {
        name: f"{assessment[key]['value']:.3f} [{assessment[key]['low']:.3f}, {assessment[key]['high']:.3f}]"
        for name, key in (("AUROC on validation", "auroc"), ("text-only AUROC", "text_auroc"), ("difference", "difference"))
    }
    return {"gate": gate.label, **shown, "threshold": round(gate.cutoff, 4), "features": len(gate.layer)}


def _tune(study: Study) -> dict[str, object]:
    tuning = study.tuned()
    left = _left_steering(study)
    if left is None or left.digest != tuning.steering.digest:  # what `evaluate` left says more: it holds the metrics
        save_steering(tuning.steering, study.cache.root / "steering", force=True)
    summary: dict[str, object] = {}
    for criterion, intervention in product(study.settings.ranking.criteria, study.settings.tune.interventions):
        p = best_point(tuning.points, criterion, intervention)
        accuracy = f"{p.unsteered:.3f} -> {p.gated:.3f} gated, {p.always:.3f} always (n = {p.n})"
        summary[f"best {criterion}, {intervention}"] = f"K {p.k}, strength {p.strength:g}: {accuracy}"
    return summary


def _evaluate(study: Study) -> dict[str, object]:
    evaluation = study.evaluate()
    _leave(study.cache.root / "steering", partial(save_steering, evaluation.steering, force=True))
    rows = [row for rows in evaluation.outcomes.values() for row in rows]
    _leave(study.cache.root / "outcomes.parquet", lambda path: write_table(path, rows, Outcome, evaluation.key))
    return {
        name: f"{row.accuracy:.3f}, gain {row.gain:+.3f}, p {row.p:.2g}"
        for name, row in evaluation.rows.items()
        if name != UNSTEERED
    }


def _experiments(study: Study) -> dict[str, object]:
    return {name: " ".join(study.experiment(name).sentences[:1]) for name in study.settings.experiments}


def _report(study: Study) -> dict[str, object]:
    page = study.report()
    if study.settings.task.source == TESTBED:
        evaluation = study.evaluate()
        sources = testbed_sources(evaluation)
        _leave(study.cache.root / "sources.parquet", lambda path: write_table(path, sources, under=evaluation.key))
    return {"report": str(page), "artifact": str(study.cache.root / "steering")}


def _leave(path: AnyPath, write: Callable[[AnyPath], object]) -> None:
    """Write a file or a folder, unless the same bytes stand there: a run that goes on puts only what changed."""
    with TemporaryDirectory() as folder:
        fresh = Path(folder) / path.name
        write(fresh)
        if _bytes(fresh) == _bytes(path):
            return
    write(path)


def _bytes(path: AnyPath) -> dict[str, bytes]:
    """Each file with its bytes, by its place below the path."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file)[len(str(path)) :]: file.read_bytes() for file in files}


def _left_steering(study: Study) -> Steering | None:
    """The artifact that an earlier run left; None where there is none that can be read."""
    try:
        return load_steering(str(study.cache.root / "steering"))
    except StoreError:
        return None


_STAGES: Mapping[Stage, Callable[[Study], dict[str, object]]] = {
    "problems": _problems,
    "sample": _sample,
    "grade": _grade,
    "contrast": _contrast,
    "record": _record,
    "rank": _rank,
    "gate": _gate,
    "tune": _tune,
    "evaluate": _evaluate,
    "experiments": _experiments,
    "report": _report,
}
