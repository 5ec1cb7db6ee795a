"""One command per verb: each runs one stage of a run directory."""

import click

from trimtab.cli.main import STAGE_HELP
from trimtab.cli.options import RunPath, engine_option, executor_option, output_options, sandbox_option
from trimtab.cli.output import Output
from trimtab.pipeline import RunConfig, Stage, load_config, run_one, with_executor
from trimtab.pipeline.summaries import stage_summary
from trimtab.store import AnyPath, RunDirectory


def _help(stage: Stage) -> str:
    return f"{STAGE_HELP[stage]}\n\nRUN is a run directory; with --config it is made if it is not there."


def _command(stage: Stage) -> click.Command:
    """A stage that runs here."""

    @click.command(stage, help=_help(stage))
    @click.argument("run", type=RunPath())
    @click.option("--config", type=RunPath(file_okay=True), help="run.toml of a new run.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
    @click.option("--quiet", is_flag=True, help="Show no progress and no notes.")
    def command(run: AnyPath, config: AnyPath | None, as_json: bool, quiet: bool) -> None:
        stage_command(run, stage, config, Output(as_json, quiet))

    return sandbox_option(command) if stage in ("grade", "experiments", "report") else command


def _distributed_command(stage: Stage) -> click.Command:
    """A stage that an executor can compute elsewhere."""

    @click.command(stage, help=_help(stage))
    @click.argument("run", type=RunPath())
    @click.option("--config", type=RunPath(file_okay=True), help="run.toml of a new run.")
    @executor_option
    @output_options
    def command(run: AnyPath, config: AnyPath | None, executor: str | None, as_json: bool, quiet: bool) -> None:
        stage_command(run, stage, config, Output(as_json, quiet), executor=executor)

    return command


def stage_command(
    run: AnyPath,
    stage: Stage,
    config: AnyPath | None,
    output: Output,
    record: bool = False,
    executor: str | None = None,
    engine: str | None = None,
) -> None:
    """Run one stage, of a new run where a configuration is given, and print its figures; ``record`` as in :func:`run_one`."""
    settings = with_executor(RunConfig() if config is None else load_config(config), executor)
    if config is not None:
        RunDirectory.create(run, settings.stored(), resume=True).close()
    run_one(run, stage, output.progress, record, settings.executor, engine, output.note)
    summary = stage_summary(run, stage)
    output.data(summary, "\n".join(f"{name:<24}  {value}" for name, value in summary.items()))


@click.command("sample", help=_help("sample"))
@click.argument("run", type=RunPath())
@click.option("--config", type=RunPath(file_okay=True), help="run.toml of a new run.")
@click.option("--record", is_flag=True, help="Record in the same forwards, so that `record` needs no second pass.")
@executor_option
@engine_option
@output_options
def sample_command(
    run: AnyPath, config: AnyPath | None, record: bool, executor: str | None, engine: str | None, as_json: bool, quiet: bool
) -> None:
    """The verb ``sample``, the only one that can do the work of another."""
    stage_command(run, "sample", config, Output(as_json, quiet), record, executor, engine)


@click.command("tune", help=_help("tune"))
@click.argument("run", type=RunPath())
@click.option("--config", type=RunPath(file_okay=True), help="run.toml of a new run.")
@executor_option
@engine_option
@sandbox_option
@output_options
def tune_command(
    run: AnyPath, config: AnyPath | None, executor: str | None, engine: str | None, as_json: bool, quiet: bool
) -> None:
    """The verb ``tune``, whose responses another engine can generate."""
    stage_command(run, "tune", config, Output(as_json, quiet), executor=executor, engine=engine)


problems_command, grade_command, contrast_command = map(_command, ("problems", "grade", "contrast"))
gate_command, experiments_command, report_command = map(_command, ("gate", "experiments", "report"))
record_command, rank_command = map(_distributed_command, ("record", "rank"))
