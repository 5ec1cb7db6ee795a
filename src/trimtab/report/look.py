"""The look that every figure and page shares: colours, their counterparts on a dark page, fonts and axes."""

import html
from collections.abc import Iterable

import plotly.graph_objects as go

from trimtab.evaluation.rows import (
    ALWAYS,
    DIRECTION,
    GATED,
    MAJORITY,
    MAJORITY_EQUAL_COST,
    NEGATIVE,
    PROMPT_ONLY,
    SAMPLED,
    SFT_LORA,
    UNSTEERED,
)

# Okabe and Ito (2008), told apart with every common colour blindness; black is left to the ink
ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x")
INK, GREY, FAINT, GRID, PAPER = "#1f2328", "#6e7681", "#bdbdbd", "#e6e8ea", "#ffffff"
DARK = {INK: "#e6edf3", GREY: "#9198a1", FAINT: "#6e7681", GRID: "#2d333b", PAPER: "#0d1117"}
"""What a page puts in place of a colour where the reader prefers dark pages; the colours of series stay."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
LONGEST_LABEL = 40
_BASELINES = (DIRECTION, PROMPT_ONLY, SFT_LORA, SAMPLED, MAJORITY, MAJORITY_EQUAL_COST)
_OWN = {
    **{UNSTEERED: INK, ALWAYS: SKY, GATED: BLUE, NEGATIVE: VERMILLION},
    **dict.fromkeys(_BASELINES, GREEN),
    **{"fixed": GREEN, "broken": VERMILLION, "still wrong": FAINT},
}
"""Series that have the same colour in every figure."""


def colours(series: Iterable[str]) -> dict[str, str]:
    """A colour for each series: conditions have their own, random sets are grey, all others take the next of the palette.

    Example:
        >>> colours(["unsteered", "random-norm", "a", "b"])["random-norm"] == GREY
        True
    """
    chosen: dict[str, str] = {}
    for name in series:
        taken = sum(colour in SERIES for colour in chosen.values())
        own = GREY if "random" in name.lower() else _OWN.get(name.lower())
        chosen.setdefault(name, own or SERIES[taken % len(SERIES)])
    return chosen


def faded(colour: str) -> str:
    """The colour of a band around a line of this colour."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def label(text: str) -> str:
    """Text as a label of a figure, in which plotly would otherwise read HTML tags; a long one is cut."""
    return html.escape(text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…", quote=False)


def dress(figure: go.Figure, title: str, subtitle: str, height: int, legend: bool) -> None:
    """Give a figure title, subtitle, quiet axes and, where there is one, a legend below the plot."""
    font = {"size": 12, "color": GREY}
    figure.update_layout(
        template="none",
        height=height,
        title={
            "text": html.escape(title, quote=False),
            "x": 0,
            "xref": "container",
            "pad": {"l": 12, "t": 12},
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "font": {"size": 15},
            "subtitle": {"text": html.escape(subtitle, quote=False), "font": font},
        },
        font={"family": FONT, "size": 12, "color": INK},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        margin={"l": 12, "r": 28, "t": 84, "b": 84 if legend else 24},
        hoverlabel={"font": {"family": FONT}},
        showlegend=legend,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "yref": "container", "y": 0.01, "yanchor": "bottom"},
    )
    quiet = {
        "gridcolor": GRID,
        "linecolor": FAINT,
        "zeroline": False,
        "automargin": True,
        "tickcolor": FAINT,
        "title": {"font": {"size": 12}},
    }
    figure.update_xaxes(quiet)
    figure.update_yaxes(quiet)
