"""Figures of an analysis: what sets of neurons share with one another, and with the most active neurons."""

from collections.abc import Sequence

from trimtab.analysis import PairOverlap, TopOverlap
from trimtab.evaluation.statistics import wilson
from trimtab.report.palette import BLUE, GREY
from trimtab.report.theme import Drawing, bars, blank, label
from trimtab.report.wording import count, p_value, percent, significant

ROW = 46
SCALE = [[0.0, "#FFFFFF"], [1.0, BLUE]]


def top_overlap_figure(overlap: TopOverlap) -> Drawing:
    """The set's share among the most activated neurons, over how many count as such."""
    shared = [number / overlap.k for number in overlap.shared]
    ends = [wilson(number, overlap.k) for number in overlap.shared]
    subtitle = f"n = {count(overlap.k)} neurons, correct traces of the find split; 95 % Wilson intervals"
    figure = blank("Are the neurons merely the most active ones?", subtitle, 380)
    figure.add_scatter(
        x=[0, *overlap.shares],
        y=[0, *overlap.shares],
        mode="lines",
        line={"color": GREY, "dash": "dot"},
        name="a random set",
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=list(overlap.shares),
        y=shared,
        mode="lines+markers",
        line={"color": BLUE, "width": 1.8},
        marker={"size": 9},
        error_y=bars(shared, [end.low for end in ends], [end.high for end in ends], BLUE),
        name="these neurons",
        hovertext=[
            f"{number} of {overlap.k} neurons in the top {percent(share)}; p {_p(p)}"
            for number, share, p in zip(overlap.shared, overlap.shares, overlap.p, strict=True)
        ],
        hoverinfo="text",
    )
    figure.update_xaxes(
        title="top activated neurons (share of each layer)", tickformat=".0%", range=[0, overlap.shares[-1] * 1.04]
    )
    figure.update_yaxes(title="share of the set among them", tickformat=".0%", range=[-0.02, 1.02])
    figure.update_layout(margin={"b": 70})
    at = overlap.shares.index(0.1) if 0.1 in overlap.shares else 0
    reading = (
        f"{percent(shared[at])} of the set are among the top {100 * overlap.shares[at]:g} % activated neurons of their layer, "
        f"where chance puts {100 * overlap.shares[at]:g} % (p {_p(overlap.p[at])}); above the dotted line the criterion finds "
        "neurons that are active anyway."
    )
    return Drawing("top-overlap", reading, figure)


def top_overlap_layers_figure(overlap: TopOverlap) -> Drawing:
    """The same layer by layer: the U shape of the paper is high ends and a low middle of a row."""
    shares = overlap.shares
    subtitle = f"n = {count(overlap.k)} neurons, correct traces of the find split; a cell: found of the layer's selected neurons"
    figure = blank("Overlap with the most active neurons of each layer", subtitle, 150 + 30 * len(shares))
    cells = [[layer.shared[i] / layer.neurons if layer.neurons else None for layer in overlap.layers] for i in range(len(shares))]
    many = len(overlap.layers) > 16
    figure.add_heatmap(
        z=cells,
        x=[str(layer.layer) for layer in overlap.layers],
        y=[f"{100 * share:g} %" for share in shares],
        text=[
            [
                str(layer.shared[i]) if many else f"{layer.shared[i]} of {layer.neurons}" if layer.neurons else ""
                for layer in overlap.layers
            ]
            for i in range(len(shares))
        ],
        texttemplate="%{text}",
        zmin=0,
        zmax=1,
        colorscale=SCALE,
        xgap=2,
        ygap=2,
        colorbar={"title": {"text": "overlap"}, "tickformat": ".0%", "thickness": 12, "outlinewidth": 0},
        hovertemplate="layer %{x}, top %{y}: %{z:.0%}<extra></extra>",
    )
    figure.update_xaxes(title="layer (0 is nearest to the input)", type="category", showgrid=False)
    figure.update_yaxes(title="top activated", type="category", showgrid=False, ticks="")
    reading = (
        "A row whose ends are darker than its middle is the U shape that neuron activation differential analysis reports; chance "
        "gives each row its own percentage everywhere, and layers with few selected neurons say little."
    )
    return Drawing("top-overlap-layers", reading, figure)


def set_overlap_figure(overlaps: Sequence[PairOverlap]) -> Drawing:
    """Shared neurons of every two sets, with what chance would share."""
    pairs = "pair" if len(overlaps) == 1 else "pairs"
    subtitle = f"n = {count(len(overlaps))} {pairs} of sets, found on the find split; ring: by chance in the same layers"
    figure = blank("How much the sets share", subtitle, 118 + ROW * len(overlaps))
    rows = list(range(len(overlaps)))
    figure.add_scatter(
        x=[pair.expected_in_layers for pair in overlaps],
        # below the pair's own mark, so that neither hides the other
        y=[row + 0.26 for row in rows],
        mode="markers",
        marker={"size": 9, "color": GREY, "symbol": "circle-open", "line": {"width": 1.6}},
        hovertext=[f"by chance {significant(pair.expected_in_layers)} in the same layers" for pair in overlaps],
        hoverinfo="text",
        showlegend=False,
    )
    figure.add_scatter(
        x=[pair.shared for pair in overlaps],
        y=rows,
        mode="markers+text",
        marker={"size": 11, "color": BLUE},
        text=[f"  {pair.shared} of {min(pair.n_first, pair.n_second)}, Jaccard {pair.jaccard:.2f}" for pair in overlaps],
        textposition="middle right",
        cliponaxis=False,
        hovertext=[f"{pair.shared} shared, p {_p(pair.p_in_layers)} against sets in the same layers" for pair in overlaps],
        hoverinfo="text",
        showlegend=False,
    )
    most = max(min(pair.n_first, pair.n_second) for pair in overlaps)
    figure.update_xaxes(title="shared neurons", range=[-0.04 * most, 1.3 * most])
    figure.update_yaxes(
        tickvals=rows,
        ticktext=[f"{label(pair.first)} ({pair.n_first})<br>{label(pair.second)} ({pair.n_second})  " for pair in overlaps],
        range=[len(overlaps) - 0.4, -0.6],
        showgrid=False,
        ticks="",
    )
    closest = max(overlaps, key=lambda pair: pair.jaccard)
    reading = (
        f"{label(closest.first)} and {label(closest.second)} agree most: {closest.shared} shared neurons, where chance shares "
        f"{significant(closest.expected_in_layers)} in the same layers (p {_p(closest.p_in_layers)})."
    )
    return Drawing("set-overlap", reading, figure)


def _p(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"
