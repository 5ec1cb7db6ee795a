"""``ablate``: what each part of the method is worth, and whether another criterion finds better neurons."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from trimtab import interventions
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.verdict import paired
from trimtab.experiments.comparisons import (
    Part,
    Row,
    accuracy,
    best_strength,
    compare_rows,
    describe,
    gain_frame,
    gain_words,
    gathered,
    listed,
)
from trimtab.experiments.search import Search
from trimtab.experiments.trained_values import trained_part
from trimtab.findings import Findings, Frame
from trimtab.interventions import Intervention, add, scale
from trimtab.neurons import Neurons
from trimtab.ranking import CRITERIA, norm_matched, random_like, rank
from trimtab.ranking.criteria import mathneuro, share_for
from trimtab.steering import Steering
from trimtab.tasks.contrast import ContrastRow
from trimtab.traces import Split

if TYPE_CHECKING:
    from trimtab.study.along import DirectionTuning

ADARAS = "adaras"
PARITY_ONLY = "adaras-float32"
FULL = "full method"
PUBLISHED_ORDER = (FULL, "without the gate", "without sign flip", "unsteered", "without mean difference", "random neurons")
"""From the best to the worst on AIME-24 with Qwen3-1.7B (arXiv 2601.19847)."""
TOP_ACTIVATED = 0.1
"""The top-activated group: this share of each layer's neurons by mean magnitude in correct traces."""


def ablate(search: Search) -> Findings:
    """Leave one part out at a time, and put other criteria in the place of the one that was used.

    Every number is of the test split, every strength was chosen on the validation split, and all criteria read one recording.
    """
    base = search.answers(Split.TEST, None, label="unsteered")
    question = "What is each part of the method worth, and does another criterion find better neurons?"
    parts = (_adaras, _own, _directions, trained_part, _valid_steps, _criteria, _inside_outside)
    return gathered("ablate", "Ablation", question, Split.TEST, (part(search, base) for part in parts))


def _adaras(search: Search, base: Sequence[Outcome]) -> Part:
    """AdaRAS as published: its criterion and its constant. One strength for all rows, chosen for the full method."""
    full = _constant(search, ADARAS)
    rows = compare_rows(base, _variants(search, full, add, ADARAS), search.clusters)
    frame = gain_frame(
        "adaras-ablation",
        f"AdaRAS's ablation: a constant of strength {full.strength:g} on K = {len(full)}",
        base,
        rows,
        note="K and strength were chosen on the validation split for the full method and serve all rows.",
        reading="Each row leaves one part of AdaRAS out.",
        chosen=FULL,
    )
    sentence = (
        f"AdaRAS's own method (its criterion, a constant, K = {len(full)}, strength {full.strength:g}): {describe(rows[-1])}. "
        f"{_order(rows)} Published, on AIME-24: {' > '.join(PUBLISHED_ORDER)}."
    )
    return Part((frame,), (sentence,))


def _own(search: Search, base: Sequence[Outcome]) -> Part:
    """The same for the criterion and the intervention that tune chose."""
    full, name = search.steering, str(search.steering.facts["intervention"])
    conditions = _variants(search, full, search.intervention, search.criterion)
    if search.intervention is not add:
        plain = _constant(search, search.criterion)
        conditions = {f"a constant instead of {name}": search.answers(Split.TEST, plain, "auto", label="constant"), **conditions}
    rows = compare_rows(base, conditions, search.clusters)
    frame = gain_frame(
        "own-ablation",
        f"Ablation of what tune chose: {search.criterion}, {name}, K = {len(full)}, strength {full.strength:g}",
        base,
        rows,
        note="The constant's K and strength were chosen on the validation split too.",
        reading="Each row leaves one part out or changes it.",
        chosen=FULL,
    )
    return Part((frame,), (f"What tune chose ({search.criterion}, {name}): {describe(rows[-1])}. {_order(rows)}",))


def _directions(search: Search, base: Sequence[Outcome]) -> Part:
    """Neurons or a direction: the difference of class means of the residual stream, of the same traces, behind the same gate.

    Its layer and strength were chosen on the same validation problems. The control is a direction of the same norm that points
    anywhere, after the same layer.
    """
    tuning = search.direction
    along, best = tuning.steering, tuning.best
    seeds = range(search.settings.seed, search.settings.seed + search.settings.random_sets)
    drawn = [norm_matched(random_like(along, seed), along, {}) for seed in seeds]
    label = f"direction after layer {best.layer}"
    conditions: dict[str, list[Outcome] | list[list[Outcome]]] = {
        "random directions": [search.answers(Split.TEST, one, "auto", label="random direction") for one in drawn],
        label: search.answers(Split.TEST, along, "auto", label="direction"),
        "neurons": search.answers(Split.TEST, search.steering, "auto", label="full"),
    }
    if along.gate.kind != "always":
        conditions[f"{label}, without the gate"] = search.answers(Split.TEST, along, "on", label="direction, always")
    rows = compare_rows(base, conditions, search.clusters)
    frame = gain_frame(
        "directions",
        f"Neurons or a direction: {len(search.steering)} neurons, and the difference of class means after layer {best.layer}",
        base,
        rows,
        note=f"Layer and strength of the direction ({best.strength:g}) are the best of {len(tuning.points)} points on the "
        "validation split, the neurons' the best of theirs; both act behind the same gate.",
        reading="A random direction of the same norm after the same layer is the control.",
        chosen="neurons",
    )
    apart = paired(conditions[label], conditions["neurons"], search.clusters)  # type: ignore[arg-type]  # neither is a list of sets
    sentence = f"Neurons or a direction? {listed(rows)}. Neurons beside the direction: {gain_words(apart)}, p = {apart.p:.2g}."
    return Part((frame, _direction_grid(tuning)), (sentence,))


def _direction_grid(tuning: "DirectionTuning") -> Frame:
    rows = [
        {
            "label": f"layer {point.layer}, strength {point.strength:g}",
            "n": point.n,
            "value": point.gated,
            "unit": "share",
            "row": f"after layer {point.layer}",
            "column": f"{point.strength:g}",
            "always": point.always,
            "chosen": point == tuning.best,
        }
        for point in tuning.points
    ]
    return Frame(
        "directions-grid",
        "A direction's layer and strength: accuracy with the gate on the validation split",
        rows,
        plot="matrix",
        x_label="strength, in differences of class means",
        reference=tuning.best.unsteered,
        note=f"Unsteered {tuning.best.unsteered:.1%}.",
        reading="The framed point was taken to the test split.",
    )


def _variants(
    search: Search, full: Steering, intervention: Intervention, criterion: str
) -> dict[str, list[Outcome] | list[list[Outcome]]]:
    """The rows of AdaRAS's table, each behind the gate but the one without it; only parts that the method has are left out."""

    def other(name: str) -> list[Outcome]:
        ranking = search.ranking(name)
        eligible = 0 if ranking is None else len(ranking.order)
        neurons = search.neurons(name, min(len(full), eligible), seed=search.settings.seed)
        steering = Steering.of(neurons, full.strength, full.scope, full.gate, intervention=intervention)
        return search.answers(Split.TEST, steering, "auto", label=name)

    seeds = range(search.settings.seed, search.settings.seed + search.settings.random_sets)
    conditions: dict[str, list[Outcome] | list[list[Outcome]]] = {
        "random neurons": [search.answers(Split.TEST, random_like(full, seed), "auto", label="random") for seed in seeds]
    }
    if criterion == ADARAS:
        conditions |= {"without mean difference": other("sign-flip"), "without sign flip": other("mean-difference")}
    else:
        conditions |= {f"{name} instead": other(name) for name in (ADARAS, "sign-flip", "mean-difference") if name != criterion}
    if full.gate.kind != "always":
        conditions["without the gate"] = search.answers(Split.TEST, full, "on", label="always")
    conditions[FULL] = search.answers(Split.TEST, full, "auto", label="full")
    return conditions


def _constant(search: Search, criterion: str) -> Steering:
    """A criterion's neurons under AdaRAS's constant, gated: of every K of the grid the strength that is best on the validation
    split.

    Ties go to the fewest neurons, then to the weakest strength.
    """
    problems = search.split(Split.VALIDATION)[: search.tune.problems]

    def at(k: int) -> Steering:
        neurons = search.neurons(criterion, k)
        steering = Steering.of(neurons, 1.0, search.steering.scope, search.steering.gate, intervention=add)
        return best_strength(search, steering, "auto", "constant")

    candidates = [at(k) for k in sorted(search.tune.k)]
    return max(candidates, key=lambda candidate: accuracy(search.answers(Split.VALIDATION, candidate, "auto", problems)))


def _order(rows: Sequence[Row]) -> str:
    """The rows and the unsteered model from best to worst; rows whose interval holds 0 are not told from it."""
    told = [(row.gain, row.label) for row in rows if row.differs]
    if not told:
        return "No row is told from the unsteered model here."
    rest = ", ".join(row.label for row in rows if not row.differs)
    ordered = sorted([*told, (0.0, f"unsteered (not told from it: {rest})" if rest else "unsteered")], reverse=True)
    return f"Here: {' > '.join(label for _, label in ordered)}."


def _valid_steps(search: Search, base: Sequence[Outcome]) -> Part:
    """Without the correct responses whose steps are wrong, as neuron activation differential analysis removes them by hand."""
    quality = {grade.trace_id: grade.quality for grade in search.grades}
    if all(quality[row.trace_id] is None for row in search.contrast):
        return Part(sentences=("No response has a score of its steps, so the contrast cannot be filtered by them.",))
    kept = balanced([row for row in search.contrast if not row.correct or quality[row.trace_id]])
    chosen, neurons = search.steering, search.neurons(search.criterion, search.k, search.moments_of(kept))
    filtered = Steering.of(neurons, chosen.strength, chosen.scope, chosen.gate, intervention=search.intervention)
    conditions = {
        "all correct responses": search.answers(Split.TEST, chosen, "auto", label="all responses"),
        "responses with right steps only": search.answers(Split.TEST, filtered, "auto", label="right steps"),
    }
    rows = compare_rows(base, conditions, search.clusters)
    ours, theirs = (set(zip(s.layer.tolist(), s.index.tolist(), strict=True)) for s in (chosen, neurons))
    stay = f"{len(ours & theirs)} of {len(neurons)} neurons"
    frame = gain_frame(
        "valid-steps",
        "Contrast with and without the valid-steps filter",
        base,
        rows,
        note=f"{len(search.contrast) - len(kept)} of {len(search.contrast)} traces leave the contrast; {stay} stay. Criterion, "
        "intervention, K and strength are the chosen ones in both rows.",
    )
    sentence = f"Responses with right steps only: {describe(rows[1])}, against {describe(rows[0])} with all; {stay} shared."
    return Part((frame,), (sentence,))


def balanced(rows: Sequence[ContrastRow]) -> list[ContrastRow]:
    """Equal numbers of correct and incorrect traces per problem, the first of each by id; one-sided problems go."""
    sides: dict[str, dict[bool, list[ContrastRow]]] = {}
    for row in rows:
        sides.setdefault(row.problem_id, {True: [], False: []})[row.correct].append(row)
    kept: list[ContrastRow] = []
    for classes in sides.values():
        size = min(len(side) for side in classes.values())
        for side in classes.values():
            kept += sorted(side, key=lambda row: row.trace_id)[:size]
    return kept


def _criteria(search: Search, base: Sequence[Outcome]) -> Part:
    """Every criterion with the same K, under three interventions and without a gate: what the neurons alone are worth."""
    answers: dict[str, list[list[Outcome]]] = {}
    frames, sentences = [], []
    for name in CRITERIA:
        if name == PARITY_ONLY:
            continue
        if name == "mathneuro" and search.class_moments.correct_magnitude is not None:
            answers[name] = _three_interventions(search, _mathneuro(search), name)
            continue
        ranking = search.ranking(name)
        if ranking is None or len(ranking.order) < search.k:
            why = "reads a moment that was not recorded" if ranking is None else f"finds {len(ranking.order)} neurons only"
            sentences.append(f"Criterion {name} {why}, so it is not in the frames of K = {search.k}.")
            continue
        answers[name] = _three_interventions(search, search.neurons(name, search.k, seed=search.settings.seed), name)
    for i, (short, intervention, reading) in enumerate(_INTERVENTIONS):
        rows = compare_rows(base, {name: outcomes[i] for name, outcomes in answers.items()}, search.clusters)
        title = f"Criteria with K = {search.k}: {intervention.format(chosen=search.steering.facts['intervention'])}"
        frames.append(gain_frame(f"criteria-{short}", title, base, rows, note="No gate.", reading=reading))
        sentences.append(_extremes(title, rows))
    return Part(tuple(frames), tuple(sentences))


_INTERVENTIONS = (
    (
        "chosen",
        "{chosen}, each at the strength that was best for it on the validation split",
        "Which neurons can be turned for the better.",
    ),
    ("scale", "amplified by 1.1", "The enhancement of neuron activation differential analysis."),
    ("ablate", "ablated", "The further left, the more the model needs these neurons."),
)


def _three_interventions(search: Search, neurons: Neurons, name: str) -> list[list[Outcome]]:
    chosen = best_strength(search, search.always(neurons), label=f"{name}, strength")
    steerings = (chosen, search.always(neurons, 1.0, scale), search.always(neurons, 1.0, interventions.ablate))
    return [search.answers(Split.TEST, steering, label=name) for steering in steerings]


def _mathneuro(search: Search) -> Neurons:
    """With the share of top neurons at which the criterion finds K of them, as neuron activation differential analysis counts."""
    share = share_for(search.class_moments, search.k)
    criterion = partial(mathneuro, share=share)
    return rank(search.class_moments, criterion, search.k, search.model.identity, name=f"mathneuro at {share:.1%}")


def _extremes(title: str, rows: Sequence[Row]) -> str:
    best, worst = max(rows, key=lambda row: row.gain), min(rows, key=lambda row: row.gain)
    if best.gain == worst.gain:
        return f"{title}: no difference between criteria ({describe(best)})."
    return f"{title}: highest {best.label} ({describe(best)}), lowest {worst.label} ({describe(worst)})."


def _inside_outside(search: Search, base: Sequence[Outcome]) -> Part:
    """Neurons that the activation ratio selects, inside and outside the top-activated group, as many of each, scaled apart."""
    ratio, magnitude = search.ranking("activation-ratio"), search.class_moments.correct_magnitude
    if ratio is None or magnitude is None or not len(ratio.order):
        return Part(
            sentences=("The activation ratio selects no neuron, so none lies inside or outside the top-activated group.",)
        )
    neurons = search.neurons("activation-ratio", len(ratio.order))
    inside = magnitude[neurons.layer, neurons.index] >= np.quantile(magnitude, 1 - TOP_ACTIVATED, axis=1)[neurons.layer]
    size = min(search.k, int(inside.sum()), int((~inside).sum()))
    top = f"among the top {TOP_ACTIVATED:.0%} of their layer"
    counted = f"{int(inside.sum())} of the {len(neurons)} neurons that the activation ratio selects are {top}"
    if not size:
        return Part(sentences=(f"{counted}, so there are not two groups to compare.",))
    conditions = {}
    for where, mask in (("inside", inside), ("outside", ~inside)):
        group = neurons.take(np.flatnonzero(mask)[:size])
        for what, intervention in (("amplified by 1.1", scale), ("ablated", interventions.ablate)):
            steering = search.always(group, 1.0, intervention)
            conditions[f"{where}, {what}"] = search.answers(Split.TEST, steering, label=f"ratio, {where}")
    rows = compare_rows(base, conditions, search.clusters)
    note = f"{counted}; {size} of each group, the highest ratios. No gate."
    frame = gain_frame("inside-outside", "Activation-ratio neurons and the top-activated group", base, rows, note=note)
    return Part((frame,), (f"{counted}. {listed(rows)}.",))
