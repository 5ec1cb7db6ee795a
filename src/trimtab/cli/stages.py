"""One command per verb: each runs one stage of a run directory."""

from pathlib import Path

import click

from trimtab.cli.main import STAGE_HELP
from trimtab.cli.output import Output
from trimtab.pipeline import STAGES, Stage, load_config, run_one
from trimtab.pipeline.summaries import stage_summary
from trimtab.store import RunDirectory


def _command(stage: Stage) -> click.Command:
    @click.command(stage, help=f"{STAGE_HELP[stage]}\n\nRUN is a run directory; with --config it is made if it is not there.")
    @click.argument("run", type=click.Path(path_type=Path, file_okay=False))
    @click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="run.toml of a new run.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
    @click.option("--quiet", is_flag=True, help="Show no progress and no notes.")
    def command(run: Path, config: Path | None, as_json: bool, quiet: bool) -> None:
        stage_command(run, stage, config, Output(as_json, quiet))

    return command


def stage_command(run: Path, stage: Stage, config: Path | None, output: Output) -> None:
    """Run one stage, of a new run where a configuration is given, and print its figures."""
    if config is not None:
        RunDirectory.create(run, load_config(config).model_dump(mode="json"), resume=True).close()
    run_one(run, stage, output.progress)
    summary = stage_summary(run, stage)
    output.data(summary, "\n".join(f"{name:<24}  {value}" for name, value in summary.items()))


problems_command, sample_command, grade_command, contrast_command, record_command = map(_command, STAGES[:5])
rank_command, gate_command, tune_command = map(_command, STAGES[5:8])
report_command = _command("report")
