"""What ``sweep`` varies: one thing at a time, everything else as ``tune`` chose it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple, get_args

import numpy as np

from trimtab.experiments.choosing import PUBLISHED_STRENGTH
from trimtab.experiments.workbench import Workbench
from trimtab.gate import ALWAYS
from trimtab.interventions import ENHANCEMENT, scale
from trimtab.neurons import Neurons
from trimtab.ranking import CRITERIA, rank
from trimtab.ranking.criteria import activation_ratio
from trimtab.steering import PositionScope, Steering

PUBLISHED_K = 50
PUBLISHED_THRESHOLD = 1.15
PUBLISHED_FACTOR = 1.1
GATED, UNGATED = "gated", "always"


class Setting(NamedTuple):
    """One value of what is varied, and the steering that it makes, without its gate."""

    label: str
    x: float
    steering: Steering


class Series(NamedTuple):
    """Settings under one view: behind the gate (*gated*), or steered on every problem (*always*)."""

    label: str
    settings: tuple[Setting, ...]
    gated: bool


class Axis(NamedTuple):
    """One thing that is varied.

    Args:
        title: what it is, as a reader calls it.
        series: the first holds every setting.
        chosen, published: the value that tune chose and the one that the papers use, on this axis; None if there is none.
        note: what a reader must know about its values.
    """

    name: str
    title: str
    kind: Literal["curves", "dots"]
    series: tuple[Series, ...]
    log_x: bool = False
    chosen: float | None = None
    published: float | None = None
    note: str = ""


def axes(bench: Workbench) -> list[Axis]:
    """All of them; one that has no value to try is left out."""
    made = [_k(bench), _strength(bench), _threshold(bench), _factor(bench), _scope(bench), _layers(bench)]
    return [axis for axis in made if any(series.settings for series in axis.series)]


def _k(bench: Workbench) -> Axis:
    ranked = _ranked(bench)
    sizes = sorted({k for k in (*bench.settings.sweep.k, *bench.tune.k, PUBLISHED_K) if k <= len(ranked)} | {bench.k})
    settings = [Setting(f"K = {k}", k, bench.steering if k == bench.k else bench.always(ranked.top(k))) for k in sizes]
    return Axis(
        name="k",
        title="number of neurons K",
        kind="curves",
        series=_views(bench, settings),
        log_x=True,
        chosen=bench.k,
        published=PUBLISHED_K,
        note="The strength stays, so more neurons also push harder.",
    )


def _strength(bench: Workbench) -> Axis:
    chosen = bench.steering.strength
    tried = {PUBLISHED_STRENGTH, chosen, *bench.tune.strengths, *(f * chosen for f in bench.settings.sweep.strengths)}
    values = sorted(tried)
    settings = [Setting(f"strength {value:g}", value, bench.steering.with_strength(value)) for value in values]
    return Axis(
        name="strength",
        title="strength",
        kind="curves",
        series=_views(bench, settings),
        log_x=values[0] > 0,
        chosen=chosen,
        published=PUBLISHED_STRENGTH,
    )


def _threshold(bench: Workbench) -> Axis:
    """All neurons above the threshold, as published; under what tune chose, and amplified as published."""
    chosen, enhanced = [], []
    if bench.class_moments.correct_magnitude is not None:
        for threshold in sorted({*bench.settings.sweep.thresholds, PUBLISHED_THRESHOLD}):
            criterion = partial(activation_ratio, threshold=threshold)
            n = len(criterion(bench.class_moments).order)
            if n:
                name = f"activation-ratio-{threshold:g}"
                neurons = rank(bench.class_moments, criterion, n, bench.model.identity, name=name)
                chosen.append(Setting(f"ratio > {threshold:g}", threshold, bench.always(neurons)))
                enhanced.append(Setting(f"ratio > {threshold:g}", threshold, bench.always(neurons, 1.0, scale)))
    view = _views(bench, chosen)[0]
    label = f"{bench.steering.facts['intervention']}, {view.label}"
    return Axis(
        name="threshold",
        title="ratio threshold",
        kind="curves",
        series=(
            view._replace(label=label),
            Series(f"amplified by {PUBLISHED_FACTOR:g}, {UNGATED}", tuple(enhanced), gated=False),
        ),
        published=PUBLISHED_THRESHOLD,
        note="Every neuron of the top 10 % by activation ratio whose ratio is above the threshold: K falls along it.",
    )


def _factor(bench: Workbench) -> Axis:
    """The intervention ``scale`` on the found neurons, and on as many by the ratio that it was published with."""
    factors = sorted({*bench.settings.sweep.factors, PUBLISHED_FACTOR})

    def scaled(neurons: Neurons) -> list[Setting]:
        return [Setting(f"factor {f:g}", f, bench.always(neurons, (f - 1) / ENHANCEMENT, scale)) for f in factors]

    series = [*_views(bench, scaled(bench.neurons(bench.criterion, bench.k)), "found neurons, ")]
    ranking = bench.ranking("activation-ratio")
    if ranking is not None and len(ranking.order) and bench.criterion != "activation-ratio":
        neurons = bench.neurons("activation-ratio", min(bench.k, len(ranking.order)))
        label = f"by activation ratio, {UNGATED}"
        series.append(Series(label, tuple(scaled(neurons)), gated=False))
    return Axis(
        name="scale",
        title="factor of the intervention scale",
        kind="curves",
        series=tuple(series),
        chosen=1 + ENHANCEMENT * bench.steering.strength if bench.intervention is scale else None,
        published=PUBLISHED_FACTOR,
    )


def _scope(bench: Workbench) -> Axis:
    """Ungated where a gate that reads the prompt forbids the scope; all scopes are then also run ungated, which is fair."""
    ungated = bench.steering.with_gate(ALWAYS)
    settings = [Setting(scope, i, replace(ungated, scope=scope)) for i, scope in enumerate(get_args(PositionScope))]
    series = [Series(UNGATED, tuple(settings), gated=False)]
    if bench.steering.gate.reads:
        allowed = tuple(setting for setting in settings if setting.label == bench.steering.scope)
        series.append(Series(GATED, allowed, gated=True))
    return Axis(
        name="scope",
        title="position scope",
        kind="dots",
        series=tuple(series),
        chosen=float(get_args(PositionScope).index(bench.steering.scope)),
        note="A gate that reads the prompt can only steer what is generated after it: wider scopes are compared without it.",
    )


def _layers(bench: Workbench) -> Axis:
    """The best neurons of some of the layers, as many as were chosen where the criterion finds so many there."""
    n_layers = bench.steering.model.n_layers
    ranked = _ranked(bench)
    settings = [Setting("all layers", 0, bench.steering)]
    for label, layers in layer_subsets(n_layers, bench.settings.sweep.layer_bands):
        rows = np.flatnonzero(np.isin(ranked.layer, layers))[: bench.k]
        if len(rows):
            settings.append(Setting(label, len(settings), bench.always(ranked.take(rows))))
    return Axis(
        name="layers",
        title="layers",
        kind="dots",
        series=_views(bench, settings)[:1],
        chosen=0,
        note="Layers count from 0. Each row steers the best neurons within its layers, also where the full set has few there.",
    )


def layer_subsets(n_layers: int, bands: int) -> list[tuple[str, list[int]]]:
    """Each layer (or band of neighbours, where there are more layers than bands) alone and left out, and the two halves.

    Example:
        >>> [label for label, _ in layer_subsets(2, 8)]
        ['layer 0 alone', 'layer 1 alone']
    """
    groups = [part.tolist() for part in np.array_split(np.arange(n_layers), min(bands, n_layers))]
    if len(groups) == 1:
        return []
    names = [f"layer {g[0]}" if len(g) == 1 else f"layers {g[0]} to {g[-1]}" for g in groups]
    subsets = [(f"{name} alone", group) for name, group in zip(names, groups, strict=True)]
    if len(groups) > 2:  # of two, leaving one out is taking the other alone
        everything, half = set(range(n_layers)), n_layers // 2
        subsets += [(f"without {name}", sorted(everything - set(g))) for name, g in zip(names, groups, strict=True)]
        subsets += [("first half", list(range(half))), ("second half", list(range(half, n_layers)))]
    return subsets


def _views(bench: Workbench, settings: Sequence[Setting], prefix: str = "") -> tuple[Series, ...]:
    """Behind the gate first, where there is one that reads the prompt."""
    always = Series(prefix + UNGATED, tuple(settings), gated=False)
    return (Series(prefix + GATED, tuple(settings), gated=True), always) if bench.steering.gate.reads else (always,)


def _ranked(bench: Workbench) -> Neurons:
    """All that the chosen criterion finds, best first."""
    return bench.neurons(bench.criterion, len(CRITERIA[bench.criterion](bench.class_moments).order))
