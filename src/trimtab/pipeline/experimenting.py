"""The stage ``experiments``, and each experiment as a command of its own on a finished run."""

import time
from dataclasses import replace

from trimtab.evaluation.names import ALWAYS, GATED, UNSTEERED
from trimtab.experiments import EXPERIMENT_NAMES, EXPERIMENTS, ExperimentName, Workbench, answer_key
from trimtab.pipeline.config import parse_config
from trimtab.pipeline.line import SAMPLED, Line, prompts_name
from trimtab.progress import Progress, silent
from trimtab.report import RESULT, read_result, write_result
from trimtab.results import Result
from trimtab.store import AnyPath, Parts, RunDirectory, record_opening
from trimtab.traces import Split


def run_experiments(line: Line) -> None:
    """All experiments of the configuration, those done already skipped; the seconds of each are noted beside the stages'."""
    for name in line.config.experiments:
        if not _result(line.directory, name).exists():
            start = time.perf_counter()
            run_experiment(line, name)
            line.note_seconds(f"experiment {name}", time.perf_counter() - start)


def run_experiment(line: Line, name: ExperimentName) -> Result:
    """One experiment: its result as JSON, its tables as CSV, its figures as one page and as pictures."""
    experiment = EXPERIMENTS[name]
    if Split.TEST in experiment.reads:
        n = len(line.problems(Split.TEST))
        record_opening(line.directory.ledger, name, f"{n} problems", line.directory.digest)
    bench = workbench(line)
    bench = replace(bench, problems={split: bench.problems[split] for split in Split if split in experiment.reads})
    result = experiment.run(bench)
    write_result(result, line.directory.experiment(name))
    return result


def run_experiment_on(
    path: AnyPath,
    name: ExperimentName,
    *,
    force: bool = False,
    other_models: tuple[str, ...] = (),
    progress: Progress = silent,
) -> Result:
    """An experiment on a run directory whose steering is found; a result that is there is read again unless ``force``.

    Args:
        other_models: for ``transfer-model``, in place of those of the configuration; then it is run in any case.
    """
    with RunDirectory.open(path, write=True) as directory:
        if _result(directory, name).exists() and not force and not other_models:
            return read_result(_result(directory, name))
        config = parse_config(dict(directory.config), str(path / "run.toml"))
        if other_models:
            settings = config.experiment.model_copy(update={"other_models": other_models})
            config = config.model_copy(update={"experiment": settings})
        with Line(config, directory, progress) as line:
            return run_experiment(line, name)


def experiment_results(line: Line) -> list[Result]:
    """What every finished experiment of the run came to, in the order of their names in the documentation."""
    paths = [_result(line.directory, name) for name in EXPERIMENT_NAMES]
    return [read_result(path) for path in paths if path.exists()]


def _result(directory: RunDirectory, name: str) -> AnyPath:
    return directory.experiment(name) / RESULT


def workbench(line: Line) -> Workbench:
    """Everything an experiment works with, from the files of the run."""
    config = line.config
    return Workbench(
        model=line.model,
        problems={split: line.problems(split) for split in Split},
        steering=line.steering(),
        points=line.tune_points(),
        contrast=line.contrast(),
        recording=line.recording(SAMPLED),
        scope=config.ranking.scope,
        traces=line.traces(SAMPLED),
        grades=line.grades(SAMPLED),
        sampling=config.sampling.greedy(),
        prompt=config.prompt,
        tune=config.tune,
        settings=config.experiment,
        grader=line.grader,
        folder=line.directory.experiment("answers"),
        checker=line.checker,
        progress=line.progress,
        known=_known(line),
        prompts={split: line.recording(prompts_name(split)) for split in _gate_splits(line)},
        failed={split: line.failed(split) for split in _gate_splits(line)},
        gate_features=config.gate.features,
        generator=line.generator,
    )


def _gate_splits(line: Line) -> tuple[Split, ...]:
    """The splits whose prompts and greedy answers a gate was fitted on."""
    return (Split.TRAIN, Split.VALIDATION) if line.config.gate.fitted else ()


def _known(line: Line) -> dict:
    """The answers that ``evaluate`` left, where it ran one greedy response a problem as experiments do."""
    settings = line.config.evaluation
    if settings.temperature or settings.split is not Split.TEST or not line.directory.outcomes.exists():
        return {}
    said = Parts(line.directory.outcome_parts(UNSTEERED)).plan.settings
    if said.get("engine") != line.generator.facts.get("engine"):
        return {}  # another engine rounds in another way
    outcomes, steering = line.outcomes(), line.steering()
    keys = {UNSTEERED: answer_key(None, "on"), ALWAYS: answer_key(steering, "on"), GATED: answer_key(steering, "auto")}
    return {(Split.TEST, key): outcomes[condition] for condition, key in keys.items() if condition in outcomes}
