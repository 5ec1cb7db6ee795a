"""``trimtab compare``."""

from typing import TYPE_CHECKING

import click

from trimtab.cli.options import output_options
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from trimtab.comparison import Comparison


@click.command("compare")
@click.argument("base", metavar="A")
@click.argument("others", metavar="B...", nargs=-1, required=True)
@click.option("--metric", help="The metric, where there are several: a name, a scorer of Inspect, base or plus of evalplus.")
@click.option("--filter", "filter_name", help="The filter of lm-evaluation-harness, where there are several.")
@click.option("--condition", default="gated", show_default=True, help="The condition to compare in runs of trimtab.")
@click.option(
    "--allow",
    multiple=True,
    metavar="KIND",
    help="List a difference instead of refusing it: documents, tasks, version, few-shots, filter, metric, or a setting's name.",
)
@click.option("--alpha", default=0.05, show_default=True, help="Two-sided level of the verdict.")
@click.option("--flips", is_flag=True, help="Print every document that flipped, with both responses.")
@output_options
def compare(
    base: str,
    others: tuple[str, ...],
    metric: str | None,
    filter_name: str | None,
    condition: str,
    allow: tuple[str, ...],
    alpha: float,
    flips: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Judge result files by a paired test: is B better than A on the same documents?

    Reads lm-evaluation-harness (samples_*.jsonl or its folder), Inspect (.eval, .json), evalplus (eval_results.json), JSON lines,
    CSV or Parquet with the columns id and correct, and runs of trimtab. Several B are all compared with A. Inputs that
    were measured differently are refused, with a list of the differences.
    """
    from trimtab.comparison import compare

    result = compare(base, *others, metric=metric, filter_name=filter_name, condition=condition, allow=allow, alpha=alpha)
    Output(as_json, quiet).data(result.to_json(flips=flips), _text(result, flips) if not as_json else "")


def _text(result: "Comparison", flips: bool) -> str:
    from trimtab.comparison.text import render_flips

    return f"{result}\n\n{render_flips(result)}" if flips else str(result)
