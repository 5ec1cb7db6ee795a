"""The look of the figures: palette, axes and titles that say n and split."""

import html
from typing import NamedTuple

import plotly.graph_objects as go

from trimtab.report.palette import BLACK, BLUE, FAINT, GREEN, GREY, GRID, INK, ORANGE, PURPLE, SKY, VERMILLION
from trimtab.report.wording import count, percent

SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, BLACK)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x")

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
LONGEST_LABEL = 36
# a legend at the right edge of the plot
CORNER = {"yref": "paper", "x": 1, "xanchor": "right"}


class Drawing(NamedTuple):
    """A figure, and one sentence that says what to read from it; ``narrow`` ones stand side by side."""

    name: str
    reading: str
    figure: go.Figure
    narrow: bool = False


def shorten(text: str) -> str:
    """A label that leaves room for the plot."""
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"


def label(text: str) -> str:
    """Text as a label of a figure, in which plotly would otherwise read HTML tags."""
    return html.escape(shorten(text), quote=False)


def sample(n: int, split: str, extra: str = "") -> str:
    """The subtitle of every figure.

    Example:
        >>> sample(1200, "test", "95 % intervals")
        'n = 1,200 problems, test split; 95 % intervals'
    """
    return f"n = {count(n)} problems, {label(split)} split" + (f"; {extra}" if extra else "")


def blank(title: str, subtitle: str, height: int) -> go.Figure:
    """An empty figure with title, subtitle and quiet axes."""
    figure = go.Figure()
    dress(figure, title, subtitle, height)
    return figure


def dress(figure: go.Figure, title: str, subtitle: str, height: int) -> None:
    """Give a figure the common look."""
    figure.update_layout(
        template="none",
        height=height,
        title={
            "text": title,
            "x": 0,
            "xref": "container",
            "pad": {"l": 4},
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "font": {"size": 15},
            "subtitle": {"text": subtitle, "font": {"size": 12, "color": GREY}},
        },
        title_pad_t=10,
        font={"family": FONT, "size": 12, "color": INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"l": 10, "r": 24, "t": 72, "b": 10},
        hoverlabel={"font": {"family": FONT}},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "yref": "container", "y": 0, "yanchor": "bottom"},
    )
    quiet = {"gridcolor": GRID, "linecolor": FAINT, "zeroline": False, "automargin": True, "ticks": "outside", "tickcolor": FAINT}
    figure.update_xaxes(**quiet)
    figure.update_yaxes(**quiet)


def bars(values: list[float], lows: list[float], highs: list[float], colour: str) -> dict[str, object]:
    """Error bars from ``lows`` to ``highs`` around ``values``."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, high - value) for value, high in zip(values, highs, strict=True)],
        "arrayminus": [max(0.0, value - low) for value, low in zip(values, lows, strict=True)],
        "color": colour,
        "thickness": 1.6,
        "width": 0,
    }


def padded(values: list[float], floor: float = 0.0, ceiling: float = 1.0) -> list[float]:
    """A range of an axis that holds all values with some air, hardly more than floor to ceiling."""
    low, high = min(values), max(values)
    air = 0.08 * (high - low) if high > low else 0.05
    edge = 0.02 * (ceiling - floor)
    return [max(floor - edge, low - air), min(ceiling + edge, high + air)]


def hover(name: str, value: float, low: float, high: float) -> str:
    """One line for the pointer."""
    return f"{label(name)}: {percent(value)} [{percent(low)}, {percent(high)}]"
