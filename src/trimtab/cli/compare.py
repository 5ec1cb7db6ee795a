"""``trimtab compare``."""

from pathlib import Path

import click

from trimtab.cli.options import output_options
from trimtab.cli.output import Output


@click.command("compare")
@click.argument("run_a", type=click.Path(path_type=Path, file_okay=False))
@click.argument("run_b", type=click.Path(path_type=Path, file_okay=False))
@click.option("--arm", default="gated", show_default=True, help="The arm that is compared, by its name in both runs.")
@output_options
def compare(run_a: Path, run_b: Path, arm: str, as_json: bool, quiet: bool) -> None:
    """Compare one arm of two runs, problem by problem: RUN_A is the base.

    Refused, with a list of what differs, when problems, prompt, sampling or another setting of the measurement are not the same.
    """
    from trimtab.evaluation.compare_runs import compare_runs
    from trimtab.report import run_tables

    result = compare_runs(run_a, run_b, arm)
    output = Output(as_json, quiet)
    if as_json:
        output.data(result.to_json(), "")
    else:
        output.tables(run_tables(result), result.verdict.sentence)
