"""Figures of an analysis: what steering does to activations, to the residual stream and to the next token."""

import math
from collections.abc import Sequence

from plotly.subplots import make_subplots

from trimtab.analysis import Drift, Magnitudes, PerplexityEffect
from trimtab.gating.assess import Estimate
from trimtab.report.palette import BLACK, BLUE, FAINT, GREY, SKY
from trimtab.report.theme import SERIES, Drawing, bars, blank, dress, label
from trimtab.report.wording import count, percent, significant

ROW = 46


def drift_figure(drift: Drift, split: str) -> Drawing:
    """How far the residual stream moves, layer by layer."""
    titles = ("cosine", "distance over the norm", "norm, steered over unsteered")
    figure = make_subplots(1, 3, subplot_titles=titles, horizontal_spacing=0.07)
    subtitle = f"{_traces(drift.n_traces, split)}, {count(drift.n_tokens)} response tokens; 95 % bootstrap intervals"
    dress(figure, f"Drift of the residual stream at strength {drift.strength:g}", subtitle, 380)
    x = [layer.layer for layer in drift.layers]
    panels: list[list[Estimate]] = [
        [layer.cosine for layer in drift.layers],
        [layer.distance for layer in drift.layers],
        [layer.norm_ratio for layer in drift.layers],
    ]
    for i, (estimates, unmoved) in enumerate(zip(panels, (1.0, 0.0, 1.0), strict=True)):
        values = [estimate.value for estimate in estimates]
        figure.add_scatter(
            x=[x[0] - 0.5, x[-1] + 0.5],
            y=[unmoved, unmoved],
            mode="lines",
            line={"color": GREY, "width": 1.6, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
            row=1,
            col=i + 1,
        )
        figure.add_scatter(
            x=x,
            y=values,
            mode="lines+markers",
            line={"color": SERIES[i], "width": 1.8},
            marker={"size": 7},
            error_y=bars(values, [e.low for e in estimates], [e.high for e in estimates], SERIES[i]),
            hovertext=[
                f"layer {layer}: {e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for layer, e in zip(x, estimates, strict=True)
            ],
            hoverinfo="text",
            showlegend=False,
            row=1,
            col=i + 1,
        )
        ends = [unmoved, *(e.low for e in estimates), *(e.high for e in estimates)]
        figure.update_yaxes(range=_around(ends), row=1, col=i + 1)
    figure.update_annotations(font={"size": 12, "color": GREY}, yshift=2)
    figure.update_xaxes(title="layer", tickformat="d", nticks=min(8, len(x) + 1), range=[x[0] - 0.5, x[-1] + 0.5])
    figure.update_layout(margin={"t": 96})
    there, back = drift.kl_unsteered_steered, drift.kl_steered_unsteered
    reading = (
        "Both passes read the same tokens; the dotted line is no change. Next token: KL(unsteered || steered) "
        f"{_interval(there)} nats, KL(steered || unsteered) {_interval(back)} nats, and another first choice after "
        f"{percent(drift.changed.value)} of the tokens."
    )
    return Drawing("drift", reading, figure)


def magnitudes_figure(magnitudes: Magnitudes, split: str) -> Drawing:
    """Mean magnitude of each steered neuron in steered over unsteered generations, before and after the edit."""
    neurons = magnitudes.neurons
    traces = f"{count(magnitudes.n_steered)} steered and {count(magnitudes.n_unsteered)} unsteered traces"
    subtitle = f"n = {count(len(neurons))} neurons, {traces}, {label(split)} split; 95 % bootstrap intervals"
    figure = blank("Activation magnitude of the steered neurons", subtitle, 480)
    unsteered = [neuron.unsteered for neuron in neurons]
    ends = [end for neuron in neurons for e in (neuron.unsteered, neuron.before, neuron.after) for end in (e.low, e.high)]
    positive = [end for end in ends if end > 0]
    low, high = min(positive) / 1.2, max(positive) * 1.2
    figure.add_scatter(
        x=[low, high], y=[low, high], mode="lines", line={"color": FAINT, "dash": "dot"}, hoverinfo="skip", showlegend=False
    )
    kinds = [
        ("before the edit", [n.before for n in neurons], SKY, "circle-open"),
        ("after the edit", [n.after for n in neurons], BLUE, "circle"),
    ]
    for name, estimates, colour, symbol in kinds:
        values, base = [e.value for e in estimates], [e.value for e in unsteered]
        figure.add_scatter(
            x=base,
            y=values,
            mode="markers",
            marker={"size": 8, "color": colour, "symbol": symbol, "line": {"width": 1.4, "color": colour}},
            error_x={**bars(base, [e.low for e in unsteered], [e.high for e in unsteered], colour), "thickness": 0.8},
            error_y={**bars(values, [e.low for e in estimates], [e.high for e in estimates], colour), "thickness": 0.8},
            name=name,
            hovertext=[
                f"{n.address}: {significant(n.unsteered.value)} unsteered, {significant(e.value)} {name}"
                for n, e in zip(neurons, estimates, strict=True)
            ],
            hoverinfo="text",
        )
    span, ticks = [math.log10(low), math.log10(high)], _decades(low, high)
    figure.update_xaxes(
        title="unsteered, mean |a| (log scale)", type="log", range=span, tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks]
    )
    figure.update_yaxes(
        title="steered, mean |a| (log scale)", type="log", range=span, tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks]
    )
    figure.update_layout(margin={"b": 70})
    grown = sum(neuron.after.value > neuron.unsteered.value for neuron in neurons)
    reading = (
        f"On the diagonal nothing changed; {grown} of {len(neurons)} neurons are more active after the edit than unsteered. "
        "Before the edit a neuron can differ too, since the text differs and earlier layers and tokens are steered."
    )
    return Drawing("magnitudes", reading, figure)


def perplexity_figure(effect: PerplexityEffect, split: str) -> Drawing:
    """Perplexity of the same tokens without and with the steering."""
    scored = effect.unsteered
    subtitle = f"{_traces(scored.traces, split)}, {count(scored.tokens)} tokens; 95 % bootstrap intervals"
    rows = [("Unsteered", scored.perplexity, BLACK), ("Steered", effect.steered.perplexity, SKY)]
    figure = blank("Perplexity of the unsteered model's own responses", subtitle, 118 + ROW * len(rows))
    for y, (name, estimate, colour) in enumerate(rows):
        figure.add_scatter(
            x=[estimate.value],
            y=[y],
            mode="markers+text",
            marker={"size": 11, "color": colour},
            error_x=bars([estimate.value], [estimate.low], [estimate.high], colour),
            text=[significant(estimate.value)],
            textposition="top center",
            cliponaxis=False,
            hovertext=[f"{name}: {_interval(estimate)}"],
            hoverinfo="text",
            showlegend=False,
        )
    figure.update_xaxes(title="perplexity per response token (1 is certainty)", rangemode="tozero")
    figure.update_yaxes(tickvals=[0, 1], ticktext=[f"{name}  " for name, *_ in rows], range=[1.6, -0.6], showgrid=False, ticks="")
    reading = (
        f"Steering multiplies the perplexity of these tokens by {_interval(effect.change.ratio)}, paired trace by trace; they are "
        "the bare model's own, so any edit makes them less likely."
    )
    return Drawing("perplexity", reading, figure)


def _traces(n: int, split: str) -> str:
    return f"n = {count(n)} traces, {label(split)} split"


def _interval(estimate: Estimate) -> str:
    return f"{significant(estimate.value)} [{significant(estimate.low)}, {significant(estimate.high)}]"


def _around(values: Sequence[float]) -> list[float]:
    """A range with air on both sides."""
    air = 0.08 * (max(values) - min(values)) or 0.01
    return [min(values) - air, max(values) + air]


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade; a log axis of its own would show bare digits."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
