"""Other criteria at the same number of neurons, and the activation-ratio neurons inside and outside the top-activated group."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.choosing import best_strength
from trimtab.experiments.comparisons import Row, compare_rows, comparison_table, describe, gain_dots
from trimtab.experiments.section import Section
from trimtab.experiments.workbench import Workbench
from trimtab.interventions import ablate, scale
from trimtab.neurons import Neurons
from trimtab.ranking import CRITERIA, rank
from trimtab.ranking.criteria import mathneuro, share_for
from trimtab.traces import Split

PARITY_ONLY = "adaras-float32"
TOP_ACTIVATED = 0.1
"""The top-activated group: this share of each layer's neurons by mean magnitude in correct traces."""


def criterion_table(bench: Workbench, base: Sequence[Outcome]) -> Section:
    """Every criterion with the same K, under three interventions and without a gate: what the neurons alone are worth."""
    answers: dict[str, list[list[Outcome]]] = {}
    findings = []
    for name in CRITERIA:
        if name == PARITY_ONLY:
            continue
        if name == "mathneuro" and bench.class_moments.correct_magnitude is not None:
            answers[name] = _three_interventions(bench, _mathneuro(bench), name)
            continue
        ranking = bench.ranking(name)
        if ranking is None or len(ranking.order) < bench.k:
            why = "reads a moment that was not recorded" if ranking is None else f"finds {len(ranking.order)} neurons only"
            findings.append(f"Criterion {name} {why}, so it is not in the tables of K = {bench.k}.")
            continue
        answers[name] = _three_interventions(bench, bench.neurons(name, bench.k, seed=bench.settings.seed), name)
    tables, figures = [], []
    for i, (short, intervention, reading) in enumerate(_OPERATORS):
        rows = compare_rows(base, {name: outcomes[i] for name, outcomes in answers.items()})
        title = f"Criteria with K = {bench.k}: {intervention.format(chosen=bench.steering.facts['intervention'])}"
        note = "No gate. p is corrected by Holm over the criteria."
        tables.append(comparison_table(f"criteria-{short}", title, base, rows, note))
        figures.append(gain_dots(f"criteria-{short}", title, rows, Split.TEST, reading))
        findings.append(_extremes(title, rows))
    return Section(tuple(tables), tuple(figures), tuple(findings))


_OPERATORS = (
    (
        "chosen",
        "{chosen}, each at the strength that was best for it on the validation split",
        "Which neurons can be turned for the better.",
    ),
    ("scale", "amplified by 1.1", "The enhancement of neuron activation differential analysis."),
    ("ablate", "suppressed", "The further left, the more the model needs these neurons."),
)


def _three_interventions(bench: Workbench, neurons: Neurons, name: str) -> list[list[Outcome]]:
    chosen = best_strength(bench, bench.always(neurons), label=f"{name}, strength")
    steerings = (chosen, bench.always(neurons, 1.0, scale), bench.always(neurons, 1.0, ablate))
    return [bench.answers(Split.TEST, steering, label=name) for steering in steerings]


def _mathneuro(bench: Workbench) -> Neurons:
    """With the share of top neurons at which the criterion finds K of them, as neuron activation differential analysis counts."""
    share = share_for(bench.class_moments, bench.k)
    criterion = partial(mathneuro, share=share)
    return rank(bench.class_moments, criterion, bench.k, bench.model.identity, name=f"mathneuro at {share:.1%}")


def _extremes(title: str, rows: Sequence[Row]) -> str:
    best, worst = max(rows, key=lambda row: row.gain), min(rows, key=lambda row: row.gain)
    if best.gain == worst.gain:
        return f"{title}: no difference between criteria ({describe(best)})."
    return f"{title}: highest {best.label} ({describe(best)}), lowest {worst.label} ({describe(worst)})."


def inside_outside_table(bench: Workbench, base: Sequence[Outcome]) -> Section:
    """Neurons that the activation ratio selects, inside and outside the top-activated group, as many of each, scaled apart."""
    ratio, magnitude = bench.ranking("activation-ratio"), bench.class_moments.correct_magnitude
    if ratio is None or magnitude is None or not len(ratio.order):
        return Section(
            (), (), ("The activation ratio selects no neuron, so none lies inside or outside the top-activated group.",)
        )
    neurons = bench.neurons("activation-ratio", len(ratio.order))
    inside = magnitude[neurons.layer, neurons.index] >= np.quantile(magnitude, 1 - TOP_ACTIVATED, axis=1)[neurons.layer]
    size = min(bench.k, int(inside.sum()), int((~inside).sum()))
    counted = (
        f"{int(inside.sum())} of the {len(neurons)} neurons that it selects are among the top {TOP_ACTIVATED:.0%} of their layer"
    )
    if not size:
        return Section((), (), (f"Activation ratio: {counted}, so there are not two groups to compare.",))
    conditions = {}
    for where, mask in (("inside", inside), ("outside", ~inside)):
        group = neurons.take(np.flatnonzero(mask)[:size])
        for what, intervention in (("amplified by 1.1", scale), ("suppressed", ablate)):
            conditions[f"{where}, {what}"] = bench.answers(
                Split.TEST, bench.always(group, 1.0, intervention), label=f"ratio, {where}"
            )
    rows = compare_rows(base, conditions)
    note = f"{counted[0].upper()}{counted[1:]}; {size} of each group, the highest ratios. No gate. p is corrected by Holm."
    table = comparison_table("inside-outside", "Activation-ratio neurons and the top-activated group", base, rows, note)
    finding = f"Activation ratio: {counted}. " + "; ".join(f"{row.label}: {describe(row)}" for row in rows) + "."
    return Section((table,), (), (finding,))
