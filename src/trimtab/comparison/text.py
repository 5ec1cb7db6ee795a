"""A comparison as text: the verdict in a sentence, a line a task, what differs, and the responses that flipped."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from trimtab.stats.verdict import percent, points

if TYPE_CHECKING:
    from trimtab.comparison.pairing import Flip
    from trimtab.comparison.verdict import Against, Comparison, Input, MacroAverage, TaskVerdict

COLUMNS = ("task", "n", "A", "B", "gain, 95 % interval", "p", "p (Holm)", "fixed", "broken", "detectable", "unscored", "verdict")
WIDTH = 100


def render(comparison: "Comparison") -> str:
    """All of it except the flips."""
    lines = [f"A: {_name(comparison.base)}"]
    for one in comparison.against:
        lines += [f"B: {_name(one.input)}", "", one.sentence, "", *_table(one.tasks)]
        if one.macro:
            lines += ["", _macro(one.macro)]
        if one.differences:
            lines += ["", "What differs:", *(f"  {item.text}" for item in one.differences)]
        lines.append("")
    return "\n".join(lines).rstrip()


def render_flips(comparison: "Comparison") -> str:
    """Every flip with both responses, those of one input after those of the other."""
    blocks = [
        _flip(flip, one) for one in comparison.against for kind in ("fixed", "broken") for flip in one.flips if flip.kind == kind
    ]
    return "\n\n".join(blocks) if blocks else "No document flipped."


def _name(one: "Input") -> str:
    return f"{one.source} ({one.format}{f', {one.model}' if one.model else ''})"


def _table(rows: "Sequence[TaskVerdict]") -> Iterator[str]:
    several = any(row.comparison.base_k * row.comparison.k > 1 for row in rows)
    alike = any(row.comparison.clusters for row in rows)
    columns = (*COLUMNS[:2], *(["clusters"] if alike else []), *(["samples"] if several else []), *COLUMNS[2:])
    cells = [columns, *(_cells(row, several, alike) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _cells(row: "TaskVerdict", several: bool, alike: bool) -> tuple[str, ...]:
    c = row.comparison
    clusters = (str(c.clusters or c.n),) if alike else ()
    samples = (str(c.k) if c.base_k == c.k else f"{c.base_k}, {c.k}",) if several else ()
    gain = f"{points(c.gain)} [{points(c.gain_low)}, {points(c.gain_high)}]"
    smallest = "none" if row.minimum_detectable_gain is None else points(row.minimum_detectable_gain)
    unscored = f"{row.base_unscored}, {row.unscored}"
    figures = (percent(c.base_accuracy), percent(c.accuracy), gain, f"{c.p:.2g}", f"{row.p_holm:.2g}")
    return (row.task or "all", str(c.n), *clusters, *samples, *figures, str(c.fixed), str(c.broken), smallest, unscored, row.word)


def _macro(macro: "MacroAverage") -> str:
    interval = (
        "no interval" if macro.low is None or macro.high is None else f"95 % interval {points(macro.low)} to {points(macro.high)}"
    )
    return (
        f"Macro average of {macro.tasks} tasks: {percent(macro.base_accuracy)} to {percent(macro.accuracy)}, "
        f"a gain of {points(macro.gain)} points ({interval})."
    )


def _flip(flip: "Flip", one: "Against") -> str:
    task = f"{flip.task}, " if flip.task else ""
    head = f"== {flip.kind}: {task}document {flip.document}, sample {flip.sample}, {one.input.source} "
    parts = [("prompt", flip.base.prompt or flip.other.prompt), ("target", flip.base.target or flip.other.target)]
    parts += [(f"A, {_score(flip.base.correct)}", flip.base.response), (f"B, {_score(flip.other.correct)}", flip.other.response)]
    return "\n".join([head.ljust(WIDTH, "="), *(f"-- {name}\n{text}" for name, text in parts if text)])


def _score(correct: bool | None) -> str:
    return "unscored" if correct is None else "correct" if correct else "incorrect"
