"""``analyse``: where the neurons sit, what they write, when they are active, and what steering does inside the model.

On train and validation; the test split stays closed.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from trimtab.analysis import (
    Analysis,
    Drift,
    LayerHistogram,
    LayerProbes,
    Magnitudes,
    PairOverlap,
    PromptLabels,
    Ratios,
    TopOverlap,
    TopTokens,
    VocabularyProjection,
)
from trimtab.analysis import analyse as analyse_steering
from trimtab.analysis.activity import TokenHit
from trimtab.analysis.ratios import EDGES, THRESHOLD
from trimtab.analysis.vocabulary import TokenPush
from trimtab.errors import InputError
from trimtab.experiments.comparisons import Part, gathered
from trimtab.experiments.responses import greedy_responses
from trimtab.experiments.search import Search
from trimtab.findings import Cell, Findings, Frame
from trimtab.neurons import Neurons
from trimtab.ranking import CRITERIA, labelled
from trimtab.stats.values import Estimate
from trimtab.traces import Split

RESPONSES = 200
"""At most this many validation problems are answered to see what steering does."""
SHOWN_TOKENS = 5
SHOWN_HITS = 3
SMALLEST_BIN = 0.002
"""Bins with a smaller share of the neurons may fall outside the picture."""
LAYER = "layer (0 is nearest to the input)"


def analyse(search: Search) -> Findings:
    """Everything that is known about the found neurons and their steering."""
    analysis = _analysis(search)
    frames = [layer_frame(analysis.layers), ratio_frame(analysis.ratios), overlap_frame(analysis.top_overlap)]
    if analysis.overlaps:
        frames.append(sets_frame(analysis.overlaps, search.k))
    if analysis.probes is not None:
        frames.append(probe_frame(analysis.probes))
    frames += drift_frames(analysis.drift)
    sentences = [frame.reading for frame in frames]
    frames += [vocabulary_frame(analysis.vocabulary), token_frame(analysis.top_tokens), effect_frame(analysis)]
    if analysis.magnitudes is not None:
        frames.append(magnitude_frame(analysis.magnitudes))
    ratio = analysis.perplexity.change.ratio
    sentences.append(
        f"Steering multiplies the perplexity of the unsteered model's own responses by {ratio.value:.3f} "
        f"[{ratio.low:.3f}, {ratio.high:.3f}] where it acts on every token."
    )
    question = "Where do these neurons sit, what do they write, when are they active, and what does steering them change?"
    part = Part(tuple(frames), tuple(sentences))
    return gathered("analyse", "Analysis of the neurons", question, Split.VALIDATION, [part])


def _analysis(search: Search) -> Analysis:
    if search.class_moments.correct_magnitude is None:
        raise InputError(
            "analyse reads magnitudes, which this run did not record; add 'magnitude' to recording.moments and run it again"
        )
    problems = search.split(Split.VALIDATION)[:RESPONSES]
    contrasted = {row.trace_id for row in search.contrast}
    labels = {split: _labels(search, split) for split in search.prompts}
    return analyse_steering(
        search.model,
        search.steering,
        search.class_moments,
        labelled(search.recording.stream(search.scope), search.contrast),
        [trace for trace in search.traces if trace.id in contrasted],
        greedy_responses(search, problems),
        split=Split.VALIDATION,
        steered=greedy_responses(search, problems, search.steering, "auto"),
        train=labels.get(Split.TRAIN),
        validation=labels.get(Split.VALIDATION),
        sets=_sets(search),
        progress=search.progress,
    )


def _labels(search: Search, split: Split) -> PromptLabels:
    order = [problem.id for problem in search.split(split)]
    return PromptLabels(search.prompts[split].means("last-prompt", order), search.failed[split])


def _sets(search: Search) -> Mapping[str, Neurons]:
    """What every criterion selects at the same K, where it can."""
    sets = {}
    for name in CRITERIA:
        ranking = search.ranking(name)
        if ranking is not None and len(ranking.order) >= search.k:
            sets[name] = search.neurons(name, search.k, seed=search.settings.seed)
    return sets


def layer_frame(histogram: LayerHistogram) -> Frame:
    """Neurons per layer, beside what a random set has."""
    many = [str(layer.layer) for layer in histogram.layers if layer.neurons > histogram.high]
    where = f"layer{'s' if len(many) > 1 else ''} {', '.join(many)} hold{'' if len(many) > 1 else 's'}" if many else "none holds"
    chance = Estimate(histogram.expected, histogram.low, histogram.high)
    rows = []
    for layer in histogram.layers:
        common: dict[str, Cell] = {"label": f"layer {layer.layer}", "n": histogram.k, "unit": "count", "x": layer.layer}
        rows.append({**common, "value": layer.neurons, "low": None, "high": None, "series": "found"})
        rows.append({**common, **_cells(chance), "series": "random sets"})
    return Frame(
        "layers",
        "Where the neurons sit",
        rows,
        plot="bars",
        x_label=LAYER,
        y_label="neurons",
        note="Of n neurons (found on train); intervals: 95 % of random sets.",
        reading=f"A random set has {histogram.expected:.1f} neurons a layer; {where} more than 95 % of random sets do.",
    )


def ratio_frame(ratios: Ratios) -> Frame:
    """Activation ratios across the classes and within one."""
    within, across = ratios.within, ratios.across
    named = {"correct over incorrect": across, "random halves of the correct traces": within}
    shares = {name: np.array(distribution.counts) / distribution.n for name, distribution in named.items()}
    filled = np.flatnonzero(np.maximum(*shares.values()) >= SMALLEST_BIN)
    shown = slice(max(0, filled[0] - 1), filled[-1] + 2)
    centres = np.sqrt(EDGES[1:] * EDGES[:-1])[shown].tolist()
    rows = [
        {
            "label": f"{name}, {x:.3f}",
            "n": named[name].n,
            "value": share,
            "unit": "share",
            "series": f"{name}: peak {named[name].peak:.2f}, median {named[name].median:.3f}",
            "x": x,
        }
        for name in named
        for x, share in zip(centres, shares[name][shown].tolist(), strict=True)
    ]
    return Frame(
        "ratios",
        "How much more active neurons are in correct traces",
        rows,
        plot="curves",
        x_label="mean magnitude in one over the other",
        y_label="share of the neurons",
        mark=THRESHOLD,
        log_x=True,
        note=f"All n neurons; {ratios.n_correct:,} correct and {ratios.n_incorrect:,} incorrect traces (train); bins of 4 %. "
        f"Marked: the threshold {THRESHOLD}.",
        reading=f"{across.share_above:.1%} of the neurons have a ratio above {THRESHOLD} across the classes, and "
        f"{within.share_above:.1%} within the correct one, where there is nothing to find; the peaks are at "
        f"{across.peak:.2f} and {within.peak:.2f} (published: 1.16 and 1.0).",
    )


def overlap_frame(overlap: TopOverlap) -> Frame:
    """How much of the set is among the most activated neurons."""
    rows: list[dict[str, Cell]] = []
    for share, n, p in zip(overlap.shares, overlap.shared, overlap.p, strict=True):
        common: dict[str, Cell] = {"label": f"top {share:.0%}", "unit": "share", "x": share}
        rows.append({**common, "n": overlap.k, "value": n / overlap.k, "p": p, "series": "found"})
        rows.append({**common, "n": None, "value": share, "p": None, "series": "chance"})
    first, last = rows[0], rows[-2]
    return Frame(
        "top-activated",
        "Overlap with the most activated neurons of each layer",
        rows,
        plot="curves",
        x_label="share of a layer that is activated most",
        y_label="share of the set",
        note="Of n neurons (found on train).",
        reading=f"{first['value']:.0%} of the set are among the {first['label']} activated of their layer (p = {first['p']:.2g}) "
        f"and {last['value']:.0%} among the {last['label']} (p = {last['p']:.2g}); chance puts them on the diagonal.",
    )


def sets_frame(overlaps: Sequence[PairOverlap], k: int) -> Frame:
    """Neurons that the criteria share, pair by pair."""
    most = max(overlaps, key=lambda pair: pair.shared)
    chance = float(np.mean([pair.expected for pair in overlaps]))
    rows = [
        {
            "label": f"{pair.first} and {pair.second}",
            "n": k,
            "value": pair.shared,
            "unit": "count",
            "row": pair.first,
            "column": pair.second,
            "chance": pair.expected,
        }
        for pair in overlaps
    ]
    return Frame(
        "criteria",
        f"Neurons that criteria share, of K = {k} each",
        rows,
        plot="matrix",
        note=f"On train; chance shares {chance:.1f}.",
        reading=f"{most.first} and {most.second} share most, {most.shared} of {k}; two random sets share {chance:.1f}.",
    )


def probe_frame(probes: LayerProbes) -> Frame:
    """AUROC of a probe on each layer's activations of the last prompt token."""
    rows = []
    for probe in probes.layers:
        common: dict[str, Cell] = {"label": f"layer {probe.layer}", "unit": "number", "x": probe.layer}
        held_out = {**common, "n": probes.n_held_out, **_cells(probe.held_out), "series": "held out, validation split"}
        folds = {**common, "n": probes.n_fit, "value": probe.cross_validated, "low": None, "high": None}
        rows += [held_out, {**folds, "series": "cross-validated, train split"}]
    best = max(probes.layers, key=lambda probe: probe.held_out.value)
    area = best.held_out
    return Frame(
        "layer-probes",
        "Where in the model failure can be foreseen",
        sorted(rows, key=lambda row: row["series"], reverse=True),
        plot="curves",
        x_label=LAYER,
        y_label="AUROC of p(fail)",
        reference=0.5,
        note=f"{probes.n_held_out_failed} held-out problems failed unsteered; 95 % DeLong intervals.",
        reading=f"A probe on layer {best.layer} alone, at the last prompt token, foresees failure best: AUROC {area.value:.3f} "
        f"[{area.low:.3f}, {area.high:.3f}].",
    )


def drift_frames(drift: Drift) -> list[Frame]:
    """How far the residual stream moves and turns, layer by layer, on the same tokens."""
    end = drift.layers[-1]
    distance = (
        f"After the last layer the residual stream is {end.distance.value:.3f} of its norm away, and its norm is "
        f"{end.norm_ratio.value:.3f} times the unsteered one."
    )
    cosine = (
        f"Its cosine to the unsteered one is {end.cosine.value:.3f}; the next token is another after {drift.changed.value:.1%} "
        f"of the tokens, KL(unsteered || steered) {drift.kl_unsteered_steered.value:.3f} and back "
        f"{drift.kl_steered_unsteered.value:.3f} nats."
    )
    return [
        Frame(
            name,
            f"Drift of the residual stream: {what}",
            [
                {"label": f"layer {i}", "n": drift.n_traces, **_cells(value), "unit": "number", "series": what, "x": i}
                for i, value in values
            ],
            plot="curves",
            x_label="after layer",
            y_label=what,
            reference=unmoved,
            note=f"n responses, {drift.n_tokens:,} response tokens, strength {drift.strength:g}; 95 % bootstrap intervals.",
            reading=reading,
        )
        for name, what, unmoved, values, reading in (
            ("drift-distance", "distance over the unsteered norm", 0.0, [(o.layer, o.distance) for o in drift.layers], distance),
            ("drift-cosine", "cosine", 1.0, [(o.layer, o.cosine) for o in drift.layers], cosine),
        )
    ]


def vocabulary_frame(projection: VocabularyProjection) -> Frame:
    """Which tokens each neuron promotes and demotes."""

    def listed(pushes: Sequence[TokenPush]) -> str:
        return ", ".join(f"{push.token!r} {push.z:+.1f}" for push in pushes[:SHOWN_TOKENS])

    through = f"the final {projection.final_norm} norm" if projection.final_norm else "no final norm"
    return Frame(
        "vocabulary",
        "Tokens that an activation of +1 of each neuron promotes and demotes",
        [
            {"label": neuron.address, "promotes": listed(neuron.promoted), "demotes": listed(neuron.demoted)}
            for neuron in projection.neurons
        ],
        note=f"Direct path to {projection.tokens:,} tokens through {through}; standard deviations from the mean over the "
        "vocabulary. A negative activation promotes what is demoted here.",
    )


def token_frame(hits: TopTokens) -> Frame:
    """At which tokens each neuron stands out."""

    def listed(side: Sequence[TokenHit]) -> str:
        return " | ".join(f"{hit.before}[{hit.token}]{hit.after} {hit.value:+.2f}" for hit in side[:SHOWN_HITS])

    return Frame(
        "top-tokens",
        "Where each neuron stands out in the contrast's responses",
        [
            {"label": neuron.address, "highest": listed(neuron.highest), "lowest": listed(neuron.lowest)}
            for neuron in hits.neurons
        ],
        note=f"Among {hits.n_tokens:,} tokens of {hits.n_traces:,} responses of the train split; the token in brackets, the "
        "activation behind.",
    )


def effect_frame(analysis: Analysis) -> Frame:
    """Drift and perplexity in numbers."""
    drift, effect = analysis.drift, analysis.perplexity
    values = {
        "KL(unsteered || steered) of the next token, nats": drift.kl_unsteered_steered,
        "KL(steered || unsteered), nats": drift.kl_steered_unsteered,
        "share of tokens with another first choice": drift.changed,
        "perplexity, unsteered": effect.unsteered.perplexity,
        "perplexity, steered": effect.steered.perplexity,
        "perplexity, ratio": effect.change.ratio,
    }
    return Frame(
        "effect",
        "What steering changes on the same tokens",
        [{"label": label, "n": drift.n_traces, **_cells(value), "unit": "number"} for label, value in values.items()],
        note=f"n unsteered responses of the {analysis.split} split, read again with the steering on, whatever the gate says; "
        "intervals draw problems. The tokens are the unsteered model's own, so any edit makes them less likely.",
    )


def magnitude_frame(magnitudes: Magnitudes) -> Frame:
    """How active each steered neuron is."""
    rows = [
        {"label": neuron.address, "n": n, **_cells(value), "unit": "number", "series": series}
        for neuron in magnitudes.neurons
        for series, n, value in (
            ("unsteered", magnitudes.n_unsteered, neuron.unsteered),
            ("steered, before the edit", magnitudes.n_steered, neuron.before),
            ("steered, after the edit", magnitudes.n_steered, neuron.after),
        )
    ]
    return Frame(
        "magnitudes",
        "Mean magnitude of the steered neurons",
        rows,
        plot="dots",
        x_label="mean magnitude",
        note="Over n responses, gated. Before the edit a neuron can differ too: the text differs, and earlier layers and tokens "
        "are steered.",
    )


def _cells(estimate: Estimate) -> dict[str, Cell]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}
