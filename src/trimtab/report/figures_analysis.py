"""Figures of an analysis: where the neurons sit, how much more active they are, and where failure can be foreseen."""

import math

from trimtab.analysis import Analysis, LayerHistogram, LayerProbes, Ratios
from trimtab.analysis.ratios import EDGES, THRESHOLD, RatioDistribution
from trimtab.report.figures_effect import drift_figure, magnitudes_figure, perplexity_figure
from trimtab.report.figures_overlap import set_overlap_figure, top_overlap_figure, top_overlap_layers_figure
from trimtab.report.figures_tokens import top_tokens_figure, vocabulary_figure
from trimtab.report.palette import BLACK, BLUE, GREY, ORANGE
from trimtab.report.theme import Drawing, bars, blank, padded, sample
from trimtab.report.wording import count, percent, significant

BAND = "rgba(110,118,129,0.14)"
SMALLEST_BIN = 0.002
"""Bins with a smaller share of the neurons may fall outside the picture."""


def draw_analysis(analysis: Analysis) -> list[Drawing]:
    """The figures that an analysis has data for, in reading order."""
    split = analysis.split
    drawings = [
        layer_expected_figure(analysis.layers),
        ratio_figure(analysis.ratios),
        top_overlap_figure(analysis.top_overlap),
        top_overlap_layers_figure(analysis.top_overlap),
    ]
    if analysis.overlaps:
        drawings.append(set_overlap_figure(analysis.overlaps))
    drawings += [vocabulary_figure(analysis.vocabulary), top_tokens_figure(analysis.top_tokens)]
    if analysis.probes is not None:
        drawings.append(layer_probes_figure(analysis.probes))
    drawings.append(drift_figure(analysis.drift, split))
    if analysis.magnitudes is not None:
        drawings.append(magnitudes_figure(analysis.magnitudes, split))
    drawings.append(perplexity_figure(analysis.perplexity, split))
    return drawings


def layer_expected_figure(histogram: LayerHistogram) -> Drawing:
    """Neurons per layer, beside what a random set has."""
    counts = [layer.neurons for layer in histogram.layers]
    subtitle = f"n = {count(histogram.k)} neurons, found on the find split; band: 95 % of random sets"
    figure = blank("Where the neurons sit, and where chance would put them", subtitle, 340)
    figure.add_hrect(y0=histogram.low, y1=histogram.high, fillcolor=BAND, line={"width": 0}, layer="below")
    figure.add_hline(y=histogram.expected, line={"color": GREY, "width": 1.2, "dash": "dot"}, layer="below")
    figure.add_bar(
        x=[str(layer.layer) for layer in histogram.layers],
        y=counts,
        marker={"color": BLUE},
        text=[count(number) if number else "" for number in counts],
        textposition="outside",
        cliponaxis=False,
        hovertext=[
            f"layer {layer.layer}: {layer.neurons} neurons, {percent(layer.share_of_set)} of the set"
            for layer in histogram.layers
        ],
        hoverinfo="text",
    )
    figure.update_layout(bargap=0.3)
    figure.update_xaxes(title="layer (0 is nearest to the input)", type="category", showgrid=False)
    figure.update_yaxes(title="neurons", rangemode="tozero", tickformat="d", nticks=6)
    above = [layer.layer for layer in histogram.layers if layer.neurons > histogram.high]
    where = (
        f"layers {', '.join(map(str, above))} hold" if len(above) > 1 else f"layer {above[0]} holds" if above else "none holds"
    )
    reading = f"A random set has {significant(histogram.expected)} neurons a layer; {where} more than 95 % of random sets do."
    return Drawing("layers-expected", reading, figure)


def ratio_figure(ratios: Ratios) -> Drawing:
    """Activation ratios across and within the classes, as outlines of two histograms on a log axis."""
    traces = f"{count(ratios.n_correct)} correct and {count(ratios.n_incorrect)} incorrect traces of the find split"
    figure = blank(
        "How much more active neurons are in correct traces", f"n = {count(ratios.across.n)} neurons, {traces}; bins of 4 %", 420
    )
    rows = [
        ("within the correct traces (random halves)", ratios.within, GREY, "dot"),
        ("correct over incorrect traces", ratios.across, BLUE, "solid"),
    ]
    for name, distribution, colour, dash in rows:
        figure.add_scatter(
            x=EDGES.tolist(),
            # the last bin ends at its right edge
            y=[*_shares(distribution), 0.0],
            mode="lines",
            line={"color": colour, "width": 2, "dash": dash, "shape": "hv"},
            name=f"{name}: peak {distribution.peak:.2f}, median {distribution.median:.3f}",
            hovertemplate="ratio from %{x:.3f}: %{y:.1%} of the neurons<extra></extra>",
        )
    figure.add_vline(x=THRESHOLD, line={"color": BLACK, "width": 1.2, "dash": "dash"}, layer="below")
    figure.add_annotation(
        x=math.log10(THRESHOLD), y=1, yref="paper", text=f" {THRESHOLD}", showarrow=False, xanchor="left", yanchor="top"
    )
    first, last = _shown_bins(ratios)
    low, high = float(EDGES[first]), float(EDGES[last])
    ticks = [tick for tick in (0.25, 0.33, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 4) if low <= tick <= high]
    figure.update_xaxes(
        title="mean magnitude in one over the other (log scale)",
        type="log",
        range=[math.log10(low), math.log10(high)],
        tickvals=ticks,
        ticktext=[f"{tick:g}" for tick in ticks],
    )
    figure.update_yaxes(title="share of the neurons", tickformat=".0%", rangemode="tozero")
    figure.update_layout(margin={"b": 90})
    outside = ratios.across.n - sum(ratios.across.counts[first:last])
    reading = (
        f"{percent(ratios.across.share_above)} of the neurons have a ratio above {THRESHOLD} across the classes, and "
        f"{percent(ratios.within.share_above)} within one, where there is nothing to find. {_silent(ratios.across)} are left "
        f"out, and {count(outside)} ratios lie outside the picture."
    )
    return Drawing("ratios", reading, figure)


def _shares(distribution: RatioDistribution) -> list[float]:
    return [number / distribution.n for number in distribution.counts]


def _shown_bins(ratios: Ratios) -> tuple[int, int]:
    """First and last bin edge of the picture: around 1, the threshold, and every bin of some size."""
    shares = [max(pair) for pair in zip(_shares(ratios.across), _shares(ratios.within), strict=True)]
    middle = len(shares) // 2
    filled = [i for i, share in enumerate(shares) if share >= SMALLEST_BIN]
    return max(0, min([*filled, middle - 5]) - 2), min(len(shares), max([*filled, middle + 5]) + 3)


def _silent(distribution: RatioDistribution) -> str:
    zeros = distribution.zero_above + distribution.zero_below + distribution.zero_both
    return f"{count(zeros)} neurons that are silent in a class" + (
        f" and {count(distribution.unknown)} of experts without a token" if distribution.unknown else ""
    )


def layer_probes_figure(probes: LayerProbes) -> Drawing:
    """AUROC of a probe on each layer."""
    x = [str(probe.layer) for probe in probes.layers]
    areas = [probe.held_out.value for probe in probes.layers]
    lows, highs = ([getattr(probe.held_out, end) for probe in probes.layers] for end in ("low", "high"))
    failures = f"{count(probes.n_held_out_failed)} failed unsteered"
    subtitle = sample(probes.n_held_out, "tune", f"{failures}; 95 % DeLong intervals")
    figure = blank("Where in the model failure can be foreseen", subtitle, 380)
    figure.add_hline(y=0.5, line={"color": GREY, "width": 1.2, "dash": "dot"}, layer="below")
    figure.add_scatter(
        x=x,
        y=[probe.cross_validated for probe in probes.layers],
        mode="markers",
        marker={"size": 10, "color": ORANGE, "symbol": "diamond-open", "line": {"width": 1.8}},
        name=f"cross-validated, find split (n = {count(probes.n_fit)})",
        hovertemplate="layer %{x}: %{y:.3f}<extra></extra>",
    )
    figure.add_scatter(
        x=x,
        y=areas,
        mode="lines+markers",
        line={"color": BLUE, "width": 1.6},
        marker={"size": 9},
        error_y=bars(areas, lows, highs, BLUE),
        name="held out, tune split",
        hovertext=[
            f"layer {probe.layer}: {probe.held_out.value:.3f} [{probe.held_out.low:.3f}, {probe.held_out.high:.3f}]"
            for probe in probes.layers
        ],
        hoverinfo="text",
    )
    figure.update_xaxes(title="layer (0 is nearest to the input)", type="category", showgrid=False)
    figure.update_yaxes(title="AUROC of p(fail)", range=padded([0.5, *lows, *highs]))
    figure.update_layout(margin={"b": 70})
    best = max(probes.layers, key=lambda probe: probe.held_out.value)
    reading = (
        f"A probe on layer {best.layer} alone, at the last prompt token, foresees failure best: AUROC {best.held_out.value:.3f} "
        f"[{best.held_out.low:.3f}, {best.held_out.high:.3f}]; 0.5 is chance."
    )
    return Drawing("layer-probes", reading, figure)
