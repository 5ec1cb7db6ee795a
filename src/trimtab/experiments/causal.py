"""``causal``: does the model need these neurons? Ablate them, ablate as many others, amplify them."""

from collections.abc import Sequence
from dataclasses import replace

from trimtab.errors import NotEnoughDataError
from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.comparisons import Part, Row, compare_rows, describe, gain_frame, gathered
from trimtab.experiments.responses import Attached, outside_contrast, perplexity_frame
from trimtab.experiments.search import Search
from trimtab.findings import Findings
from trimtab.interventions import ablate, scale
from trimtab.ranking import random_like
from trimtab.steering import Steering
from trimtab.traces import Split

PUBLISHED = ("activation-ratio", "cett")
"""Whose neurons were published as causal: by neuron activation differential analysis, and by H-Neurons."""
FACTORS = (0.5, 2.0, 3.0)
"""H-Neurons scales the neurons of ``cett`` from 0 (ablated) to 3."""
ABLATED, AMPLIFIED = "ablated", "amplified by 1.1"


def causal(search: Search) -> Findings:
    """Ablate the neurons, as many random ones of the same layers, and amplify both; on the test split, without a gate.

    For the criterion that tune chose, and for the activation ratio and ``cett`` where they select as many; the neurons of
    ``cett`` are scaled by 0.5, 2 and 3 as well, as its source does.
    """
    base = search.answers(Split.TEST, None, label="unsteered")
    steerings = _steerings(search)
    rows = compare_rows(base, {label: _answers(search, made) for label, made in steerings.items()}, search.clusters)
    gains = gain_frame(
        "causal",
        f"Ablated and amplified: K = {search.k}",
        base,
        rows,
        note="No gate. Random sets hold as many neurons in every layer.",
        reading="If the found neurons are needed, ablating them costs more than ablating as many random ones.",
    )
    parts = [Part((gains,), tuple(_sentence(criterion, rows) for criterion in _criteria(search)))]
    attached: Attached = {label: (made[0], "on") for label, made in steerings.items()}
    title = "Perplexity of correct responses outside the contrast (of random sets the first)"
    traces = outside_contrast(search)
    try:
        parts.append(Part((perplexity_frame(search, "causal-perplexity", title, traces, attached),)))
    except NotEnoughDataError:
        few = f"Only {len(traces)} correct responses lie outside the contrast, too few for a perplexity."
        parts.append(Part(sentences=(few,)))
    question = "Does the model need these neurons more than others of the same layers?"
    return gathered("causal", "Causal test", question, Split.TEST, parts)


def _criteria(search: Search) -> list[str]:
    names = [search.criterion]
    for published in PUBLISHED:
        ranking = search.ranking(published)
        if published not in names and ranking is not None and len(ranking.order) >= search.k:
            names.append(published)
    return names


def _steerings(search: Search) -> dict[str, tuple[Steering, ...]]:
    """By label; random sets are several."""
    made: dict[str, tuple[Steering, ...]] = {}
    seeds = range(search.settings.seed, search.settings.seed + search.settings.random_sets)
    for criterion in _criteria(search):
        neurons = search.neurons(criterion, search.k)
        edits = [(ABLATED, 1.0, ablate), (AMPLIFIED, 1.0, scale)]
        # an ablation at strength 1 - factor is a' = factor * a
        edits += [(f"scaled by {factor:g}", 1 - factor, ablate) for factor in FACTORS if criterion == "cett"]
        for what, strength, intervention in edits:
            found = search.always(neurons, strength, intervention)
            made[f"{criterion}, {what}"] = (found,)
            made[f"random, {what} (for {criterion})"] = tuple(_unsigned(random_like(found, seed), found) for seed in seeds)
    return made


def _unsigned(drawn: Steering, found: Steering) -> Steering:
    """The drawn neurons under the found gains: an ablation with a random sign would amplify."""
    return replace(drawn, gain=found.gain, shift=found.shift)


def _answers(search: Search, steerings: Sequence[Steering]) -> list[Outcome] | list[list[Outcome]]:
    answers = [search.answers(Split.TEST, steering, label="causal") for steering in steerings]
    return answers[0] if len(answers) == 1 else answers


def _sentence(criterion: str, rows: Sequence[Row]) -> str:
    by_label = {row.label: row for row in rows}
    found, random = by_label[f"{criterion}, {ABLATED}"], by_label[f"random, {ABLATED} (for {criterion})"]
    worst = min(comparison.gain for comparison in random.comparisons)
    beyond = "below all" if found.gain < worst else "not below all"
    return (
        f"Ablating the {criterion} neurons: {describe(found)}, {beyond} {len(random.comparisons)} random sets "
        f"(mean {100 * random.gain:+.1f}, worst {100 * worst:+.1f}). "
        f"Amplifying them: {describe(by_label[f'{criterion}, {AMPLIFIED}'])}."
    )
