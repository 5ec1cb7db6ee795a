"""``trimtab demo``."""

import time
from pathlib import Path

import click
import torch

from trimtab.cli.options import RunPath, executor_option, output_options
from trimtab.cli.output import Output
from trimtab.cli.run import run_pipeline, show_cost, study_of
from trimtab.report import read_report
from trimtab.store import AnyPath
from trimtab.study import DEMO, run
from trimtab.study.demo_json import demo_json
from trimtab.study.settings import ModelSettings, with_executor


@click.command("demo")
@click.option(
    "--out",
    type=RunPath(),
    default=Path("runs/demo"),
    show_default=True,
    help="The run directory: a folder or a URL.",
)
@click.option(
    "--model", default="testbed:reasoner", show_default=True, help="The bundled model; testbed:control is the negative control."
)
@click.option("--dry-run", is_flag=True, help="Print tokens, disk, memory and time, and write nothing.")
@executor_option
@output_options
def demo(out: AnyPath, model: str, dry_run: bool, executor: str | None, as_json: bool, quiet: bool) -> None:
    """Run the whole pipeline on the bundled reasoner: about two minutes on two cores, no download.

    Its cores are used by one process each, unless --executor says otherwise.

    A second call reads what the first one left. --json prints one object with the verdict's figures on stdout.
    """
    output = Output(as_json, quiet)
    here = "local" if torch.cuda.is_available() or torch.get_num_threads() == 1 else "processes"
    settings = with_executor(DEMO.model_copy(update={"model": ModelSettings(source=model)}), executor or here)
    if dry_run:
        show_cost(settings, "report", output)
        return
    start = time.perf_counter()
    with study_of(settings, out, output) as study:
        if not as_json:
            run_pipeline(study, "report", output)
            return
        run(study, on_stage=output.stage)
    output.data(demo_json(read_report(out / "report.json"), time.perf_counter() - start), "")
