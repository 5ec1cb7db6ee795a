"""Figures of experiments, drawn from their data: dots, curves, matrices and bars."""

import math
from collections.abc import Sequence
from functools import singledispatch

import plotly.graph_objects as go

from trimtab.report.palette import BLACK, BLUE, FAINT, GREY, VERMILLION
from trimtab.report.theme import SERIES, SYMBOLS, Drawing, bars, blank, label
from trimtab.report.wording import cell, count
from trimtab.results import Bars, Curve, Curves, Dot, Dots, Figure, Matrix, Point, Result, Unit

ROW = 34
MANY = 60
"""Above this many points a line has no markers."""


def draw_results(result: Result) -> list[Drawing]:
    """All figures of an experiment; names begin with the experiment's, so that one page can hold several."""
    return [drawing._replace(name=f"{result.name}-{drawing.name}") for drawing in map(draw_result, result.figures)]


@singledispatch
def draw_result(figure: Figure) -> Drawing:
    """The picture of a figure's data."""
    raise TypeError(f"no drawing for {type(figure).__name__}")


@draw_result.register
def _(data: Dots) -> Drawing:
    figure = blank(data.title, _subtitle(data), 118 + ROW * len(data.dots))
    groups = list(dict.fromkeys(dot.group for dot in data.dots))
    for y, dot in enumerate(data.dots):
        colour = SERIES[groups.index(dot.group) % len(SERIES)]
        _add_dot(figure, dot, y, colour, data.unit)
    if data.reference is not None:
        figure.add_vline(x=_shown(data.reference, data.unit), line={"color": GREY, "width": 1.2, "dash": "dot"}, layer="below")
    ends = [end for dot in data.dots for end in (*_ends(dot), *dot.others)]
    ends += [] if data.reference is None else [data.reference]
    figure.update_xaxes(title=data.x_label, range=_range(ends, data.unit, 0.12), ticksuffix=_suffix(data.unit))
    figure.update_yaxes(
        tickvals=list(range(len(data.dots))),
        ticktext=[f"{label(dot.label)}  " for dot in data.dots],
        range=[len(data.dots) - 0.4, -0.6],
        showgrid=False,
        ticks="",
    )
    return Drawing(data.name, data.reading, figure)


def _add_dot(figure: go.Figure, dot: Dot, y: int, colour: str, unit: Unit) -> None:
    value = _shown(dot.value, unit)
    low, high = (_shown(end, unit) for end in _ends(dot))
    figure.add_scatter(
        x=[value],
        y=[y],
        mode="markers+text",
        marker={"size": 10, "color": colour},
        error_x=bars([value], [low], [high], colour) if dot.low is not None else None,
        text=[cell(dot.value, unit)],
        textposition="top center",
        textfont={"size": 11},
        cliponaxis=False,
        hovertext=[_hover(dot.label, dot, unit)],
        hoverinfo="text",
        showlegend=False,
    )
    if dot.others:
        figure.add_scatter(
            x=[_shown(other, unit) for other in dot.others],
            y=[y + 0.26] * len(dot.others),
            mode="markers",
            marker={"size": 7, "color": GREY, "symbol": "circle-open", "line": {"width": 1.4}},
            hovertext=[cell(other, unit) for other in dot.others],
            hoverinfo="text",
            showlegend=False,
        )


@draw_result.register
def _(data: Curves) -> Drawing:
    figure = blank(data.title, _subtitle(data), 440)
    for i, curve in enumerate(data.curves):
        _add_curve(figure, curve, i, data.unit, data.x_unit)
    if data.reference is not None:
        figure.add_hline(y=_shown(data.reference, data.unit), line={"color": GREY, "width": 1.2, "dash": "dot"}, layer="below")
    if data.mark is not None:
        mark = _shown(data.mark, data.x_unit)
        figure.add_vline(x=mark, line={"color": BLACK, "width": 1.2, "dash": "dash"}, layer="below")
        # a line stands on a logarithmic axis at its value, an annotation at the logarithm
        place = math.log10(mark) if data.log_x else mark
        figure.add_annotation(
            x=place, y=1, yref="paper", text=f" {label(data.mark_label)}", showarrow=False, xanchor="left", yanchor="top"
        )
    figure.update_xaxes(title=data.x_label, ticksuffix=_suffix(data.x_unit), type="log" if data.log_x else "linear")
    if data.log_x:
        figure.update_xaxes(tickvals=_log_ticks([_shown(p.x, data.x_unit) for curve in data.curves for p in curve.points]))
    ends = [end for curve in data.curves for point in curve.points for end in _ends(point)]
    ends += [] if data.reference is None else [data.reference]
    figure.update_yaxes(title=data.y_label, range=_range(ends, data.unit, 0.08), ticksuffix=_suffix(data.unit))
    figure.update_layout(showlegend=len(data.curves) > 1, margin={"b": 70 if len(data.curves) > 1 else 10})
    return Drawing(data.name, data.reading, figure)


def _add_curve(figure: go.Figure, curve: Curve, i: int, unit: Unit, x_unit: Unit) -> None:
    colour, symbol = SERIES[i % len(SERIES)], SYMBOLS[i % len(SYMBOLS)]
    x = [_shown(point.x, x_unit) for point in curve.points]
    if all(point.low is not None for point in curve.points) and len(x) > 1:
        low, high = ([_shown(_ends(point)[side], unit) for point in curve.points] for side in (0, 1))
        figure.add_scatter(
            x=[*x, *reversed(x)],
            y=[*high, *reversed(low)],
            fill="toself",
            fillcolor=_faded(colour),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
        )
    figure.add_scatter(
        x=x,
        y=[_shown(point.value, unit) for point in curve.points],
        mode="lines" if len(x) > MANY else "lines+markers",
        line={"color": colour, "width": 2},
        marker={"size": 8, "symbol": symbol, "color": colour},
        name=label(curve.label),
        hovertext=[_hover(f"{curve.label}, {cell(point.x, x_unit)}", point, unit) for point in curve.points],
        hoverinfo="text",
    )


@draw_result.register
def _(data: Matrix) -> Drawing:
    figure = blank(data.title, _subtitle(data), 190 + ROW * len(data.rows))
    values = [[None if c is None else _shown(c.value, data.unit) for c in row] for row in data.cells]
    known = [value for row in values for value in row if value is not None]
    reach = max((abs(value) for value in known), default=1.0) or 1.0
    scale = {"colorscale": _DIVERGING, "zmin": -reach, "zmax": reach} if data.diverging else {"colorscale": _SEQUENTIAL}
    figure.add_heatmap(
        z=values,
        x=[label(column) for column in data.columns],
        y=[label(row) for row in data.rows],
        text=[["" if c is None else cell(c.value, data.unit) for c in row] for row in data.cells],
        texttemplate="%{text}",
        hovertext=[
            ["" if c is None else _hover(f"{row}, {column}", c, data.unit) for column, c in zip(data.columns, line, strict=True)]
            for row, line in zip(data.rows, data.cells, strict=True)
        ],
        hoverinfo="text",
        showscale=False,
        xgap=2,
        ygap=2,
        **scale,
    )
    figure.update_xaxes(title=data.column_label, type="category", showgrid=False, ticks="", side="bottom")
    figure.update_yaxes(
        title={"text": data.row_label, "standoff": 16}, type="category", autorange="reversed", showgrid=False, ticks=""
    )
    return Drawing(data.name, data.reading, figure)


@draw_result.register
def _(data: Bars) -> Drawing:
    figure = blank(data.title, _subtitle(data), 420)
    for i, series in enumerate(data.series):
        colour = SERIES[i % len(SERIES)]
        values = [_shown(bar.value, data.unit) for bar in series.bars]
        with_intervals = all(bar.low is not None for bar in series.bars)
        low, high = ([_shown(_ends(bar)[side], data.unit) for bar in series.bars] for side in (0, 1))
        figure.add_bar(
            x=[label(bar.x) for bar in series.bars],
            y=values,
            name=label(series.label),
            marker={"color": colour},
            error_y=bars(values, low, high, BLACK) if with_intervals else None,
            hovertext=[_hover(f"{series.label}, {bar.x}", bar, data.unit) for bar in series.bars],
            hoverinfo="text",
        )
    figure.update_layout(barmode="group", bargap=0.25, showlegend=len(data.series) > 1)
    figure.update_layout(margin={"b": 70 if len(data.series) > 1 else 10})
    figure.update_xaxes(title=data.x_label, type="category", showgrid=False)
    figure.update_yaxes(title=data.y_label, ticksuffix=_suffix(data.unit), zeroline=True, zerolinecolor=FAINT)
    return Drawing(data.name, data.reading, figure)


_DIVERGING = [[0.0, VERMILLION], [0.5, "#FFFFFF"], [1.0, BLUE]]
_SEQUENTIAL = [[0.0, "#FFFFFF"], [1.0, BLUE]]


def _subtitle(data: Figure) -> str:
    return f"n = {count(data.n)} {data.of}, {label(data.split)} split" + (f"; {data.detail}" if data.detail else "")


def _shown(value: float, unit: Unit) -> float:
    return 100 * value if unit in ("percent", "points") else value


def _suffix(unit: Unit) -> str:
    return " %" if unit == "percent" else ""


def _ends(point: Point) -> tuple[float, float]:
    return (
        point.value if point.low is None else point.low,
        point.value if point.high is None else point.high,
    )


def _range(values: Sequence[float], unit: Unit, air: float) -> list[float]:
    low, high = _shown(min(values), unit), _shown(max(values), unit)
    width = (high - low) or abs(high) or 1.0
    return [low - air * width, high + air * width]


def _log_ticks(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 times every power of ten between the ends."""
    decades = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
    return [tick for n in decades for d in (1, 2, 5) if min(values) <= (tick := d * 10.0**n) <= max(values)]


def _hover(name: str, point: Point, unit: Unit) -> str:
    interval = "" if point.low is None or point.high is None else f" [{cell(point.low, unit)}, {cell(point.high, unit)}]"
    return f"{label(name)}: {cell(point.value, unit)}{interval}"


def _faded(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"
