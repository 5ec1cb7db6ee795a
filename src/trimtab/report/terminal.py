"""The verdict in a terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from trimtab.evaluation.rows import Average, Breakdown, ConditionSummary, GroupRow
from trimtab.report.data import Report
from trimtab.report.wording import (
    DASH,
    condition_label,
    count,
    detectable,
    fixed_broken,
    is_random,
    notes,
    p_value,
    percent,
    percent_interval,
    points,
    points_interval,
)
from trimtab.stats.values import PairedComparison

DETECTABLE, P_HOLM, FLIPS, UNSCORED = "detect-\nable", "p\n(Holm)", "fixed /\nbroken", "un-\nscored"


def verdict_table(report: Report) -> Table:
    """One row per condition: accuracy, paired gain with the smallest that n finds, p, and the counts; 95 % intervals in brackets.

    Example:
        ``Console().print(verdict_table(report))``
    """
    title = f"n = {count(report.conditions[0].n)} problems, {report.verdict.split} split"
    random = " Of random sets: means, and the smallest one-sided p after Holm." if report.random_gains else ""
    columns = ("accuracy", "gain (points)", DETECTABLE, "p", P_HOLM, FLIPS, "tokens", "trun-\ncated", UNSCORED)
    table = table_of(title, f"95 % intervals. {' '.join(notes(report))}{random}", "condition", columns)
    for i, row in enumerate(report.conditions):
        style = "bold" if row.condition == report.verdict.condition else "dim" if is_random(report, row.condition) else ""
        table.add_row(Text(condition_label(report, row.condition)), *map(Text, _condition_cells(row, base=i == 0)), style=style)
    return table


def breakdown_table(breakdown: Breakdown, base: str = "unsteered", condition: str = "steered") -> Table:
    """One row per group and, under domains, the micro and macro average.

    Args:
        breakdown: of the judged condition.
        base, condition: what heads the two columns of accuracies.
    """
    columns = ("n", base, condition, "gain (points)", DETECTABLE, "p", P_HOLM, FLIPS, UNSCORED, "verdict")
    table = table_of(
        f"by {breakdown.by}", "The verdict of a group is by p (Holm), corrected for the groups.", breakdown.by, columns
    )
    for row in breakdown.rows:
        table.add_row(Text(row.group), *map(Text, _group_cells(row)))
    for i, average in enumerate(breakdown.averages):
        if i == 0:
            table.add_section()
        table.add_row(Text(f"{average.name} average"), *map(Text, _average_cells(average)))
    return table


def table_of(title: str, caption: str, first: str, columns: Sequence[str]) -> Table:
    """An empty table in the common look."""
    # Text, because a name from a file may hold what rich would read as markup
    table = Table(title=Text(title), caption=Text(caption), box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    # a terminal that is too narrow folds a figure, and never cuts it
    table.add_column(Text(first), overflow="fold")
    for name in columns:
        table.add_column(Text(name), justify="right", overflow="fold")
    return table


def tied(interval: str) -> str:
    """An interval that a narrow column does not break in two: rich breaks at every space, also at one that should not break."""
    return interval.replace(", ", ",")


def _condition_cells(row: ConditionSummary, base: bool) -> list[str]:
    compared = [_gain(row), detectable(row.minimum_detectable_gain), p_value(row.p), _p_or_dash(row.p_holm), fixed_broken(row)]
    accuracy = f"{percent(row.accuracy)} {tied(percent_interval(row.low, row.high))}"
    counts = [count(row.tokens_per_answer), count(row.truncated), count(row.unscored)]
    return [accuracy, *([DASH] * len(compared) if base else compared), *counts]


def _group_cells(row: GroupRow) -> list[str]:
    c = row.comparison
    p = [p_value(c.p), p_value(row.p_holm)]
    unscored = f"{count(row.base_unscored)} / {count(row.unscored)}"
    figures = [count(c.n), percent(c.base_accuracy), percent(c.accuracy), _gain(c), detectable(row.minimum_detectable_gain)]
    return [*figures, *p, fixed_broken(c), unscored, row.word]


def _average_cells(average: Average) -> list[str]:
    gain = average.gain
    interval = "" if gain.low is None or gain.high is None else f" {tied(points_interval(gain.low, gain.high))}"
    return ["", percent(average.base.value), percent(average.condition.value), f"{points(gain.value)}{interval}", *[""] * 6]


def _gain(row: ConditionSummary | PairedComparison) -> str:
    return f"{points(row.gain)} {tied(points_interval(row.gain_low, row.gain_high))}"


def _p_or_dash(p: float | None) -> str:
    return DASH if p is None else p_value(p)
