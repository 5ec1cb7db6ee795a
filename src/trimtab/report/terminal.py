"""The verdict in a terminal."""

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from trimtab.report.data import ArmRow, Report
from trimtab.report.wording import (
    DASH,
    arm_label,
    count,
    is_random,
    p_value,
    percent,
    percent_interval,
    points,
    points_interval,
)

_STYLES = {"helps": "bold green", "hurts": "bold red", "no evidence": "bold yellow", "no verdict": "bold magenta"}


def verdict_line(report: Report) -> Text:
    """The verdict's sentence with its word in colour, and the caveats under it."""
    word, sentence = report.verdict.word, report.verdict.sentence
    line = Text(sentence)
    line.stylize(_STYLES[word], 0, len(word) if sentence.lower().startswith(word) else 0)
    for claim in report.claims:
        line.append(f"\n{claim}", style="dim")
    return line


def verdict_table(report: Report) -> Table:
    """One row per arm: accuracy, paired gain, exact p, fixed and broken, tokens and truncated; 95 % intervals in brackets.

    Example:
        ``Console().print(verdict_table(report))``
    """
    n, split = report.arms[0].n, report.verdict.split
    caption = "95 % intervals. p: exact McNemar, two-sided"
    caption += "; of random sets, the smallest one-sided p after Holm." if report.random_gains else "."
    # Text, because a name from a file may hold what rich would read as markup
    title = Text(f"n = {count(n)} problems, {split} split")
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left", box=SIMPLE_HEAD)
    table.add_column("arm")
    for name in ("accuracy", "gain (points)", "p", "fixed / broken", "tokens", "truncated"):
        table.add_column(name, justify="right", no_wrap=name == "p")
    for i, row in enumerate(report.arms):
        style = "bold" if row.arm == report.verdict.arm else "dim" if is_random(report, row.arm) else ""
        table.add_row(Text(arm_label(report, row.arm)), *_cells(row, base=i == 0), style=style)
    return table


def _cells(row: ArmRow, base: bool) -> list[Text]:
    compared = [
        f"{points(row.gain)} {points_interval(row.gain_low, row.gain_high)}",
        p_value(row.p),
        f"{count(row.fixed)} / {count(row.broken)}",
    ]
    accuracy = f"{percent(row.accuracy)} {percent_interval(row.low, row.high)}"
    cells = [accuracy, *([DASH] * len(compared) if base else compared), count(row.tokens_per_answer), count(row.truncated)]
    return [Text(cell) for cell in cells]
