"""``trimtab demo``."""

import time
from pathlib import Path

import click

from trimtab.cli.options import RunPath, output_options
from trimtab.cli.output import Output
from trimtab.cli.run import show_estimate, show_result
from trimtab.pipeline import DEMO, run
from trimtab.pipeline.config import ModelSettings
from trimtab.store import AnyPath


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
@click.option("--resume", is_flag=True, help="Go on with the run that is in the folder.")
@click.option("--force", is_flag=True, help="Delete the run that is in the folder and start again.")
@click.option("--dry-run", is_flag=True, help="Print tokens, disk, memory and time, and write nothing.")
@output_options
def demo(out: AnyPath, model: str, resume: bool, force: bool, dry_run: bool, as_json: bool, quiet: bool) -> None:
    """Run the whole pipeline on the bundled reasoner: about two minutes on two cores, no download.

    With --json one object with the verdict's figures is printed on stdout.
    """
    output = Output(as_json, quiet)
    config = DEMO.model_copy(update={"model": ModelSettings(source=model)})
    if dry_run:
        show_estimate(config, out, "report", output)
        return
    start = time.perf_counter()
    run(config, out, resume=resume, force=force, progress=output.progress, on_stage=output.stage)
    if as_json:
        from trimtab.pipeline.demo_json import demo_json
        from trimtab.report import read_report

        output.data(demo_json(read_report(out / "report.json"), time.perf_counter() - start), "")
        return
    show_result(out, "report", output)
