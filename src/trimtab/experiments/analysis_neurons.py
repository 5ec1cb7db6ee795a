"""Figures and tables of ``analyse``: where the neurons sit, how active they are, what they write and when."""

from collections.abc import Sequence

import numpy as np

from trimtab.analysis import LayerHistogram, PairOverlap, Ratios, TopOverlap, TopTokens, VocabularyProjection
from trimtab.analysis.activity import TokenHit
from trimtab.analysis.ratios import EDGES, THRESHOLD, RatioDistribution
from trimtab.analysis.vocabulary import TokenPush
from trimtab.results import Bar, Bars, Column, Curve, CurvePoint, Curves, Matrix, Point, Series, Table
from trimtab.traces import Split

SHOWN_TOKENS = 5
SHOWN_HITS = 3
SMALLEST_BIN = 0.002
"""Bins with a smaller share of the neurons may fall outside the picture."""


def layer_figure(histogram: LayerHistogram) -> Bars:
    """Neurons per layer, beside what a random set has."""
    names = [str(layer.layer) for layer in histogram.layers]
    found = [Bar(x=name, value=layer.neurons) for name, layer in zip(names, histogram.layers, strict=True)]
    chance = [Bar(x=name, value=histogram.expected, low=histogram.low, high=histogram.high) for name in names]
    many = [name for name, layer in zip(names, histogram.layers, strict=True) if layer.neurons > histogram.high]
    where = (
        f"layer{'s' if len(many) > 1 else ''} {', '.join(many)} hold" + ("" if len(many) > 1 else "s") if many else "none holds"
    )
    return Bars(
        name="layers",
        title="Where the neurons sit",
        n=histogram.k,
        of="neurons",
        split=Split.TRAIN,
        detail="intervals: 95 % of random sets",
        reading=f"A random set has {histogram.expected:.1f} neurons a layer; {where} more than 95 % of random sets do.",
        x_label="layer (0 is nearest to the input)",
        y_label="neurons",
        unit="count",
        series=(Series(label="found", bars=tuple(found)), Series(label="random sets", bars=tuple(chance))),
    )


def ratio_figure(ratios: Ratios) -> Curves:
    """Activation ratios across the classes and within one."""
    within, across = ratios.within, ratios.across
    centres = np.sqrt(EDGES[1:] * EDGES[:-1])
    shares = [np.array(d.counts) / d.n for d in (within, across)]
    filled = np.flatnonzero(np.maximum(*shares) >= SMALLEST_BIN)
    shown = slice(max(0, filled[0] - 1), filled[-1] + 2)

    def curve(label: str, distribution: RatioDistribution, share: np.ndarray) -> Curve:
        points = [CurvePoint(x=x, value=y) for x, y in zip(centres[shown].tolist(), share[shown].tolist(), strict=True)]
        return Curve(label=f"{label}: peak {distribution.peak:.2f}, median {distribution.median:.3f}", points=tuple(points))

    return Curves(
        name="ratios",
        title="How much more active neurons are in correct traces",
        n=across.n,
        of="neurons",
        split=Split.TRAIN,
        detail=f"{ratios.n_correct:,} correct and {ratios.n_incorrect:,} incorrect traces; bins of 4 %",
        reading=(
            f"{across.share_above:.1%} of the neurons have a ratio above {THRESHOLD} across the classes, and "
            f"{within.share_above:.1%} within the correct one, where there is nothing to find; the peaks are at "
            f"{across.peak:.2f} and {within.peak:.2f} (published: 1.16 and 1.0)."
        ),
        x_label="mean magnitude in one over the other (log scale)",
        y_label="share of the neurons",
        unit="percent",
        log_x=True,
        curves=(
            curve("correct over incorrect", across, shares[1]),
            curve("random halves of the correct traces", within, shares[0]),
        ),
        mark=THRESHOLD,
        mark_label=f"threshold {THRESHOLD}",
    )


def overlap_figure(overlap: TopOverlap) -> Curves:
    """How much of the set is among the most activated neurons."""
    found = [CurvePoint(x=s, value=n / overlap.k) for s, n in zip(overlap.shares, overlap.shared, strict=True)]
    chance = [CurvePoint(x=s, value=s) for s in overlap.shares]
    first, last = found[0], found[-1]
    return Curves(
        name="top-activated",
        title="Overlap with the most activated neurons of each layer",
        n=overlap.k,
        of="neurons",
        split=Split.TRAIN,
        reading=(
            f"{first.value:.0%} of the set are among the top {first.x:.0%} activated of their layer (p = {overlap.p[0]:.2g}) and "
            f"{last.value:.0%} among the top {last.x:.0%} (p = {overlap.p[-1]:.2g}); chance puts them on the diagonal."
        ),
        x_label="top activated share of a layer",
        y_label="share of the set",
        unit="percent",
        x_unit="percent",
        curves=(Curve(label="found", points=tuple(found)), Curve(label="chance", points=tuple(chance))),
    )


def sets_figure(overlaps: Sequence[PairOverlap], k: int) -> Matrix:
    """Neurons that the criteria share, pair by pair."""
    names = list(dict.fromkeys(name for pair in overlaps for name in (pair.first, pair.second)))
    shared = {frozenset((pair.first, pair.second)): pair for pair in overlaps}
    cells = [[Point(value=shared[frozenset((a, b))].shared) if a != b else None for b in names] for a in names]
    most = max(overlaps, key=lambda pair: pair.shared)
    chance = float(np.mean([pair.expected for pair in overlaps]))
    return Matrix(
        name="criteria",
        title=f"Neurons that criteria share, of K = {k} each",
        n=k,
        of="neurons",
        split=Split.TRAIN,
        detail=f"chance shares {chance:.1f}",
        reading=f"{most.first} and {most.second} share most, {most.shared} of {k}; two random sets share {chance:.1f}.",
        row_label="",
        column_label="",
        unit="count",
        rows=tuple(names),
        columns=tuple(names),
        cells=tuple(map(tuple, cells)),
        diverging=False,
    )


def vocabulary_table(projection: VocabularyProjection) -> Table:
    """Which tokens each neuron promotes and demotes."""

    def listed(pushes: Sequence[TokenPush]) -> str:
        return ", ".join(f"{push.token!r} {push.z:+.1f}" for push in pushes[:SHOWN_TOKENS])

    through = f"the final {projection.final_norm} norm" if projection.final_norm else "no final norm"
    return Table(
        name="vocabulary",
        title="What each neuron writes: tokens that an activation of +1 promotes and demotes",
        columns=(Column(name="neuron"), Column(name="promotes"), Column(name="demotes")),
        rows=tuple((neuron.address, listed(neuron.promoted), listed(neuron.demoted)) for neuron in projection.neurons),
        note=(
            f"Direct path to {projection.tokens:,} tokens through {through}; standard deviations from the mean over the "
            "vocabulary. A negative activation promotes what is demoted here."
        ),
    )


def token_table(hits: TopTokens) -> Table:
    """At which tokens each neuron stands out."""

    def listed(side: Sequence[TokenHit]) -> str:
        return " | ".join(f"{hit.before}[{hit.token}]{hit.after} {hit.value:+.2f}" for hit in side[:SHOWN_HITS])

    return Table(
        name="top-tokens",
        title="Where each neuron stands out in the contrast's chains",
        columns=(Column(name="neuron"), Column(name="highest"), Column(name="lowest")),
        rows=tuple((neuron.address, listed(neuron.highest), listed(neuron.lowest)) for neuron in hits.neurons),
        note=(
            f"Among {hits.n_tokens:,} response tokens of {hits.n_traces:,} chains of the train split; the token in brackets, the "
            "activation behind."
        ),
    )
