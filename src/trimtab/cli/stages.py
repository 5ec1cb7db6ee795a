"""One command per verb: each runs one stage of a run directory."""

from pathlib import Path

import click

from trimtab.cli.main import STAGE_HELP
from trimtab.cli.options import output_options
from trimtab.cli.output import Output
from trimtab.pipeline import STAGES, Stage, load_config, run_one
from trimtab.pipeline.summaries import stage_summary
from trimtab.store import RunDirectory


def _help(stage: Stage) -> str:
    return f"{STAGE_HELP[stage]}\n\nRUN is a run directory; with --config it is made if it is not there."


def _command(stage: Stage) -> click.Command:
    @click.command(stage, help=_help(stage))
    @click.argument("run", type=click.Path(path_type=Path, file_okay=False))
    @click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="run.toml of a new run.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
    @click.option("--quiet", is_flag=True, help="Show no progress and no notes.")
    def command(run: Path, config: Path | None, as_json: bool, quiet: bool) -> None:
        stage_command(run, stage, config, Output(as_json, quiet))

    return command


def stage_command(run: Path, stage: Stage, config: Path | None, output: Output, record: bool = False) -> None:
    """Run one stage, of a new run where a configuration is given, and print its figures; ``record`` as in :func:`run_one`."""
    if config is not None:
        RunDirectory.create(run, load_config(config).model_dump(mode="json"), resume=True).close()
    run_one(run, stage, output.progress, record)
    summary = stage_summary(run, stage)
    output.data(summary, "\n".join(f"{name:<24}  {value}" for name, value in summary.items()))


@click.command("sample", help=_help("sample"))
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="run.toml of a new run.")
@click.option("--record", is_flag=True, help="Record in the same forwards, so that `record` needs no second pass.")
@output_options
def sample_command(run: Path, config: Path | None, record: bool, as_json: bool, quiet: bool) -> None:
    """The verb ``sample``, the only one that can do the work of another."""
    stage_command(run, "sample", config, Output(as_json, quiet), record)


problems_command, grade_command, contrast_command, record_command = map(_command, (STAGES[0], *STAGES[2:5]))
rank_command, gate_command, tune_command = map(_command, STAGES[5:8])
experiments_command = _command("experiments")
report_command = _command("report")
