"""``analyse``: what the neurons are, and what steering does inside the model. On train and validation; the test split stays
closed."""

from collections.abc import Mapping, Sequence

import numpy as np

from trimtab.analysis import (
    Analysis,
    Drift,
    LayerHistogram,
    LayerProbes,
    Magnitudes,
    PairOverlap,
    PerplexityEffect,
    PromptLabels,
    Ratios,
    TopOverlap,
    TopTokens,
    VocabularyProjection,
)
from trimtab.analysis import analyse as analyse_steering
from trimtab.analysis.ratios import EDGES, THRESHOLD, RatioDistribution
from trimtab.analysis.top_tokens import TokenHit
from trimtab.analysis.vocabulary import TokenPush
from trimtab.errors import InputError
from trimtab.experiments.responses import greedy_chains
from trimtab.experiments.workbench import Workbench
from trimtab.neurons import Neurons
from trimtab.ranking import CRITERIA, labelled
from trimtab.results import (
    Bar,
    Bars,
    Cell,
    Column,
    Curve,
    CurvePoint,
    Curves,
    Figure,
    Matrix,
    Point,
    Result,
    Series,
    Table,
    bounded,
)
from trimtab.stats.values import Estimate
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


def probe_figure(probes: LayerProbes) -> Curves:
    """AUROC of a probe on each layer's activations of the last prompt token."""
    held_out = [CurvePoint(x=p.layer, value=p.held_out.value, low=p.held_out.low, high=p.held_out.high) for p in probes.layers]
    folds = [CurvePoint(x=p.layer, value=p.cross_validated) for p in probes.layers]
    best = max(probes.layers, key=lambda probe: probe.held_out.value)
    area = best.held_out
    return Curves(
        name="layer-probes",
        title="Where in the model failure can be foreseen",
        n=probes.n_held_out,
        split=Split.VALIDATION,
        detail=f"{probes.n_held_out_failed} failed unsteered; 95 % DeLong intervals",
        reading=(
            f"A probe on layer {best.layer} alone, at the last prompt token, foresees failure best: AUROC {area.value:.3f} "
            f"[{area.low:.3f}, {area.high:.3f}]."
        ),
        x_label="layer (0 is nearest to the input)",
        y_label="AUROC of p(fail)",
        unit="number",
        x_unit="count",
        curves=(
            Curve(label="held out, validation split", points=tuple(held_out)),
            Curve(label=f"cross-validated, train split (n = {probes.n_fit:,})", points=tuple(folds)),
        ),
        reference=0.5,
    )


def drift_figures(drift: Drift, split: str) -> tuple[Curves, ...]:
    """How far the residual stream moves and turns, layer by layer, on the same tokens."""
    detail = f"{drift.n_tokens:,} response tokens, strength {drift.strength:g}; 95 % bootstrap intervals"
    end = drift.layers[-1]
    kinds = (
        ("drift-distance", "distance over the unsteered norm", 0.0, [(layer.layer, layer.distance) for layer in drift.layers]),
        ("drift-cosine", "cosine", 1.0, [(layer.layer, layer.cosine) for layer in drift.layers]),
    )
    readings = (
        f"After the last layer the residual stream is {end.distance.value:.3f} of its norm away, and its "
        f"norm is {end.norm_ratio.value:.3f} times the unsteered one.",
        f"Its cosine to the unsteered one is {end.cosine.value:.3f}; the next token is another after {drift.changed.value:.1%} "
        f"of the tokens, KL(unsteered || steered) {drift.kl_unsteered_steered.value:.3f} and back "
        f"{drift.kl_steered_unsteered.value:.3f} nats.",
    )
    return tuple(
        Curves(
            name=name,
            title=f"Drift of the residual stream: {what}",
            n=drift.n_traces,
            of="chains",
            split=split,
            detail=detail,
            reading=reading,
            x_label="after layer",
            y_label=what,
            unit="number",
            x_unit="count",
            curves=(Curve(label=what, points=tuple(_point(layer, estimate) for layer, estimate in values)),),
            reference=unmoved,
        )
        for (name, what, unmoved, values), reading in zip(kinds, readings, strict=True)
    )


def effect_table(analysis: Analysis) -> Table:
    """Drift and perplexity in numbers."""
    drift, effect = analysis.drift, analysis.perplexity
    rows: list[tuple[Cell, ...]] = [
        ("KL(unsteered || steered) of the next token, nats", *_cells(drift.kl_unsteered_steered)),
        ("KL(steered || unsteered), nats", *_cells(drift.kl_steered_unsteered)),
        ("share of tokens with another first choice", *_cells(drift.changed)),
        ("perplexity, unsteered", *_cells(effect.unsteered.perplexity)),
        ("perplexity, steered", *_cells(effect.steered.perplexity)),
        ("perplexity, ratio", *_cells(effect.change.ratio)),
    ]
    return Table(
        name="effect",
        title="What steering changes on the same tokens",
        columns=(Column(name="what"), *bounded("value")),
        rows=tuple(rows),
        note=(
            f"{drift.n_traces:,} unsteered responses of the {analysis.split} split, read again with the steering on, whatever "
            "the gate says; intervals draw problems. The tokens are the bare model's own, so any edit makes them less likely."
        ),
    )


def magnitude_table(magnitudes: Magnitudes) -> Table:
    """How active each steered neuron is."""
    rows = [(n.address, *_cells(n.unsteered), *_cells(n.before), *_cells(n.after)) for n in magnitudes.neurons]
    return Table(
        name="magnitudes",
        title="Mean magnitude of the steered neurons",
        columns=(
            Column(name="neuron"),
            *bounded("unsteered"),
            *bounded("steered, before the edit"),
            *bounded("steered, after the edit"),
        ),
        rows=tuple(rows),
        note=(
            f"{magnitudes.n_unsteered:,} unsteered and {magnitudes.n_steered:,} steered responses, gated. Before the edit a "
            "neuron can differ too: the text differs, and earlier layers and tokens are steered."
        ),
    )


def perplexity_finding(effect: PerplexityEffect) -> str:
    """One sentence."""
    ratio = effect.change.ratio
    return (
        f"Steering multiplies the perplexity of the bare model's own chains by {ratio.value:.3f} "
        f"[{ratio.low:.3f}, {ratio.high:.3f}] where it acts on every token."
    )


def _point(x: float, estimate: Estimate) -> CurvePoint:
    return CurvePoint(x=x, value=estimate.value, low=estimate.low, high=estimate.high)


def _cells(estimate: Estimate) -> tuple[Cell, Cell, Cell]:
    return estimate.value, estimate.low, estimate.high


CHAINS = 200
"""At most so many tune problems are answered for what steering does."""


def analyse(bench: Workbench) -> Result:
    """Everything that is known about the found neurons and their steering."""
    analysis = _analysis(bench)
    figures: list[Figure] = [
        layer_figure(analysis.layers),
        ratio_figure(analysis.ratios),
        overlap_figure(analysis.top_overlap),
    ]
    if analysis.overlaps:
        figures.append(sets_figure(analysis.overlaps, bench.k))
    tables: list[Table] = [vocabulary_table(analysis.vocabulary), token_table(analysis.top_tokens)]
    if analysis.probes is not None:
        figures.append(probe_figure(analysis.probes))
    figures += drift_figures(analysis.drift, analysis.split)
    tables.append(effect_table(analysis))
    if analysis.magnitudes is not None:
        tables.append(magnitude_table(analysis.magnitudes))
    return Result(
        name="analyse",
        title="Analysis of the neurons",
        question="Where do these neurons sit, what do they write, when are they active, and what does steering them change?",
        findings=(*(figure.reading for figure in figures), perplexity_finding(analysis.perplexity)),
        split=analysis.split,
        tables=tuple(tables),
        figures=tuple(figures),
    )


def _analysis(bench: Workbench) -> Analysis:
    if bench.class_moments.correct_magnitude is None:
        raise InputError(
            "analyse reads magnitudes, which this run did not record; add 'magnitude' to recording.moments and run it again"
        )
    problems = bench.split(Split.VALIDATION)[:CHAINS]
    contrasted = {row.trace_id for row in bench.contrast}
    labels = {split: _labels(bench, split) for split in bench.prompts}
    return analyse_steering(
        bench.model,
        bench.steering,
        bench.class_moments,
        labelled(bench.recording.stream(bench.scope), bench.contrast),
        [trace for trace in bench.traces if trace.id in contrasted],
        greedy_chains(bench, problems),
        split=Split.VALIDATION,
        steered=greedy_chains(bench, problems, bench.steering, "auto"),
        train=labels.get(Split.TRAIN),
        validation=labels.get(Split.VALIDATION),
        sets=_sets(bench),
        progress=bench.progress,
    )


def _labels(bench: Workbench, split: Split) -> PromptLabels:
    order = [problem.id for problem in bench.split(split)]
    return PromptLabels(bench.prompts[split].means("last-prompt", order), bench.failed[split])


def _sets(bench: Workbench) -> Mapping[str, Neurons]:
    """What every criterion selects at the same K, where it can."""
    sets = {}
    for name in CRITERIA:
        ranking = bench.ranking(name)
        if ranking is not None and len(ranking.order) >= bench.k:
            sets[name] = bench.neurons(name, bench.k, seed=bench.settings.seed)
    return sets
