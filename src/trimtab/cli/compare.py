"""``trimtab compare``."""

from typing import TYPE_CHECKING

import click

from trimtab.cli.options import RunPath, output_options
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from trimtab.store import AnyPath


@click.command("compare")
@click.argument("run_a", type=RunPath())
@click.argument("run_b", type=RunPath())
@click.option("--condition", default="gated", show_default=True, help="The condition that is compared, by its name in both runs.")
@output_options
def compare(run_a: "AnyPath", run_b: "AnyPath", condition: str, as_json: bool, quiet: bool) -> None:
    """Compare one condition of two runs, problem by problem: RUN_A is the base.

    Refused, with a list of what differs, when problems, prompt, sampling or another setting of the measurement are not the same.
    """
    from trimtab.evaluation.compare_runs import compare_runs
    from trimtab.report import run_tables

    result = compare_runs(run_a, run_b, condition)
    output = Output(as_json, quiet)
    if as_json:
        output.data(result.to_json(), "")
    else:
        output.tables(run_tables(result), result.verdict.sentence)
