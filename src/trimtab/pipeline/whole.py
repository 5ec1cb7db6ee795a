"""The whole pipeline: every stage in order, what is done already skipped."""

import time
from collections.abc import Callable

from trimtab.errors import ConfigError
from trimtab.execution import ExecutorSettings
from trimtab.pipeline.config import STAGES, RunConfig, Stage, parse_config, with_engine
from trimtab.pipeline.line import Line, Note
from trimtab.pipeline.stages import STAGE_FUNCTIONS, is_done
from trimtab.progress import Progress, silent
from trimtab.store import AnyPath, RunDirectory

OnStage = Callable[[Stage, float | None], None]
"""Called with a stage and its seconds, or None when it was done already."""


def run(
    config: RunConfig,
    path: AnyPath,
    *,
    resume: bool = False,
    force: bool = False,
    until: Stage = "report",
    progress: Progress = silent,
    on_stage: OnStage = lambda stage, seconds: None,  # noqa: ARG005
    note: Note = lambda text: None,  # noqa: ARG005
) -> AnyPath:
    """From problems to the report in one run directory; returns the directory.

    Every stage leaves its file, so a run killed at any moment and called again with ``resume`` goes on where it was and ends
    with the same bytes.

    Args:
        config: see :class:`trimtab.pipeline.config.RunConfig`.
        path: the run directory.
        resume: go on with the run that is there; another configuration is refused and the differences are listed.
        force: delete the run that is there.
        until: the last stage.
        progress, on_stage, note: for the person who waits.

    Raises:
        TrimtabError: whatever a stage raises; what earlier stages wrote stays.
    """
    check_until(config, until)
    resolved = config.stored()
    with (
        RunDirectory.create(path, resolved, resume=resume, force=force) as directory,
        Line(config, directory, progress, note) as line,
    ):
        for stage in config.stages[: config.stages.index(until) + 1]:
            run_stage(line, stage, on_stage)
    return path


def run_one(
    path: AnyPath,
    stage: Stage,
    progress: Progress = silent,
    record: bool = False,
    executor: ExecutorSettings | None = None,
    engine: str | None = None,
    note: Note = lambda text: None,  # noqa: ARG005
) -> None:
    """One stage of an existing run; its earlier stages must be done.

    ``record`` makes ``sample`` record in the same forwards, as ``recording.while_sampling`` does. The recording says of itself
    how it was made, so later calls need not be told. ``executor`` and ``engine`` replace those of the configuration for this
    stage.
    """
    with RunDirectory.open(path, write=True) as directory:
        config = parse_config(dict(directory.config), str(path / "run.toml"))
        check_until(config, stage)
        if record:
            recording = config.recording.model_copy(update={"while_sampling": True})
            config = parse_config({**config.stored(), "recording": recording.model_dump()}, "--record")
        config = with_engine(config, engine)
        if executor is not None:
            config = config.model_copy(update={"executor": executor})
        with Line(config, directory, progress, note) as line:
            run_stage(line, stage)


def run_stage(line: Line, stage: Stage, on_stage: OnStage = lambda stage, seconds: None) -> None:  # noqa: ARG005
    """A stage, unless its file is there already."""
    if is_done(line, stage):
        on_stage(stage, None)
        return
    start = time.perf_counter()
    STAGE_FUNCTIONS[stage](line)
    seconds = time.perf_counter() - start
    line.note_seconds(stage, seconds)
    on_stage(stage, seconds)


def check_until(config: RunConfig, until: Stage) -> Stage:
    """Imported traces carry no verdict of the model itself, so a run on them ends with the ranking; a run on an artifact
    begins with the evaluation. Without experiments in the configuration there is no such stage.

    Raises:
        ConfigError: a stage was asked for that the run has not.
    """
    if config.traces.path and STAGES.index(until) > STAGES.index("rank"):
        raise ConfigError(
            "a run on imported traces ends with `rank`: gate, tune and evaluate need problems that this model answers itself; "
            "use --until rank, then evaluate the neurons on a task"
        )
    if until == "experiments" and not config.experiments:
        raise ConfigError(
            'the configuration names no experiments; set `experiments = "all"` or a list of names before the run begins, or call '
            "one of them on the finished run, such as `trimtab ablate RUN`"
        )
    if until not in config.stages:
        raise ConfigError(f"a run on an artifact has the stages {', '.join(config.stages)}; there is no {until!r} in it")
    return until
