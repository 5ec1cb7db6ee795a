"""Five plots that draw any frame: dots, curves, a matrix, bars and ROC curves.

What they read besides the columns of the plot: ``low`` and ``high`` become error bars or bands, ``unit`` formats axes and labels,
``series`` is a colour, ``chosen`` (a bool) stands out. Several rows of one label share a line of a dot plot; those without an
interval beside one that has it are small rings, such as single random sets. A curve whose rows hold no n, beside some that do, is
no measurement and is drawn dotted. An axis whose label begins with "share" is in per cent.
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trimtab.errors import InputError
from trimtab.findings import Cell, Frame, Plot, Unit
from trimtab.report.look import BLUE, FAINT, GREY, INK, PAPER, SYMBOLS, VERMILLION, colours, dress, faded, label
from trimtab.report.wording import cell, count

Row: TypeAlias = Mapping[str, Cell]

LINE = 36
"""Pixels of a line of dots or of a matrix."""
MANY = 60
"""A curve of more points has no markers, and bars of more places have no gaps."""
_DIVERGING = [[0.0, VERMILLION], [0.5, PAPER], [1.0, BLUE]]
_SEQUENTIAL = [[0.0, PAPER], [1.0, BLUE]]


def draw(frame: Frame, split: str = "") -> go.Figure:
    """The figure of a frame, by its ``plot``.

    Args:
        split: whose problems it shows, for the subtitle.

    Raises:
        InputError: a frame without ``plot``, or without a value to draw.
    """
    return together([frame], frame.title, split)


def together(frames: Sequence[Frame], title: str, split: str = "") -> go.Figure:
    """Several frames side by side in one figure."""
    for frame in frames:
        if frame.plot is None or not _measured(frame):
            what = "is a table alone" if frame.plot is None else "holds no value"
            raise InputError(f"frame {frame.name!r} {what}, so there is nothing to draw; see to_pandas()")
    titles = [label(frame.title) for frame in frames] if len(frames) > 1 else None
    figure = make_subplots(1, len(frames), subplot_titles=titles, horizontal_spacing=0.14)
    heights = [_DRAWN[frame.plot](_Place(figure, i + 1), frame) for i, frame in enumerate(frames) if frame.plot]
    traces: Any = figure.data
    legend, several = any(trace.showlegend for trace in traces), len(frames) > 1
    dress(figure, title, _subtitle(frames, split), max(heights) + 60 * legend + 26 * several, legend)
    if several:
        figure.update_annotations({"font": {"size": 13}, "yshift": 4}, selector={"yref": "paper"})
        figure.update_layout(margin={"t": 110})
    return figure


@dataclass(frozen=True, slots=True)
class _Place:
    """One column of a figure, in which a frame is drawn."""

    figure: go.Figure
    column: int

    def add(self, trace: go.Scatter | go.Bar | go.Heatmap) -> None:
        self.figure.add_trace(trace, row=1, col=self.column)

    def axes(self, x: dict[str, object], y: dict[str, object]) -> None:
        self.figure.update_xaxes(x, row=1, col=self.column)
        self.figure.update_yaxes(y, row=1, col=self.column)

    def rule(self, x: float | str | None, y: float | None, dash: str = "dot") -> None:
        """A line through the plot, across at y or upright at x."""
        line = {"color": GREY, "width": 1.2, "dash": dash}
        if y is not None:
            self.figure.add_hline(y=y, line=line, layer="below", row=1, col=self.column)  # type: ignore[arg-type]
        if x is not None:
            self.figure.add_vline(x=x, line=line, layer="below", row=1, col=self.column)  # type: ignore[arg-type]


def dots(place: _Place, frame: Frame) -> int:
    """A dot with its interval in the line of its label."""
    rows, unit = _measured(frame), _unit(frame)
    names = list(dict.fromkeys(str(row["label"]) for row in rows))
    rings = [row for row in rows if _is_ring(row, rows)]
    marks = [row for row in rows if row not in rings]
    palette = colours(_series(row) for row in marks)
    legend = 1 < len(palette) < len(names)
    for series, colour in palette.items():
        own = [row for row in marks if _series(row) == series]
        place.add(
            go.Scatter(
                x=[_shown(row["value"], unit) for row in own],
                y=[names.index(str(row["label"])) + _offset(row, marks) for row in own],
                mode="markers+text",
                marker={"size": 10, "color": colour},
                error_x=_bars(own, unit, colour),
                text=[cell(row["value"], unit) for row in own],
                textposition="top center",
                textfont={"size": 11},
                cliponaxis=False,
                name=label(series),
                hovertext=[_hover(row["label"], row, unit) for row in own],
                hoverinfo="text",
                showlegend=legend,
            )
        )
    if rings:
        place.add(
            go.Scatter(
                x=[_shown(row["value"], unit) for row in rings],
                # below the line's own mark, so that neither hides the other
                y=[names.index(str(row["label"])) + 0.26 for row in rings],
                mode="markers",
                marker={"size": 7, "color": GREY, "symbol": "circle-open", "line": {"width": 1.4}},
                hovertext=[_hover(_series(row) or row["label"], row, unit) for row in rings],
                hoverinfo="text",
                showlegend=False,
            )
        )
    place.rule(None if frame.reference is None else _shown(frame.reference, unit), None)
    ticks = [f"<b>{label(name)}</b>  " if _is_chosen(name, rows) else f"{label(name)}  " for name in names]
    lines = {"tickvals": list(range(len(names))), "ticktext": ticks, "range": [len(names) - 0.4, -0.6], "showgrid": False}
    place.axes({"title": _titled(frame.x_label, unit), **_scale(frame, 0.1, frame.log_x)}, lines)
    return 126 + LINE * len(names)


def curves(place: _Place, frame: Frame) -> int:
    """A line for each series over x, with a band, or with error bars where x is text."""
    unit, named = _unit(frame), any(isinstance(row["x"], str) for row in frame.rows)
    groups = _by_series(frame)
    palette, several = colours(groups), len(groups) > 1
    counted = any(row["n"] is not None for row in _measured(frame))
    percent = frame.x_label.startswith("share")
    for i, (series, rows) in enumerate(groups.items()):
        dotted = counted and all(row["n"] is None for row in rows)
        colour = GREY if dotted else palette[series]
        x = [row["x"] if named or not percent else 100 * row["x"] for row in rows]  # type: ignore[operator]
        banded = not named and len(rows) > 1 and all(row["low"] is not None and row["high"] is not None for row in rows)
        if banded:
            place.add(_band(x, rows, unit, colour))
        place.add(
            go.Scatter(
                x=x,
                y=[_shown(row["value"], unit) for row in rows],
                mode="lines" if dotted or len(x) > MANY else "lines+markers",
                line={"color": colour, "width": 2, "dash": "dot" if dotted else "solid"},
                marker={"size": 8, "symbol": SYMBOLS[i % len(SYMBOLS)], "color": colour},
                error_y=None if banded else _bars(rows, unit, colour),
                name=label(series),
                hovertext=[_hover(f"{series} {_x_text(row['x'], percent)}".strip(), row, unit) for row in rows],
                hoverinfo="text",
                showlegend=several,
            )
        )
        _ring_chosen(place, x, rows, unit)
    _add_mark(place, frame, 100 if percent else 1)
    place.rule(None, None if frame.reference is None else _shown(frame.reference, unit))
    x_axis: dict[str, object] = {"title": frame.x_label, "type": "category" if named else "log" if frame.log_x else "linear"}
    if frame.log_x and not named:
        x_axis["tickvals"] = _log_ticks([float(row["x"]) for row in frame.rows])  # type: ignore[arg-type]
    place.axes({**x_axis, "ticksuffix": " %" if percent else ""}, {"title": _titled(frame.y_label, unit), **_scale(frame, 0.08)})
    return 440


def matrix(place: _Place, frame: Frame) -> int:
    """A coloured value for each row and column; around the reference, or 0 for gains, on a scale of two colours."""
    unit = _unit(frame)
    down, across = (list(dict.fromkeys(str(row[key]) for row in frame.rows)) for key in ("row", "column"))
    cells = {(str(row["row"]), str(row["column"])): row for row in frame.rows}
    table = [[cells.get((name, column)) for column in across] for name in down]
    values = [[None if row is None else _number(row["value"], unit) for row in line] for line in table]
    known = [value for line in values for value in line if value is not None]
    centre = _shown(frame.reference, unit) if frame.reference is not None else 0.0 if unit == "points" else None
    scale: dict[str, object] = {"colorscale": _SEQUENTIAL, "zmin": min(known), "zmax": max(known)}
    if centre is not None:
        reach = max(abs(value - centre) for value in known) or 1.0
        scale = {"colorscale": _DIVERGING, "zmin": centre - reach, "zmax": centre + reach}
    place.add(
        go.Heatmap(
            {"z": values, **scale},
            x=[label(column) for column in across],
            y=[label(name) for name in down],
            text=[["" if row is None or row["value"] is None else cell(row["value"], unit) for row in line] for line in table],
            texttemplate="%{text}",
            hovertext=[
                ["" if row is None else _hover(f"{row['row']}, {row['column']}", row, unit) for row in line] for line in table
            ],
            hoverinfo="text",
            showscale=False,
            xgap=2,
            ygap=2,
            showlegend=False,
        )
    )
    for row in (row for row in frame.rows if row.get("chosen")):
        i, j = down.index(str(row["row"])), across.index(str(row["column"]))
        corners = {"x0": j - 0.49, "x1": j + 0.49, "y0": i - 0.47, "y1": i + 0.47}
        place.figure.add_shape(corners, type="rect", line={"color": INK, "width": 2.5}, row=1, col=place.column)
    place.axes(
        {"title": frame.x_label, "type": "category", "showgrid": False},
        {"title": {"text": frame.y_label, "standoff": 16}, "type": "category", "autorange": "reversed", "showgrid": False},
    )
    return 190 + LINE * len(down)


def bars(place: _Place, frame: Frame) -> int:
    """A bar for each x, series side by side."""
    unit, groups = _unit(frame), _by_series(frame)
    places = list(dict.fromkeys(row["x"] for row in frame.rows))
    named = len(places) <= MANY or any(isinstance(x, str) for x in places)
    palette = colours(groups)
    for series, rows in groups.items():
        place.add(
            go.Bar(
                x=[label(_x_text(row["x"], False)) if named else row["x"] for row in rows],
                y=[_shown(row["value"], unit) for row in rows],
                marker={"color": palette[series]},
                error_y=_bars(rows, unit, INK),
                # numbers on bars that are few enough to hold them
                text=[cell(row["value"], unit) if row["value"] else "" for row in rows] if len(frame.rows) <= 24 else None,
                textposition="outside",
                textfont={"size": 11},
                cliponaxis=False,
                name=label(series),
                hovertext=[_hover(f"{series} {_x_text(row['x'], False)}".strip(), row, unit) for row in rows],
                hoverinfo="text",
                showlegend=len(groups) > 1,
            )
        )
    place.figure.update_layout(barmode="group", bargap=0.25 if named else 0)
    _add_mark(place, frame, 1)
    place.rule(None, None if frame.reference is None else _shown(frame.reference, unit))
    x_axis = {"title": frame.x_label, "type": "category" if named else "linear", "showgrid": False}
    lowest = min(_ends(frame))
    y_axis = {"title": _titled(frame.y_label, unit), "rangemode": "tozero" if lowest >= 0 else "normal"}
    place.axes(x_axis, {**y_axis, "ticksuffix": _suffix(unit), "nticks": 6, **({"tickformat": ",d"} if unit == "count" else {})})
    return 400


def roc(place: _Place, frame: Frame) -> int:
    """ROC curves over the diagonal; the ``value`` of a series is its AUROC and stands in the legend."""
    groups: dict[str, list[Row]] = {}
    for row in frame.rows:
        groups.setdefault(_series(row), []).append(row)
    diagonal = {"color": FAINT, "dash": "dot"}
    place.add(go.Scatter(x=[0, 100], y=[0, 100], mode="lines", line=diagonal, hoverinfo="skip", showlegend=False))
    palette = colours(groups)
    for i, (series, rows) in enumerate(groups.items()):
        area = next((row for row in rows if row["value"] is not None), None)
        ends = "" if area is None or area["low"] is None else f" [{area['low']:.3f}, {area['high']:.3f}]"
        place.add(
            go.Scatter(
                x=[100 * row["false_positive_rate"] for row in rows],  # type: ignore[operator]
                y=[100 * row["true_positive_rate"] for row in rows],  # type: ignore[operator]
                mode="lines",
                line={"color": palette[series], "width": 2.2, "dash": ("solid", "dash", "dashdot", "dot")[i % 4]},
                name=label(series) if area is None else f"{label(series)}: AUROC {area['value']:.3f}{ends}",
                hovertemplate="%{x:.1f} % false alarms, %{y:.1f} % caught<extra></extra>",
                showlegend=True,
            )
        )
    axis = {"ticksuffix": " %", "range": [-2, 102]}
    place.axes(
        {"title": frame.x_label or "false positive rate", **axis}, {"title": frame.y_label or "true positive rate", **axis}
    )
    return 440


_DRAWN: Mapping[Plot, Callable[[_Place, Frame], int]] = {
    "dots": dots,
    "curves": curves,
    "matrix": matrix,
    "bars": bars,
    "roc": roc,
}


def _measured(frame: Frame) -> list[Row]:
    """The rows with something to draw."""
    wanted = "true_positive_rate" if frame.plot == "roc" else "value"
    return [row for row in frame.rows if row[wanted] is not None]


def _by_series(frame: Frame) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in _measured(frame):
        groups.setdefault(_series(row), []).append(row)
    return groups


def _series(row: Row) -> str:
    return str(row.get("series") or "")


def _unit(frame: Frame) -> Unit:
    """The one unit of the values. A plot has one axis for them."""
    units = list(dict.fromkeys(row["unit"] or "number" for row in _measured(frame)))
    if len(units) > 1:
        raise InputError(
            f"frame {frame.name!r} holds values in {', '.join(map(str, units))}, and a plot has one axis; draw it in parts"
        )
    return units[0]  # type: ignore[return-value]  # Frame has checked it


def _is_ring(row: Row, rows: Sequence[Row]) -> bool:
    return row["low"] is None and any(other["label"] == row["label"] and other["low"] is not None for other in rows)


def _is_chosen(name: str, rows: Sequence[Row]) -> bool:
    return any(row["label"] == name and row.get("chosen") for row in rows)


def _offset(row: Row, marks: Sequence[Row]) -> float:
    """How far a mark stands above or below the middle of its line, which several marks share."""
    same = [mark for mark in marks if mark["label"] == row["label"]]
    return 0.3 * (same.index(row) - (len(same) - 1) / 2)


def _number(value: Cell, unit: Unit) -> float | None:
    return None if value is None else _shown(value, unit)


def _shown(value: Cell, unit: Unit) -> float:
    return float(value) * (100 if unit in ("share", "points") else 1)  # type: ignore[arg-type]


def _suffix(unit: Unit) -> str:
    return " %" if unit == "share" else ""


def _titled(text: str, unit: Unit) -> str:
    """The title of an axis of values, which says what points are."""
    return f"{text} (percentage points)" if unit == "points" and "points" not in text else text


def _ends(frame: Frame) -> list[float]:
    """Everything that an axis of values has to hold."""
    found = [row[key] for row in _measured(frame) for key in ("value", "low", "high")]
    return [_shown(end, _unit(frame)) for end in (*found, frame.reference) if end is not None]


def _scale(frame: Frame, air: float, log: bool = False) -> dict[str, object]:
    """Range and ticks of the axis of values: all values with some air."""
    if log:
        return {"type": "log", "tickvals": _log_ticks(_ends(frame))}
    low, high = min(_ends(frame)), max(_ends(frame))
    width = (high - low) or abs(high) or 1.0
    return {"range": [low - air * width, high + air * width], "ticksuffix": _suffix(_unit(frame))}


def _log_ticks(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 times every power of ten between the ends."""
    positive = [value for value in values if value > 0]
    if not positive:
        return []
    low, high = min(positive), max(positive)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for n in decades for d in (1, 2, 5) if low <= (tick := d * 10.0**n) <= high]


def _bars(rows: Sequence[Row], unit: Unit, colour: str) -> dict[str, object] | None:
    """Error bars from low to high, none where no row has an interval."""
    if all(row["low"] is None for row in rows):
        return None

    def reach(row: Row, end: str) -> float:
        return 0.0 if row[end] is None else abs(_shown(row[end], unit) - _shown(row["value"], unit))

    lengths = {"array": [reach(row, "high") for row in rows], "arrayminus": [reach(row, "low") for row in rows]}
    return {"type": "data", "symmetric": False, **lengths, "color": colour, "thickness": 1.6, "width": 0}


def _band(x: Sequence[Cell], rows: Sequence[Row], unit: Unit, colour: str) -> go.Scatter:
    low, high = ([_shown(row[end], unit) for row in rows] for end in ("low", "high"))
    return go.Scatter(
        x=[*x, *reversed(x)],
        y=[*high, *reversed(low)],
        fill="toself",
        fillcolor=faded(colour),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
    )


def _ring_chosen(place: _Place, x: Sequence[Cell], rows: Sequence[Row], unit: Unit) -> None:
    chosen = [i for i, row in enumerate(rows) if row.get("chosen")]
    if chosen:
        ring = {"size": 16, "color": INK, "symbol": "circle-open", "line": {"width": 2}}
        at = {"x": [x[i] for i in chosen], "y": [_shown(rows[i]["value"], unit) for i in chosen]}
        place.add(go.Scatter(at, mode="markers", marker=ring, hoverinfo="skip", showlegend=False))


def _add_mark(place: _Place, frame: Frame, factor: float) -> None:
    """The upright line at the x that was chosen, with its word."""
    if frame.mark is None:
        return
    at = frame.mark * factor
    named = any(isinstance(row["x"], str) for row in frame.rows) or frame.plot == "bars"
    x = f"{frame.mark:g}" if named else at
    place.rule(x, None, "dash")
    # a line stands on a logarithmic axis at its value, an annotation at the logarithm
    place.figure.add_annotation(
        x=math.log10(at) if frame.log_x and not named else x,
        y=1,
        yref="y domain",
        text=" chosen",
        showarrow=False,
        xanchor="left",
        yanchor="top",
        font={"color": GREY},
        row=1,
        col=place.column,
    )


def _x_text(x: Cell, percent: bool) -> str:
    if isinstance(x, str):
        return x
    return f"{100 * x:.0f} %" if percent else f"{x:g}"  # type: ignore[operator]


def _hover(name: Cell, row: Row, unit: Unit) -> str:
    ends = "" if row["low"] is None or row["high"] is None else f" [{cell(row['low'], unit)}, {cell(row['high'], unit)}]"
    n = "" if row["n"] is None else f", n = {count(row['n'])}"  # type: ignore[arg-type]
    return f"{label(str(name or ''))}: {cell(row['value'], unit)}{ends}{n}"


def _subtitle(frames: Sequence[Frame], split: str) -> str:
    """n, the split, what the rings are, and the sentences of the notes that say which intervals are drawn."""
    numbers = sorted({int(row["n"]) for frame in frames for row in _measured(frame) if row["n"] is not None})  # type: ignore[arg-type]
    span = f"n = {count(numbers[0])}" + (f" to {count(numbers[-1])}" if len(numbers) > 1 else "") if numbers else ""
    rings = {
        _series(row) for frame in frames if frame.plot == "dots" for row in _measured(frame) if _is_ring(row, _measured(frame))
    }
    parts = [span, f"{split} split" if split else "", *(f"rings: {name or 'single sets'}" for name in sorted(rings))]
    sentences = dict.fromkeys(s for frame in frames for s in re.split(r"(?<=[.;]) ", frame.note) if "interval" in s.lower())
    return "; ".join(
        part for part in (", ".join(parts[:2]).strip(", "), *parts[2:], *(s.strip(" .;") for s in sentences)) if part
    )


def svg(figure: go.Figure, name: str) -> bytes:
    """A figure as an SVG file, the same bytes every time on one machine; needs kaleido and a Chrome or Chromium.

    Args:
        name: of the file. The identifiers within, which plotly draws at random, are made from it, so one page can hold several.
    """
    import kaleido

    figure = go.Figure(figure)
    traces: Any = figure.data
    for i, trace in enumerate(traces):
        trace.uid = str(i)  # else random, too
    size = {"format": "svg", "width": 900, "height": figure.layout.height}
    # without mathjax=False the page that draws would load it from the network
    text = kaleido.calc_fig_sync(figure, opts=size, kopts={"mathjax": False}).decode()
    found = re.search(r'<defs id="defs-([0-9a-f]{6})"', text)
    if found is None:
        raise InputError("this version of plotly names the parts of an SVG in another way; install what constraints.txt pins")
    # never a colour, which may be the same six digits
    own = hashlib.sha256(name.encode()).hexdigest()[:6]
    return re.sub(rf"(?<!#){found[1]}", own, text).encode()
