"""The stages of a run: each reads what the one before left on disk and writes its own file, so each can be run alone."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trimtab.evaluation.tune import best_point, tune
from trimtab.gate import AnyGate
from trimtab.gating import assess, fit_logistic, fit_text, youden
from trimtab.gating.attention import fit_attention
from trimtab.gating.reading import read_prompts
from trimtab.model.weights import down_weights
from trimtab.pipeline.config import Stage
from trimtab.pipeline.evaluating import evaluate
from trimtab.pipeline.experimenting import run_experiments
from trimtab.pipeline.line import SAMPLED, Line, greedy_name, prompts_name
from trimtab.pipeline.reporting import write_run_report
from trimtab.ranking import NEEDS, column_norms, rank, recorded_class_moments
from trimtab.recording import INDEX, StreamedParts, choose_traces, prompts_job, record_job
from trimtab.report import RESULT
from trimtab.sampling import import_traces, read_labels, sample_job
from trimtab.store import (
    Parts,
    make_plan,
    read_json,
    save_gate,
    save_neurons,
    save_steering,
    write_json,
    write_table,
)
from trimtab.store.artifact import CONFIG
from trimtab.tasks import grade_traces
from trimtab.tasks.contrast import choose_contrast
from trimtab.tasks.files import read_rows
from trimtab.tasks.loading import load_task, problems_of
from trimtab.tasks.settings import TESTBED
from trimtab.tasks.splits import split_facts
from trimtab.traces import Split


def make_problems(line: Line) -> None:
    """Write problems.parquet, and beside it where they came from and what their splits share."""
    path = line.trace_file
    if path:
        problems = problems_of(read_rows(path), str(path), Split.TRAIN)
    else:
        problems, provenance = load_task(line.config.task)
        facts: dict[str, object] = {"provenance": provenance.to_json()}
        if line.config.task.source != TESTBED:  # whose questions are all alike and known to be unique
            facts["splits"] = split_facts(problems).to_json()
        write_json(line.directory.problems.with_suffix(".json"), facts)
    write_table(line.directory.problems, problems)


def sample(line: Line) -> None:
    """Sample the train split, and the greedy traces that label the gate; or import the traces of a file."""
    config, directory = line.config, line.directory
    if line.trace_file:
        _, traces = import_traces(line.trace_file, line.model, prompt=config.prompt, max_tokens=config.traces.max_tokens or None)
        parts = Parts(directory.traces(SAMPLED))
        ids = [trace.id for trace in traces]
        parts.ensure_plan(make_plan(ids, [1] * len(ids), len(ids), {"traces": config.traces.model_dump()}))
        by_id = {trace.id: trace for trace in traces}
        parts.write_table(0, [by_id[trace_id] for trace_id in parts.plan.parts[0]])
        return
    wanted = [(SAMPLED, Split.TRAIN, config.sampling)]
    if config.gate.fitted:
        wanted += [(greedy_name(split), split, config.sampling.greedy()) for split in (Split.TRAIN, Split.VALIDATION)]
    jobs = []
    for name, split, settings in wanted:
        moments = None
        if name == SAMPLED and line.records_while_sampling:
            moments = StreamedParts(line.model, config.recording.settings, directory.activations(SAMPLED))
        problems, folder = line.problems(split), directory.traces(name)
        job = sample_job(line.model, problems, settings, folder, prompt=config.prompt, moments=moments, generator=line.generator)
        jobs.append(job)
    line.executor.run(line.model, jobs, line.progress)


def grade(line: Line) -> None:
    """Grade every folder of traces."""
    problems = {problem.id: problem for problem in line.problems()}
    columns = line.config.traces
    path = line.trace_file
    labels = read_labels(path, columns.verdict_column) if path and columns.verdict_column else None
    quality = read_labels(path, columns.quality_column) if path and columns.quality_column else None
    for name in line.trace_folders:
        grades = grade_traces(line.traces(name), problems, line.grader, labels, line.checker, quality)
        write_table(line.directory.grades(name), grades)


def contrast(line: Line) -> None:
    """Choose the traces to compare, and count what was left out."""
    rows, counts = choose_contrast(line.traces(SAMPLED), line.grades(SAMPLED), line.config.contrast)
    write_json(line.directory.contrast.with_suffix(".json"), counts.to_json())
    write_table(line.directory.contrast, rows)


def record(line: Line) -> None:
    """Record the moments of the contrast's traces and the prompt tokens that the gate reads."""
    wanted = {row.trace_id for row in line.contrast()}
    traces = [trace for trace in line.traces(SAMPLED) if trace.id in wanted]
    settings = line.config.recording.settings
    folder, jobs = line.directory.activations(SAMPLED), []
    if line.records_while_sampling:
        choose_traces(folder, traces)
    else:
        jobs.append(record_job(line.model, traces, settings, folder))
    if line.config.gate.fitted and not line.trace_file:
        scopes, tokens = line.config.gate.recorded, settings.batch_tokens
        for split in (Split.TRAIN, Split.VALIDATION):
            folder = line.directory.activations(prompts_name(split))
            jobs.append(prompts_job(line.model, line.prompts(split), folder, scopes=scopes, batch_tokens=tokens))
    line.executor.run(line.model, jobs, line.progress)
    for job in jobs:
        job.finish()


def rank_neurons(line: Line) -> None:
    """Rank all neurons by every criterion asked for, from the recording alone."""
    settings, rows = line.config.ranking, line.contrast()
    statistics = frozenset().union(*(NEEDS[criterion] for criterion in settings.criteria))
    executor = line.executor
    moments = recorded_class_moments(
        line.recording(SAMPLED), settings.scope, rows, statistics, at_once=executor.width, run_blocks=executor.map
    )
    if "wanda" in settings.criteria:
        moments = replace(moments, column_norm=column_norms(down_weights(line.model, range(line.model.n_layers))))
    facts = {"contrast": read_json(line.directory.contrast.with_suffix(".json")), "scope": settings.scope}
    for criterion in settings.criteria:
        neurons = rank(moments, criterion, settings.k, line.model.identity, facts)
        save_neurons(neurons, line.directory.ranking(criterion))


def fit_gate(line: Line) -> None:
    """Fit p(fail) on the train split, its threshold on the validation split, and the text-only baseline beside it."""
    if not line.config.gate.fitted:
        return
    failed = {split: line.failed(split) for split in (Split.TRAIN, Split.VALIDATION)}
    fitted = _fitted(line, failed[Split.TRAIN])
    p_tune = np.array(list(line.p_fail(fitted, Split.VALIDATION).values()))
    text = fit_text([problem.question for problem in line.problems(Split.TRAIN)], failed[Split.TRAIN])
    p_text = text.probability([problem.question for problem in line.problems(Split.VALIDATION)])
    facts = {
        "train": _counts(failed[Split.TRAIN]),
        "validation": _counts(failed[Split.VALIDATION]),
        "validation_assessment": assess(failed[Split.VALIDATION], p_tune, p_text).to_json(),
    }
    threshold = youden(failed[Split.VALIDATION], p_tune)
    gate = replace(fitted, mode=line.config.gate.mode, threshold=threshold, facts={**fitted.facts, **facts})
    save_gate(gate, line.directory.path)


def _fitted(line: Line, failed: NDArray[np.bool_]) -> AnyGate:
    settings, executor = line.config.gate, line.executor
    features = line.prompt_features(Split.TRAIN, settings.scope)
    if settings.kind == "logistic":
        return fit_logistic(
            features,
            failed,
            n_features=settings.features,
            pooling=settings.pooling,
            penalty=settings.penalty,
            at_once=executor.width,
            run_blocks=executor.map,
        )

    def read(layer: NDArray[np.int64], index: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        tokens = line.config.recording.batch_tokens
        return read_prompts(line.model, line.prompts(Split.TRAIN), layer, index, "prompt", batch_tokens=tokens)

    return fit_attention(features, failed, read, n_features=settings.features, at_once=executor.width, run_blocks=executor.map)


def tune_steering(line: Line) -> None:
    """Run the grid on the validation split and write the steering artifact of its best point."""
    config = line.config
    gate = line.gate()
    points = tune(
        line.model,
        {criterion: line.neurons(criterion) for criterion in config.ranking.criteria},
        gate,
        line.p_fail(gate, Split.VALIDATION) if gate.reads else {},
        line.problems(Split.VALIDATION),
        config.tune,
        config.sampling,
        line.grader,
        line.directory.tune_parts,
        prompt=config.prompt,
        generator=line.generator,
        executor=line.executor,
        progress=line.progress,
    )
    write_table(line.directory.tune, points)
    save_steering(line.steering_at(best_point(points)), line.directory.steering, force=True)


STAGE_FUNCTIONS: Mapping[Stage, Callable[[Line], None]] = {
    "problems": make_problems,
    "sample": sample,
    "grade": grade,
    "contrast": contrast,
    "record": record,
    "rank": rank_neurons,
    "gate": fit_gate,
    "tune": tune_steering,
    "evaluate": evaluate,
    "experiments": run_experiments,
    "report": write_run_report,
}


def is_done(line: Line, stage: Stage) -> bool:
    """Whether a stage's last file is there; a stage of parts is asked whether it is complete, so it goes on where it was."""
    directory = line.directory
    if stage == "sample":
        moments = [directory.activations(SAMPLED)] if line.records_while_sampling else []
        return all(Parts(directory.traces(name)).complete for name in line.trace_folders) and all(
            Parts(folder, ".safetensors").complete for folder in moments
        )
    if stage == "record":
        folders = [directory.activations(name) for name in line.recordings]
        return all(Parts(folder, ".safetensors").complete and (folder / INDEX).exists() for folder in folders)
    files = {
        "problems": [directory.problems],
        "grade": [directory.grades(name) for name in line.trace_folders],
        "contrast": [directory.contrast],
        "rank": [directory.ranking(criterion) / "neurons.json" for criterion in line.config.ranking.criteria],
        "gate": [directory.gate] if line.config.gate.fitted else [],
        "tune": [directory.tune, directory.steering / CONFIG],
        "evaluate": [directory.outcomes],
        "experiments": [directory.experiment(name) / RESULT for name in line.config.experiments],
        "report": [directory.report],
    }
    return all(path.exists() for path in files[stage])


def _counts(failed: NDArray[np.bool_]) -> dict[str, int]:
    return {"problems": len(failed), "failed": int(failed.sum())}
