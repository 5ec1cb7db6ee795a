"""``sweep``: how K, strength, threshold, factor, scope and layers change the gain, one at a time, on the validation split
alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal, NamedTuple, get_args

import numpy as np

from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.verdict import paired
from trimtab.experiments.comparisons import GAIN, PUBLISHED_STRENGTH, Part, Row, gain_words, gathered
from trimtab.experiments.search import Search
from trimtab.findings import Cell, Findings, Frame
from trimtab.gate import ALWAYS, RandomOpening
from trimtab.interventions import ENHANCEMENT, scale
from trimtab.neurons import Neurons
from trimtab.ranking import CRITERIA, rank
from trimtab.ranking.criteria import activation_ratio
from trimtab.stats.values import PairedComparison
from trimtab.steering import PositionScope, Steering
from trimtab.traces import Problem, Split

PUBLISHED_K = 50
PUBLISHED_THRESHOLD = 1.15
PUBLISHED_FACTOR = 1.1
GATED, UNGATED = "gated", "always"


class Setting(NamedTuple):
    """One value of the varied setting, and its steering without the gate."""

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
        title: as a reader calls it.
        series: the first holds every setting.
        chosen, published: the value that tune chose and the one that the papers use, on this axis; None if there is none.
        note: what a reader must know about its values.
    """

    name: str
    title: str
    plot: Literal["curves", "dots"]
    series: tuple[Series, ...]
    log_x: bool = False
    chosen: float | None = None
    published: float | None = None
    note: str = ""


class Measured(NamedTuple):
    """A setting, its gain over the unsteered model, and over the chosen point in the same view (None: it is that point)."""

    setting: Setting
    gain: PairedComparison
    against: PairedComparison | None


Views = list[tuple[Series, list[Measured]]]


def sweep(search: Search) -> Findings:
    """Vary one setting at a time around the point that tune chose.

    The test split is never read, so nothing here may be used to choose again and be reported as if it had not been.
    """
    answers = ValidationAnswers(search, search.split(Split.VALIDATION)[: search.settings.sweep.problems])
    parts = [Part(sentences=(optimism(answers),))]
    if search.class_moments.correct_magnitude is None:
        missing = "Mean magnitudes were not recorded, so there is no ratio and its threshold is not swept."
        parts.append(Part(sentences=(missing,)))
    for axis in axes(search):
        views = measure(axis, answers)
        parts.append(Part((sweep_frame(axis, views),), (axis_words(axis, views),)))
    question = "How much does each setting matter, and does the chosen point stand on a plateau or on a peak?"
    return gathered("sweep", "Sweeps around the chosen point", question, Split.VALIDATION, parts)


@dataclass(frozen=True)
class ValidationAnswers:
    """Answers to problems of the validation split under any steering.

    A hard gate reads the prompt before anything is steered, so the answers behind it are put together: those of the steering that
    is always on where it fires, those of the unsteered model elsewhere. One run serves both views.
    """

    search: Search
    problems: Sequence[Problem]

    @cached_property
    def base(self) -> list[Outcome]:
        return self.search.answers(Split.VALIDATION, None, problems=self.problems, label="unsteered")

    @cached_property
    def fires(self) -> list[bool]:
        """For which problems a gate that reads the prompt fires."""
        outcomes = self.search.answers(Split.VALIDATION, self.search.steering, "auto", self.problems, "gate")
        p_fail = np.array([float(outcome.p_fail) for outcome in outcomes])  # type: ignore[arg-type]  # such a gate has one
        gate = self.search.steering.gate
        assert not isinstance(gate, RandomOpening)
        return (gate.value(p_fail) > 0).tolist()

    def under(self, steering: Steering, gated: bool, label: str = "") -> list[Outcome]:
        """Answers with the steering always on, or behind the gate of the chosen point."""
        gate = self.search.steering.gate
        if gated and gate.mode == "proportional":
            return self.search.answers(Split.VALIDATION, steering.with_gate(gate), "auto", self.problems, label)
        steered = self.search.answers(Split.VALIDATION, steering, "on", self.problems, label)
        if not gated:
            return steered
        return [s if fires else b for s, b, fires in zip(steered, self.base, self.fires, strict=True)]


def measure(axis: Axis, answers: ValidationAnswers) -> Views:
    """Every setting of an axis."""
    return [(series, [_measured(axis, series, setting, answers) for setting in series.settings]) for series in axis.series]


def _measured(axis: Axis, series: Series, setting: Setting, answers: ValidationAnswers) -> Measured:
    chosen = answers.search.steering
    outcomes = answers.under(setting.steering, series.gated, axis.title)
    gain = paired(answers.base, outcomes, answers.search.clusters)
    if is_chosen(setting, chosen):
        return Measured(setting, gain, None)
    return Measured(setting, gain, paired(answers.under(chosen, series.gated, "chosen point"), outcomes, answers.search.clusters))


def is_chosen(setting: Setting, chosen: Steering) -> bool:
    """Whether a setting is the point that tune chose, whatever its gate."""
    return setting.steering.scope == chosen.scope and setting.steering.with_gate(chosen.gate).digest == chosen.digest


def sweep_frame(axis: Axis, views: Views) -> Frame:
    """Every setting under every view, and the accuracy of the unsteered model beside it."""
    return Frame(
        axis.name,
        f"Sweep: {axis.title}",
        [_cells(series, m) for series, measured in views for m in measured],
        plot=axis.plot,
        x_label=axis.title if axis.plot == "curves" else GAIN,
        y_label=GAIN if axis.plot == "curves" else "",
        reference=0.0,
        mark=axis.chosen if axis.plot == "curves" else None,
        log_x=axis.log_x,
        note=f"The point was chosen on this split, so the figures are optimistic and no p is given. {axis.note}".strip(),
        reading="Everything else stays as tune chose it; the line is the unsteered model.",
    )


def _cells(series: Series, m: Measured) -> dict[str, Cell]:
    """One setting; ``against`` is its difference from the chosen point."""
    row = {**Row(m.setting.label, (m.gain,)).cells(series.label), "p": None}
    against = (None,) * 3 if m.against is None else (m.against.gain, m.against.gain_low, m.against.gain_high)
    row |= zip(("against", "against_low", "against_high"), against, strict=True)
    row |= {"unsteered": m.gain.base_accuracy, "unsteered_low": m.gain.base_low, "unsteered_high": m.gain.base_high}
    return row | {"x": float(m.setting.x), "neurons": len(m.setting.steering), "chosen": m.against is None}


def optimism(answers: ValidationAnswers) -> str:
    """What the chosen point gains where it was chosen, and on the problems of the split that had no say in it."""
    search, n = answers.search, len(answers.problems)
    outcomes = answers.under(search.steering, search.steering.gate.reads, "chosen point")
    used = min(search.tune.problems, n)
    start = f"All figures are of {n} problems of the validation split, and the test split was not read."
    chosen_on = gain_words(paired(answers.base[:used], outcomes[:used], search.clusters))
    if used == n:
        return f"{start} The point was chosen on these problems, so its gain is optimistic: {chosen_on}."
    held_out = gain_words(paired(answers.base[used:], outcomes[used:], search.clusters))
    return (
        f"{start} The point was chosen on the first {used}, where choosing makes its gain optimistic: {chosen_on}; "
        f"on the other {n - used}, which had no say in it beyond the gate's threshold, {held_out}."
    )


def axis_words(axis: Axis, views: Views) -> str:
    """The result of every view in words, the first one in full."""
    parts = [_view_words(axis, series, measured, full=i == 0) for i, (series, measured) in enumerate(views) if measured]
    return f"{axis.title[0].upper()}{axis.title[1:]}: {'; '.join(parts)}."


def _view_words(axis: Axis, series: Series, measured: list[Measured], full: bool) -> str:
    """Best and worst setting; ``full`` adds the published one and those that are as good as the chosen one."""
    if all(_holds_zero(m.gain) for m in measured):
        return f"{series.label}, no evidence of an effect at any of {len(measured)} settings"
    best, worst = (pick(measured, key=lambda m: m.gain.gain) for pick in (max, min))
    words = [f"{series.label}, best {_setting_words(best)}"]
    words += [f"worst {_setting_words(worst)}"] if worst is not best else []
    others = [m for m in measured if m.against is not None]
    if full and best in others:
        words += [_setting_words(m) for m in measured if m.against is None]
    if full:
        words += [f"published {_setting_words(m)}" for m in others if m.setting.x == axis.published]
    if len(others) < len(measured) and others:
        alike = [m.setting.label for m in others if m.against is not None and _holds_zero(m.against)]
        named = f" ({', '.join(alike)})" if alike else ""
        words.append(f"no evidence of a difference from the chosen point at {len(alike)} of {len(others)} others{named}")
    return ", ".join(words)


def _setting_words(m: Measured) -> str:
    return f"{m.setting.label}{' (chosen)' if m.against is None else ''} {gain_words(m.gain)}"


def _holds_zero(comparison: PairedComparison) -> bool:
    return comparison.gain_low <= 0 <= comparison.gain_high


def axes(search: Search) -> list[Axis]:
    """All of them; one that has no value to try is left out."""
    made = [_k(search), _strength(search), _threshold(search), _factor(search), _scope(search), _layers(search)]
    return [axis for axis in made if any(series.settings for series in axis.series)]


def _k(search: Search) -> Axis:
    ranked = _ranked(search)
    sizes = sorted({k for k in (*search.settings.sweep.k, *search.tune.k, PUBLISHED_K) if k <= len(ranked)} | {search.k})
    settings = [Setting(f"K = {k}", k, search.steering if k == search.k else search.always(ranked.top(k))) for k in sizes]
    return Axis(
        name="k",
        title="number of neurons K",
        plot="curves",
        series=_views(search, settings),
        log_x=True,
        chosen=search.k,
        published=PUBLISHED_K,
        note="The strength stays, so more neurons also push harder.",
    )


def _strength(search: Search) -> Axis:
    chosen = search.steering.strength
    tried = {PUBLISHED_STRENGTH, chosen, *search.tune.strengths, *(f * chosen for f in search.settings.sweep.strengths)}
    values = sorted(tried)
    settings = [Setting(f"strength {value:g}", value, search.steering.with_strength(value)) for value in values]
    return Axis(
        name="strength",
        title="strength",
        plot="curves",
        series=_views(search, settings),
        log_x=values[0] > 0,
        chosen=chosen,
        published=PUBLISHED_STRENGTH,
    )


def _threshold(search: Search) -> Axis:
    """All neurons above the threshold, as published; under what tune chose, and amplified as published."""
    chosen, enhanced = [], []
    if search.class_moments.correct_magnitude is not None:
        for threshold in sorted({*search.settings.sweep.thresholds, PUBLISHED_THRESHOLD}):
            criterion = partial(activation_ratio, threshold=threshold)
            n = len(criterion(search.class_moments).order)
            if n:
                name = f"activation-ratio-{threshold:g}"
                neurons = rank(search.class_moments, criterion, n, search.model.identity, name=name)
                chosen.append(Setting(f"ratio > {threshold:g}", threshold, search.always(neurons)))
                enhanced.append(Setting(f"ratio > {threshold:g}", threshold, search.always(neurons, 1.0, scale)))
    view = _views(search, chosen)[0]
    label = f"{search.steering.facts['intervention']}, {view.label}"
    return Axis(
        name="threshold",
        title="ratio threshold",
        plot="curves",
        series=(
            view._replace(label=label),
            Series(f"amplified by {PUBLISHED_FACTOR:g}, {UNGATED}", tuple(enhanced), gated=False),
        ),
        published=PUBLISHED_THRESHOLD,
        note="Every neuron of the top 10 % by activation ratio whose ratio is above the threshold: K falls along it.",
    )


def _factor(search: Search) -> Axis:
    """The intervention ``scale`` on the found neurons, and on as many by the ratio that it was published with."""
    factors = sorted({*search.settings.sweep.factors, PUBLISHED_FACTOR})

    def scaled(neurons: Neurons) -> list[Setting]:
        return [Setting(f"factor {f:g}", f, search.always(neurons, (f - 1) / ENHANCEMENT, scale)) for f in factors]

    series = [*_views(search, scaled(search.neurons(search.criterion, search.k)), "found neurons, ")]
    ranking = search.ranking("activation-ratio")
    if ranking is not None and len(ranking.order) and search.criterion != "activation-ratio":
        neurons = search.neurons("activation-ratio", min(search.k, len(ranking.order)))
        label = f"by activation ratio, {UNGATED}"
        series.append(Series(label, tuple(scaled(neurons)), gated=False))
    return Axis(
        name="scale",
        title="factor of the intervention scale",
        plot="curves",
        series=tuple(series),
        chosen=1 + ENHANCEMENT * search.steering.strength if search.intervention is scale else None,
        published=PUBLISHED_FACTOR,
    )


def _scope(search: Search) -> Axis:
    """Ungated where a gate that reads the prompt forbids the scope; all scopes are then also run ungated, which is fair."""
    ungated = search.steering.with_gate(ALWAYS)
    settings = [Setting(scope, i, replace(ungated, scope=scope)) for i, scope in enumerate(get_args(PositionScope))]
    series = [Series(UNGATED, tuple(settings), gated=False)]
    if search.steering.gate.reads:
        allowed = tuple(setting for setting in settings if setting.label == search.steering.scope)
        series.append(Series(GATED, allowed, gated=True))
    return Axis(
        name="scope",
        title="position scope",
        plot="dots",
        series=tuple(series),
        chosen=float(get_args(PositionScope).index(search.steering.scope)),
        note="A gate that reads the prompt can only steer what is generated after it: wider scopes are compared without it.",
    )


def _layers(search: Search) -> Axis:
    """The best neurons of some of the layers, as many as were chosen, or all that the criterion finds there."""
    n_layers = search.steering.model.n_layers
    ranked = _ranked(search)
    settings = [Setting("all layers", 0, search.steering)]
    for label, layers in layer_subsets(n_layers, search.settings.sweep.layer_bands):
        rows = np.flatnonzero(np.isin(ranked.layer, layers))[: search.k]
        if len(rows):
            settings.append(Setting(label, len(settings), search.always(ranked.take(rows))))
    return Axis(
        name="layers",
        title="layers",
        plot="dots",
        series=_views(search, settings)[:1],
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


def _views(search: Search, settings: Sequence[Setting], prefix: str = "") -> tuple[Series, ...]:
    """Behind the gate first, where there is one that reads the prompt."""
    always = Series(prefix + UNGATED, tuple(settings), gated=False)
    return (Series(prefix + GATED, tuple(settings), gated=True), always) if search.steering.gate.reads else (always,)


def _ranked(search: Search) -> Neurons:
    """All that the chosen criterion finds, best first."""
    return search.neurons(search.criterion, len(CRITERIA[search.criterion](search.class_moments).order))
