"""``ablate``: what each part of the method is worth, and whether another criterion finds better neurons."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from trimtab import interventions
from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.comparisons import (
    Row,
    Section,
    accuracy,
    best_strength,
    compare_rows,
    comparison_table,
    describe,
    gain_dots,
)
from trimtab.experiments.workbench import Workbench
from trimtab.interventions import Intervention, add, scale
from trimtab.neurons import Neurons
from trimtab.ranking import CRITERIA, random_like, rank
from trimtab.ranking.criteria import mathneuro, share_for
from trimtab.results import Result
from trimtab.steering import Steering
from trimtab.tasks.contrast import ContrastRow
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
    steerings = (chosen, bench.always(neurons, 1.0, scale), bench.always(neurons, 1.0, interventions.ablate))
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
        for what, intervention in (("amplified by 1.1", scale), ("suppressed", interventions.ablate)):
            conditions[f"{where}, {what}"] = bench.answers(
                Split.TEST, bench.always(group, 1.0, intervention), label=f"ratio, {where}"
            )
    rows = compare_rows(base, conditions)
    note = f"{counted[0].upper()}{counted[1:]}; {size} of each group, the highest ratios. No gate. p is corrected by Holm."
    table = comparison_table("inside-outside", "Activation-ratio neurons and the top-activated group", base, rows, note)
    finding = f"Activation ratio: {counted}. " + "; ".join(f"{row.label}: {describe(row)}" for row in rows) + "."
    return Section((table,), (), (finding,))


ADARAS = "adaras"
FULL = "full method"
PUBLISHED_ORDER = (FULL, "without the gate", "without polarity", "unsteered", "without mean difference", "random neurons")
"""From the best to the worst on AIME-24 with Qwen3-1.7B (arXiv 2601.19847)."""


def ablate(bench: Workbench) -> Result:
    """Leave one part out at a time, and put other criteria in the place of the one that was used.

    Every number is of the test split, every strength was chosen on the validation split, and all criteria read one recording.
    """
    base = bench.answers(Split.TEST, None, label="unsteered")
    sections = [_adaras_ablation(bench, base), _own_ablation(bench, base), _valid_steps(bench, base)]
    sections += [criterion_table(bench, base), inside_outside_table(bench, base)]
    return Result(
        name="ablate",
        title="Ablation",
        question="What is each part of the method worth, and does another criterion find better neurons?",
        findings=tuple(finding for section in sections for finding in section.findings),
        split=Split.TEST,
        tables=tuple(table for section in sections for table in section.tables),
        figures=tuple(figure for section in sections for figure in section.figures),
    )


def _adaras_ablation(bench: Workbench, base: Sequence[Outcome]) -> Section:
    """AdaRAS as published: its criterion and its constant. One strength for all rows, chosen for the full method."""
    full = _constant(bench, ADARAS)
    rows = compare_rows(base, _variants(bench, full, add, ADARAS))
    title = f"AdaRAS's ablation: a constant of strength {full.strength:g} on K = {len(full)}"
    note = "K and strength were chosen on the validation split for the full method and serve all rows. p is corrected by Holm."
    finding = (
        f"AdaRAS's own method (its criterion, a constant, K = {len(full)}, strength {full.strength:g}): {describe(rows[-1])}. "
        f"{_order(rows)} Published, on AIME-24: {' > '.join(PUBLISHED_ORDER)}."
    )
    return Section(
        (comparison_table("adaras-ablation", title, base, rows, note, FULL),),
        (gain_dots("adaras-ablation", title, rows, Split.TEST, "Each row leaves one part of AdaRAS out."),),
        (finding,),
    )


def _own_ablation(bench: Workbench, base: Sequence[Outcome]) -> Section:
    """The same for the criterion and the intervention that tune chose."""
    full, name = bench.steering, str(bench.steering.facts["intervention"])
    conditions = _variants(bench, full, bench.intervention, bench.criterion)
    if bench.intervention is not add:
        plain = _constant(bench, bench.criterion)
        conditions = {f"a constant instead of {name}": bench.answers(Split.TEST, plain, "auto", label="constant"), **conditions}
    rows = compare_rows(base, conditions)
    title = f"Ablation of what tune chose: {bench.criterion}, {name}, K = {len(full)}, strength {full.strength:g}"
    finding = f"What tune chose ({bench.criterion}, {name}): {describe(rows[-1])}. {_order(rows)}"
    note = "The constant's K and strength were chosen on the validation split too. p is corrected by Holm over the rows."
    return Section(
        (comparison_table("own-ablation", title, base, rows, note, FULL),),
        (gain_dots("own-ablation", title, rows, Split.TEST, "Each row leaves one part out or changes it."),),
        (finding,),
    )


def _variants(
    bench: Workbench, full: Steering, intervention: Intervention, criterion: str
) -> dict[str, list[Outcome] | list[list[Outcome]]]:
    """The rows of AdaRAS's table, each behind the gate but the one without it; only parts that the method has are left out."""

    def other(name: str) -> list[Outcome]:
        ranking = bench.ranking(name)
        eligible = 0 if ranking is None else len(ranking.order)
        neurons = bench.neurons(name, min(len(full), eligible), seed=bench.settings.seed)
        steering = Steering.of(neurons, full.strength, full.scope, full.gate, intervention=intervention)
        return bench.answers(Split.TEST, steering, "auto", label=name)

    seeds = range(bench.settings.seed, bench.settings.seed + bench.settings.random_sets)
    conditions: dict[str, list[Outcome] | list[list[Outcome]]] = {
        "random neurons": [bench.answers(Split.TEST, random_like(full, seed), "auto", label="random") for seed in seeds]
    }
    if criterion == ADARAS:
        conditions |= {"without mean difference": other("sign-flip"), "without polarity": other("mean-difference")}
    else:
        conditions |= {f"{name} instead": other(name) for name in (ADARAS, "sign-flip", "mean-difference") if name != criterion}
    if full.gate.kind != "always":
        conditions["without the gate"] = bench.answers(Split.TEST, full, "on", label="always")
    conditions[FULL] = bench.answers(Split.TEST, full, "auto", label="full")
    return conditions


def _order(rows: Sequence[Row]) -> str:
    """The rows and the bare model from best to worst; those whose interval holds 0 are not told from the bare model."""
    claims = [(row.gain, row.label, row.dot()) for row in rows]
    told = [
        (gain, label)
        for gain, label, dot in claims
        if dot.low is not None and dot.high is not None and not dot.low <= 0 <= dot.high
    ]
    rest = ", ".join(label for _, label, dot in claims if (label not in {name for _, name in told}))
    if not told:
        return "No row is told from the unsteered model here."
    ordered = sorted([*told, (0.0, f"unsteered (not told from it: {rest})" if rest else "unsteered")], reverse=True)
    return f"Here: {' > '.join(label for _, label in ordered)}."


def _valid_steps(bench: Workbench, base: Sequence[Outcome]) -> Section:
    """Without the correct responses whose steps are wrong, as neuron activation differential analysis removes them by hand."""
    quality = {grade.trace_id: grade.quality for grade in bench.grades}
    if all(quality[row.trace_id] is None for row in bench.contrast):
        return Section((), (), ("No chain has a verdict on its steps, so the contrast cannot be filtered by them.",))
    kept = balanced([row for row in bench.contrast if not row.correct or quality[row.trace_id]])
    neurons = bench.neurons(bench.criterion, bench.k, bench.moments_of(kept))
    filtered = Steering.of(
        neurons, bench.steering.strength, bench.steering.scope, bench.steering.gate, intervention=bench.intervention
    )
    rows = compare_rows(
        base,
        {
            "all correct responses": bench.answers(Split.TEST, bench.steering, "auto", label="all responses"),
            "chains with right steps only": bench.answers(Split.TEST, filtered, "auto", label="right steps"),
        },
    )
    shared = _shared(bench.steering, neurons)
    note = (
        f"{len(bench.contrast) - len(kept)} of {len(bench.contrast)} traces leave the contrast; "
        f"{shared} of {len(neurons)} neurons stay. Criterion, intervention, K and strength are the chosen ones in both rows."
    )
    finding = (
        f"Chains with right steps only: {describe(rows[1])}, against {describe(rows[0])} with all; "
        f"{shared} of {len(neurons)} neurons shared."
    )
    table = comparison_table("valid-steps", "Contrast with and without the valid-steps filter", base, rows, note)
    return Section((table,), (), (finding,))


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


def _constant(bench: Workbench, criterion: str) -> Steering:
    """A criterion's neurons under AdaRAS's constant, gated: of every K of the grid the strength that is best on the validation
    split.

    Ties go to the fewest neurons, then to the weakest strength.
    """
    problems = bench.split(Split.VALIDATION)[: bench.tune.problems]

    def at(k: int) -> Steering:
        neurons = bench.neurons(criterion, k)
        steering = Steering.of(neurons, 1.0, bench.steering.scope, bench.steering.gate, intervention=add)
        return best_strength(bench, steering, "auto", "constant")

    candidates = [at(k) for k in sorted(bench.tune.k)]
    return max(candidates, key=lambda candidate: accuracy(bench.answers(Split.VALIDATION, candidate, "auto", problems)))


def _shared(steering: Steering, neurons: Neurons) -> int:
    ours = set(zip(steering.layer.tolist(), steering.index.tolist(), strict=True))
    return len(ours & set(zip(neurons.layer.tolist(), neurons.index.tolist(), strict=True)))
