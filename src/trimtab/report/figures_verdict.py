"""Figures of the verdict: accuracy and paired gain of every condition, and which problems changed sides."""

import plotly.graph_objects as go

from trimtab.evaluation.rows import ConditionSummary
from trimtab.report.data import FlipKind, FlipTable, Report
from trimtab.report.notes import accuracy_intervals
from trimtab.report.palette import FAINT, GREEN, GREY, VERMILLION, condition_colour
from trimtab.report.theme import CORNER, Drawing, bars, blank, hover, label, padded, sample
from trimtab.report.wording import (
    base_condition,
    condition_label,
    flip_counts,
    is_random,
    judged_condition,
    ordered_groups,
    percent,
    points,
    points_interval,
)

ROW = 46
ZERO_LINE = {"zeroline": True, "zerolinecolor": GREY, "zerolinewidth": 1.2}
_FLIP_COLOURS: dict[FlipKind, str] = {"fixed": GREEN, "broken": VERMILLION, "still wrong": FAINT}


def accuracy_figure(report: Report) -> Drawing:
    """Accuracy per condition: a dot and its interval."""
    rows, base = report.conditions, base_condition(report)
    subtitle = sample(base.n, report.verdict.split, f"dots with {accuracy_intervals(report)}")
    figure = blank("Accuracy per condition", subtitle, 118 + ROW * len(rows))
    for y, row in enumerate(rows):
        colour = condition_colour(row.condition, is_random(report, row.condition))
        figure.add_scatter(
            x=[row.accuracy],
            y=[y],
            mode="markers+text",
            marker={"size": 11, "color": colour},
            error_x=bars([row.accuracy], [row.low], [row.high], colour),
            text=[percent(row.accuracy)],
            textposition="top center",
            cliponaxis=False,
            hovertext=[hover(condition_label(report, row.condition), row.accuracy, row.low, row.high)],
            hoverinfo="text",
            showlegend=False,
        )
    figure.add_vline(x=base.accuracy, line={"color": GREY, "width": 1.2, "dash": "dot"}, layer="below")
    _condition_axis(figure, report, rows)
    figure.update_xaxes(title="accuracy", tickformat=".0%", range=padded([end for row in rows for end in (row.low, row.high)]))
    reading = (
        "Each dot is a condition on the same problems, the bar its 95 % interval, the dotted line the unsteered model. "
        "Whether a condition differs from it is read from the paired gain below, not from the overlap of two bars."
    )
    return Drawing("accuracy", reading, figure)


def gain_figure(report: Report) -> Drawing:
    """Paired gain over the unsteered model, with every random set as a small dot."""
    base, rows = base_condition(report), report.conditions[1:]
    subtitle = sample(base.n, report.verdict.split, "dots with 95 % paired intervals; small rings: single random sets")
    figure = blank("Paired gain over the unsteered model", subtitle, 118 + ROW * max(1, len(rows)))
    for y, row in enumerate(rows):
        colour = condition_colour(row.condition, is_random(report, row.condition))
        low, gain, high = (100 * end for end in (row.gain_low, row.gain, row.gain_high))
        figure.add_scatter(
            x=[gain],
            y=[y],
            mode="markers+text",
            marker={"size": 11, "color": colour},
            error_x=bars([gain], [low], [high], colour),
            text=[points(row.gain)],
            textposition="top center",
            cliponaxis=False,
            hovertext=[
                f"{label(condition_label(report, row.condition))}: {points(row.gain)} "
                f"{points_interval(row.gain_low, row.gain_high)}"
            ],
            hoverinfo="text",
            showlegend=False,
        )
        _add_random_sets(figure, report.random_gains.get(row.condition, ()), y)
    _condition_axis(figure, report, rows)
    ends = [100 * end for row in rows for end in (row.gain_low, row.gain_high)]
    ends += [100 * gain for gains in report.random_gains.values() for gain in gains]
    figure.update_xaxes(title="gain in accuracy (percentage points)", range=padded([0.0, *ends], -100.0, 100.0), **ZERO_LINE)
    return Drawing("gain", _gain_reading(report), figure)


def _add_random_sets(figure: go.Figure, gains: tuple[float, ...], y: int) -> None:
    if gains:
        figure.add_scatter(
            x=[100 * gain for gain in gains],
            # below the row's own mark, so that neither hides the other
            y=[y + 0.24] * len(gains),
            mode="markers",
            marker={"size": 7, "color": GREY, "symbol": "circle-open", "line": {"width": 1.4}},
            hovertext=[f"random set {i}: {points(gain)}" for i, gain in enumerate(gains)],
            hoverinfo="text",
            showlegend=False,
        )


def _gain_reading(report: Report) -> str:
    judged = judged_condition(report)
    reading = (
        "An interval that leaves out 0 is an effect on these problems. A single random set can gain by luck, so all are drawn."
    )
    gains = [gain for kind in report.random_gains.values() for gain in kind]
    if judged is None or not gains:
        return reading
    as_good = sum(gain >= judged.gain for gain in gains)
    return (
        f"{reading} {as_good} of {len(gains)} random sets gain as much as the condition that is judged ({points(judged.gain)})."
    )


def _condition_axis(figure: go.Figure, report: Report, rows: tuple[ConditionSummary, ...]) -> None:
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[f"{label(condition_label(report, row.condition))}  " for row in rows],
        range=[len(rows) - 0.4, -0.6],
        showgrid=False,
        ticks="",
    )


def flip_figures(report: Report) -> list[Drawing]:
    """Fixed, broken and still wrong by failure source, domain and difficulty, where there is more than one group."""
    flips, split = report.flips, report.verdict.split
    tables = [("source", "failure source", flips.by_source or {}), ("domain", "domain", flips.by_domain)]
    tables.append(("difficulty", "difficulty", flips.by_difficulty))
    return [flip_figure(name, what, table, split) for name, what, table in tables if len(table) > 1]


def flip_figure(name: str, what: str, table: FlipTable, split: str) -> Drawing:
    """Stacked shares of the problems of each group that were fixed, broken or stayed wrong."""
    groups = ordered_groups(table)
    counts = [flip_counts(table, group) for group in groups]
    totals = [sum(row.values()) for row in counts]
    figure = blank(f"Fixed and broken by {what}", sample(sum(totals), split, "the rest stayed right"), 150 + 30 * len(groups))
    for kind, colour in _FLIP_COLOURS.items():
        figure.add_bar(
            x=[row[kind] / total if total else 0.0 for row, total in zip(counts, totals, strict=True)],
            y=list(range(len(groups))),
            orientation="h",
            name=kind,
            marker={"color": colour},
            hovertext=[
                f"{label(group)}: {row[kind]} of {total} {kind}" for group, row, total in zip(groups, counts, totals, strict=True)
            ],
            hoverinfo="text",
        )
    figure.update_layout(barmode="stack", bargap=0.35, legend={**CORNER, "y": 1, "traceorder": "normal"})
    figure.update_xaxes(title="share of the group's problems", tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(
        tickvals=list(range(len(groups))),
        ticktext=[f"{label(group)} (n = {total})  " for group, total in zip(groups, totals, strict=True)],
        range=[len(groups) - 0.5, -0.5],
        showgrid=False,
        ticks="",
    )
    reading = f"Green is what steering repairs, red what it costs, grey the failures it leaves, by {what}."
    return Drawing(f"flips-{name}", reading, figure)
