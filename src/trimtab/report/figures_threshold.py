"""The figure of a gate's threshold: what each one would have gained, and how many problems it steers."""

from plotly.subplots import make_subplots

from trimtab.report.data import GateReport, ThresholdRow
from trimtab.report.palette import BLUE, GREY
from trimtab.report.theme import Drawing, dress, sample
from trimtab.report.wording import percent, points, points_interval

BAND = "rgba(0, 114, 178, 0.18)"


def threshold_figure(gate: GateReport) -> Drawing:
    """Gain of a hard gate over its threshold with its interval, and under it the share of problems steered."""
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.7, 0.3], vertical_spacing=0.06)
    seen = gate.split == "validation"
    origin = "the threshold may have been chosen on them" if seen else "a description: the threshold was not chosen here"
    subtitle = sample(gate.n, gate.split, f"{origin}; pointwise 95 % paired intervals")
    dress(figure, "Gate: what each threshold gains", subtitle, 470)
    # between two neighbours the policy is that of the upper one, so the first value holds from 0 on
    rows = (gate.thresholds[0].model_copy(update={"threshold": 0.0}), *gate.thresholds)
    x = [row.threshold for row in rows]
    step = {"x": x, "mode": "lines", "showlegend": False}
    edge = {"width": 0, "shape": "vh"}
    figure.add_scatter(**step, y=[100 * row.low for row in rows], line=edge, hoverinfo="skip", row=1, col=1)
    figure.add_scatter(
        **step, y=[100 * row.high for row in rows], line=edge, fill="tonexty", fillcolor=BAND, hoverinfo="skip", row=1, col=1
    )
    text = [_hover(row) for row in rows]
    for cell, colour, values in ((1, BLUE, [row.gain for row in rows]), (2, GREY, [row.steered for row in rows])):
        line = {"color": colour, "width": 2, "shape": "vh"}
        figure.add_scatter(
            **step, y=[100 * value for value in values], line=line, hovertext=text, hoverinfo="text", row=cell, col=1
        )
    figure.add_hline(y=0, line={"color": GREY, "width": 1, "dash": "dot"}, layer="below", row=1, col=1)  # type: ignore[arg-type]
    figure.add_vline(x=gate.threshold, line={"color": GREY, "width": 1, "dash": "dash"}, layer="below")
    figure.add_annotation(
        x=gate.threshold,
        y=1,
        yref="y domain",
        text=" chosen on validation",
        showarrow=False,
        xanchor="left",
        yanchor="top",
        font_color=GREY,
    )
    figure.update_xaxes(range=[-0.02, 1.02], tickformat=".0%")
    figure.update_xaxes(title="threshold: steered from this p(fail) on", row=2, col=1)
    figure.update_yaxes(title="gain (points)", row=1, col=1)
    figure.update_yaxes(title="steered", ticksuffix=" %", range=[-4, 104], nticks=4, row=2, col=1)
    return Drawing("threshold", _reading(gate), figure)


def _reading(gate: GateReport) -> str:
    every, none = gate.thresholds[0], gate.thresholds[-1]
    here = next((row for row in gate.thresholds if row.threshold >= gate.threshold), none)
    return (
        f"From left to right fewer problems are steered, from all ({points(every.gain)} points) to none. At the chosen threshold "
        f"{percent(here.steered)} are, for {points(here.gain)} points {points_interval(here.low, here.high)}; the best point of "
        "this curve would be too good, because it would be chosen for it."
    )


def _hover(row: ThresholdRow) -> str:
    gain = f"{points(row.gain)} {points_interval(row.low, row.high)}"
    return f"threshold {row.threshold:.3f}: {percent(row.steered)} steered, gain {gain}, accuracy {percent(row.accuracy)}"
