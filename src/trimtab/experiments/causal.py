"""``causal``: does the model need these neurons? Suppress them, suppress as many others, amplify them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from trimtab.errors import NotEnoughDataError
from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.comparisons import Row, compare_rows, comparison_table, describe, gain_dots
from trimtab.experiments.responses import other_chains, perplexity_table
from trimtab.experiments.workbench import Workbench
from trimtab.interventions import ablate, scale
from trimtab.ranking import random_like
from trimtab.results import Result, Table
from trimtab.steering import Steering
from trimtab.traces import Split

PUBLISHED = "activation-ratio"
"""Whose neurons were published as causal (neuron activation differential analysis)."""
SETS = ("suppressed", "amplified by 1.1")


def causal(bench: Workbench) -> Result:
    """Suppress the neurons, as many random ones of the same layers, and amplify both; on the test split, without a gate.

    For the criterion that tune chose, and for the activation ratio where it selects as many.
    """
    base = bench.answers(Split.TEST, None, label="unsteered")
    steerings = _steerings(bench)
    rows = compare_rows(base, {label: _answers(bench, made) for label, made in steerings.items()})
    tables = [comparison_table("causal", f"Suppressed and amplified: K = {bench.k}", base, rows, _NOTE)]
    chains = other_chains(bench)
    findings = [_finding(criterion, rows) for criterion in _criteria(bench)]
    try:
        tables.append(_perplexity(bench, steerings))
    except NotEnoughDataError:
        findings.append(f"Only {len(chains)} correct responses lie outside the contrast, too few for a perplexity.")
    return Result(
        name="causal",
        title="Causal test",
        question="Does the model need these neurons more than others of the same layers?",
        findings=tuple(findings),
        split=Split.TEST,
        tables=tuple(tables),
        figures=(gain_dots("causal", "Suppressed and amplified", rows, Split.TEST, _READING),),
    )


_NOTE = "No gate. Random sets hold as many neurons in every layer; their row is a mean. p is corrected by Holm over the others."
_READING = (
    "If the found neurons are needed, suppressing them costs more than suppressing as many random ones (rings: single sets)."
)


def _criteria(bench: Workbench) -> list[str]:
    names = [bench.criterion]
    ranking = bench.ranking(PUBLISHED)
    if PUBLISHED not in names and ranking is not None and len(ranking.order) >= bench.k:
        names.append(PUBLISHED)
    return names


def _steerings(bench: Workbench) -> dict[str, tuple[Steering, ...]]:
    """By label; random sets are several."""
    made: dict[str, tuple[Steering, ...]] = {}
    seeds = range(bench.settings.seed, bench.settings.seed + bench.settings.random_sets)
    for criterion in _criteria(bench):
        neurons = bench.neurons(criterion, bench.k)
        found, amplified = bench.always(neurons, 1.0, ablate), bench.always(neurons, 1.0, scale)
        made[f"{criterion}, {SETS[0]}"] = (found,)
        made[f"random, {SETS[0]} (for {criterion})"] = tuple(_unsigned(random_like(found, seed), found) for seed in seeds)
        made[f"{criterion}, {SETS[1]}"] = (amplified,)
        made[f"random, {SETS[1]} (for {criterion})"] = tuple(_unsigned(random_like(amplified, seed), amplified) for seed in seeds)
    return made


def _unsigned(drawn: Steering, found: Steering) -> Steering:
    """The drawn neurons under the found gains: a suppression with a random sign would amplify."""
    return replace(drawn, gain=found.gain, shift=found.shift)


def _answers(bench: Workbench, steerings: Sequence[Steering]) -> list[Outcome] | list[list[Outcome]]:
    answers = [bench.answers(Split.TEST, steering, label="causal") for steering in steerings]
    return answers[0] if len(answers) == 1 else answers


def _perplexity(bench: Workbench, steerings: Mapping[str, Sequence[Steering]]) -> Table:
    attached = {label: (made[0], "on") for label, made in steerings.items()}
    title = "Perplexity of correct responses outside the contrast (of random sets the first)"
    return perplexity_table(bench, "causal-perplexity", title, other_chains(bench), attached)  # type: ignore[arg-type]


def _finding(criterion: str, rows: Sequence[Row]) -> str:
    by_label = {row.label: row for row in rows}
    found, random = by_label[f"{criterion}, {SETS[0]}"], by_label[f"random, {SETS[0]} (for {criterion})"]
    amplified = by_label[f"{criterion}, {SETS[1]}"]
    worst = min(comparison.gain for comparison in random.comparisons)
    sets = len(random.comparisons)
    beyond = "below all" if found.gain < worst else "not below all"
    return (
        f"Suppressing the {criterion} neurons: {describe(found)}, {beyond} {sets} random sets "
        f"(mean {100 * random.gain:+.1f}, worst {100 * worst:+.1f}). Amplifying them: {describe(amplified)}."
    )
