"""Figures and tables of ``analyse``: where failure can be foreseen, and what steering moves inside the model."""

from trimtab.analysis import Analysis, Drift, LayerProbes, Magnitudes, PerplexityEffect
from trimtab.results import Cell, Column, Curve, CurvePoint, Curves, Table, bounded
from trimtab.stats.values import Estimate
from trimtab.traces import Split


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
