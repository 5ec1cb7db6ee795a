"""Two runs side by side in a terminal."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from trimtab.report.data_verdict import BreakdownReport
from trimtab.report.notes import TESTS
from trimtab.report.terminal import DETECTABLE, FLIPS, UNSCORED, breakdown_table, table_of, tied
from trimtab.report.wording import (
    DASH,
    count,
    detectable,
    fixed_broken,
    p_value,
    percent,
    percent_interval,
    points,
    points_interval,
)

if TYPE_CHECKING:
    from trimtab.evaluation.compare_runs import RunComparison

A, B = "A", "B"


def run_tables(result: "RunComparison") -> list[Table]:
    """A row per run, then the verdict by domain and by difficulty."""
    breakdowns = [BreakdownReport.model_validate(asdict(table)) for table in result.breakdowns]
    return [_runs(result), *(breakdown_table(breakdown, A, B) for breakdown in breakdowns)]


def _runs(result: "RunComparison") -> Table:
    c = result.verdict.comparison
    title = f"{result.condition}, n = {count(c.n)} problems"
    columns = ("model", "chains", "accuracy", "gain (points)", DETECTABLE, "p", FLIPS, UNSCORED)
    table = table_of(title, f"95 % intervals. p: {TESTS[c.test]}, two-sided.", "run", columns)
    rows = ((c.base_k, c.base_accuracy, c.base_low, c.base_high), (c.k, c.accuracy, c.low, c.high))
    gain = f"{points(c.gain)} {tied(points_interval(c.gain_low, c.gain_high))}"
    compared = [
        gain,
        detectable(result.minimum_detectable_gain),
        p_value(c.p),
        fixed_broken(c),
    ]
    for i, (chains, accuracy, low, high) in enumerate(rows):
        name = f"{(A, B)[i]}: {result.runs[i]}"
        cells = [
            count(chains),
            f"{percent(accuracy)} {tied(percent_interval(low, high))}",
            *(compared if i else [DASH] * len(compared)),
        ]
        table.add_row(Text(name), Text(result.models[i]), *map(Text, cells), Text(count(result.unscored[i])))
    return table
