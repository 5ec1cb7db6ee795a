"""The picture of a result for a README: accuracy per condition with its interval, as a small SVG written by hand."""

import html
import math

from trimtab.report.data import Report
from trimtab.report.notes import accuracy_intervals
from trimtab.report.palette import GREY, GRID, INK, condition_colour
from trimtab.report.wording import base_condition, condition_label, count, is_random, percent, percent_interval

WIDTH, LEFT, RIGHT = 800, 248, 188
TOP, ROW, BOTTOM = 76, 38, 56
LONGEST_LABEL = 30
FONT = "system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"


def result_svg(report: Report) -> str:
    """Draw accuracy per condition as dots with 95 % intervals on white, so that it reads on light and dark pages alike.

    Every random set is a small ring in the row of its kind. No font, script or image is loaded.

    Returns:
        A whole SVG document of fixed width, with a title for screen readers.
    """
    rows, base = report.conditions, base_condition(report)
    height = TOP + ROW * len(rows) + BOTTOM
    low, high, step = _scale([end for row in rows for end in (row.low, row.high)] + _random_accuracies(report, ""))
    plot = WIDTH - LEFT - RIGHT

    def x(share: float) -> float:
        return LEFT + plot * (share - low) / (high - low)

    title = f"Accuracy: n = {count(base.n)} problems, {report.verdict.split} split"
    subtitle = f"Dots with {accuracy_intervals(report)}" + ("; rings: single random sets" if report.random_gains else "")
    bottom = TOP + ROW * len(rows)
    parts = [_text(24, 34, title, 17, INK, weight=600), _text(24, 55, subtitle, 13, GREY)]
    for i in range(round((high - low) / step) + 1):
        tick = low + i * step
        parts.append(_line(x(tick), TOP, x(tick), bottom, GRID))
        parts.append(_text(x(tick), bottom + 19, f"{100 * tick:g} %", 12, GREY, anchor="middle"))
    parts.append(_line(x(base.accuracy), TOP, x(base.accuracy), bottom, GREY, 'stroke-dasharray="3 4"'))
    for i, row in enumerate(rows):
        y = TOP + ROW * (i + 0.5)
        colour = condition_colour(row.condition, is_random(report, row.condition))
        name = condition_label(report, row.condition)
        weight = 600 if row.condition == report.verdict.condition else 400
        parts.append(_text(LEFT - 14, y + 4.5, _shorten(name), 13, INK, anchor="end", weight=weight))
        parts += [_ring(x(accuracy), y + 10) for accuracy in _random_accuracies(report, row.condition)]
        parts.append(_line(x(row.low), y, x(row.high), y, colour, 'stroke-width="2.4" stroke-linecap="round"'))
        parts.append(f'<circle cx="{x(row.accuracy):.1f}" cy="{y}" r="5.5" fill="{colour}"/>')
        parts.append(_text(WIDTH - RIGHT + 18, y + 4.5, percent(row.accuracy), 13, INK, weight=weight))
        parts.append(_text(WIDTH - 24, y + 4.5, percent_interval(row.low, row.high), 12, GREY, anchor="end"))
    parts.append(_text(LEFT + plot / 2, bottom + 42, "accuracy", 12, GREY, anchor="middle"))
    return _document(height, title, parts)


def _document(height: int, title: str, parts: list[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
            f'role="img" font-family="{FONT}">',
            f"<title>{html.escape(title)}</title>",
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="10" fill="#ffffff" stroke="{GRID}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _scale(values: list[float]) -> tuple[float, float, float]:
    """First tick, last tick and step: at most 6 round steps that hold all values, within 0 and 1."""
    span = max(max(values) - min(values), 0.02)
    step = next(step for step in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if span / step <= 5)
    low = max(0.0, math.floor(min(values) / step) * step)
    high = min(1.0, math.ceil(max(values) / step) * step)
    return (low, high, step) if high > low else (max(0.0, low - step), min(1.0, high + step), step)


def _random_accuracies(report: Report, condition: str) -> list[float]:
    """Accuracy of every random set of a kind, of all kinds when ``condition`` is empty."""
    kinds = [condition] if condition else sorted(report.random_gains)
    return [base_condition(report).accuracy + gain for kind in kinds for gain in report.random_gains.get(kind, ())]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, style: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {style}/>'


def _ring(x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y}" r="3" fill="none" stroke="{GREY}" stroke-width="1.2"/>'


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"


def _text(x: float, y: float, text: str, size: float, colour: str, anchor: str = "start", weight: int = 400) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{colour}" text-anchor="{anchor}">'
        f"{html.escape(text)}</text>"
    )
