"""``transfer-model``: carry the neurons to another model, by index to a fine-tune and by correlation to any."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trimtab.analysis.passes import batches, with_response
from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.comparisons import Part, best_strength, compare_rows, gain_frame, gathered, listed
from trimtab.experiments.groups import neurons_of
from trimtab.experiments.matching import BATCH_TOKENS, SAME_NEURON, Addresses, Match, TextPair, match_neurons
from trimtab.experiments.search import STATISTICS, Search
from trimtab.findings import Cell, Findings, Frame
from trimtab.model import LanguageModel, down_weights, open_model, rebind
from trimtab.moments import MOMENTS
from trimtab.neurons import Neurons
from trimtab.ranking import ClassMoments, LabelledMoments, class_moments, column_norms, random_like
from trimtab.recording import record_batch
from trimtab.stats.auroc import auroc, delong_interval
from trimtab.steering import Steering
from trimtab.tasks import render_prompt
from trimtab.traces import Split, Trace

BY_INDEX, GATED = "by index", "by index, carried gate"
MATCHED, OWN, RANDOM = "matched by correlation", "its own, found on the same responses", "random neurons"
ALIKE = 0.5
"""Above this correlation on held-out texts a partner counts as doing the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """A set of one model on another.

    Args:
        match: how the partners were chosen, and how good they are.
        pooled: whether the match is of means per text, because the tokenizers differ; else token by token.
        by_index: the steering at the same addresses, with its gate; None unless the other model is a fine-tune.
        matched: the partners, with the class means that they have in the other model.
        own: the other model's best neurons by the run's criterion, from the same responses; None where it can select none.
        same_direction: share of partners whose difference between the classes has the sign that the match predicts.
    """

    match: Match
    pooled: bool
    by_index: Steering | None
    matched: Neurons
    own: Neurons | None
    same_direction: float


def carry(search: Search, other: LanguageModel) -> Carried:
    """Match the found neurons on the contrast's responses and measure the partners' class means on them.

    The responses are the first model's, teacher-forced in the other one. The partners' own class means, rather than the first
    model's scaled by the ratio of the standard deviations, bring scale, offset and sign, and every intervention can read them.
    """
    pairs = shared_texts(search, other)
    pooled = other.tokenizer_fingerprint != search.model.tokenizer_fingerprint
    found = Addresses(search.steering.layer, search.steering.index)
    match = match_neurons(search.model, other, found, pairs, search.scope, pooled=pooled, seed=search.settings.seed)
    moments = moments_on(search, other, [pair.target for pair in pairs])
    partners = match.neurons
    correct_mean, incorrect_mean = (
        side[partners.layer, partners.index] for side in (moments.correct_mean, moments.incorrect_mean)
    )
    matched = Neurons(
        layer=partners.layer,
        index=partners.index,
        score=match.correlation,
        correct_mean=correct_mean.astype(np.float32),
        incorrect_mean=incorrect_mean.astype(np.float32),
        criterion=f"{search.criterion}, matched",
        model=other.identity,
    )
    predicted = match.sign * search.class_moments.mean_difference[found.layer, found.index]
    return Carried(
        match=match,
        pooled=pooled,
        by_index=rebind(search.steering, other.identity) if match.is_fine_tune else None,
        matched=matched,
        own=neurons_of(search.on(other), moments, search.criterion, search.k),
        same_direction=float((np.sign(predicted) == np.sign(correct_mean - incorrect_mean)).mean()),
    )


def shared_texts(search: Search, other: LanguageModel) -> list[TextPair]:
    """The contrast's responses as both models read them: the same ids, or tokenised again where the tokenizers differ.

    Raises:
        NotEnoughDataError: no response has two tokens.
    """
    wanted = {row.trace_id for row in search.contrast}
    traces = [trace for trace in search.traces if trace.id in wanted]
    if other.tokenizer_fingerprint == search.model.tokenizer_fingerprint:
        return [TextPair(trace, trace) for trace in traces]
    questions = {problem.id: problem.question for problem in search.split(Split.TRAIN)}
    again = with_response([_retokenised(trace, questions[trace.problem_id], search, other) for trace in traces]).traces
    by_id = {trace.id: trace for trace in traces}
    return [TextPair(by_id[trace.id], trace) for trace in again]


def moments_on(search: Search, other: LanguageModel, traces: Sequence[Trace]) -> ClassMoments:
    """Class moments of the contrast's responses in another model, from one pass over them; nothing is written."""
    rows = {row.trace_id: row for row in search.contrast}

    def parts() -> Iterator[LabelledMoments]:
        for batch in batches(other, traces, BATCH_TOKENS):
            moments = record_batch(other, batch, (search.scope,), MOMENTS)[search.scope]
            labels = [rows[trace.id] for trace in batch]
            yield moments, [row.problem_id for row in labels], [row.correct for row in labels]

    counts = Counter(rows[trace.id].problem_id for trace in traces)
    moments = class_moments(parts(), counts, STATISTICS)
    return replace(moments, column_norm=column_norms(down_weights(other, range(other.n_layers))))


def _retokenised(trace: Trace, question: str, search: Search, other: LanguageModel) -> Trace:
    prompt_ids = render_prompt(other.tokenizer, question, search.prompt)
    return replace(trace, prompt_ids=prompt_ids, response_ids=tuple(other.tokenizer.encode(trace.text, add_special_tokens=False)))


def transfer_model(search: Search) -> Findings:
    """Carry the found neurons to every other model of the settings; strengths are chosen on the validation split with that model.

    The gate is carried to a fine-tune only, whose neurons are where the gate reads them; elsewhere every problem is steered.
    """
    names = search.settings.other_models
    none = "No other model was named, so nothing was carried: set experiment.other_models, or give --to MODEL."
    parts = [_to(search, name) for name in names] or [([], Part(sentences=(none,)))]
    matches = [row for rows, _ in parts for row in rows]
    question = f"Do the neurons of {search.model.identity.name} help another model?"
    found = Part((_match_frame(matches),) if names else ())
    return gathered("transfer-model", "Transfer to other models", question, Split.TEST, (found, *(part for _, part in parts)))


def _to(search: Search, name: str) -> tuple[list[dict[str, Cell]], Part]:
    """Rows of how well the neurons were found again in one model, and what they gain there."""
    other = open_model(name, dtype=str(search.model.hf_model.dtype).removeprefix("torch."), device=str(search.model.device))
    there = search.on(other)
    carried = carry(search, other)
    base = there.answers(Split.TEST, None, label=f"{name}, unsteered")
    steerings = _steerings(there, carried)
    conditions = {label: there.answers(Split.TEST, steering, label=f"{name}, {label}") for label, steering in steerings.items()}
    gate = ""
    if carried.by_index is not None and carried.by_index.gate.reads:
        conditions[GATED] = there.answers(Split.TEST, steerings[BY_INDEX], "auto", label=f"{name}, {GATED}")
        gate = _gate_words(base, conditions[GATED])
    primary = steerings[BY_INDEX if BY_INDEX in steerings else MATCHED]
    seeds = range(search.settings.seed, search.settings.seed + search.settings.random_sets)
    random = [there.answers(Split.TEST, random_like(primary, seed), label=f"{name}, {RANDOM}") for seed in seeds]
    rows = compare_rows(base, {**conditions, RANDOM: random}, there.clusters)
    strengths = ", ".join(f"{label} {steering.strength:g}" for label, steering in steerings.items())
    frame = gain_frame(
        re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"),
        f"Neurons of {search.model.identity.name} on {name}",
        base,
        rows,
        note="Always steered, but for the carried gate. Strengths, chosen on the validation split with this model: "
        f"{strengths}. Random sets have the size, the layers and the strength of the carried one.",
    )
    return match_rows(name, carried), Part((frame,), (f"{name}: {match_words(carried)} Gains: {listed(rows)}.{gate}",))


def _steerings(there: Search, carried: Carried) -> dict[str, Steering]:
    """Each set at the strength that is best for it on the other model's validation split; partners that are the same neurons
    once."""
    sets: dict[str, Steering] = {}
    if carried.by_index is not None:
        sets[BY_INDEX] = carried.by_index
    if carried.by_index is None or carried.match.at_same_index != len(carried.matched):
        sets[MATCHED] = there.always(carried.matched)
    if carried.own is not None:
        sets[OWN] = there.always(carried.own)
    return {label: best_strength(there, steering, label=f"{label}, strength") for label, steering in sets.items()}


def _gate_words(base: Sequence[Outcome], gated: Sequence[Outcome]) -> str:
    """How well the carried gate predicts the failures of the other model."""
    failed = [not outcome.correct for outcome in base]
    p_fail = [outcome.p_fail or 0.0 for outcome in gated]
    if min(sum(failed), len(failed) - sum(failed)) < 2:
        return ""
    low, high = delong_interval(failed, p_fail, 0.95)
    return f" The carried gate predicts its failures with AUROC {auroc(failed, p_fail):.3f} [{low:.3f}, {high:.3f}]."


def match_rows(name: str, carried: Carried) -> list[dict[str, Cell]]:
    """Median and quartiles of each kind of correlation; of the partners also how many do the same."""
    match = carried.match
    kinds = {
        "matched": match.correlation,
        "same index": match.same_index,
        "shuffled texts": match.shuffled,
        "random partners": match.chance,
    }
    partners: dict[str, Cell] = {
        "alike_share": float((match.correlation > ALIKE).mean()),
        "at_same_index": match.at_same_index,
        "same_direction_share": carried.same_direction,
    }
    common: dict[str, Cell] = {
        "unit": "number",
        "series": name,
        "observed": "texts" if carried.pooled else "tokens",
        "matched_on": match.n_chosen_on,
        "held_out": match.n_held_out,
    }
    return [
        {
            "label": f"{name}, {kind}",
            **_quartiles(values),
            **common,
            **(partners if kind == "matched" else dict.fromkeys(partners)),
        }
        for kind, values in kinds.items()
        if values is not None
    ]


def _quartiles(values: NDArray[np.float64]) -> dict[str, Cell]:
    low, high = np.quantile(values, [0.25, 0.75]).tolist()
    return {"n": len(values), "value": median(values), "low": low, "high": high}


def _match_frame(rows: Sequence[Mapping[str, Cell]]) -> Frame:
    return Frame(
        "match",
        "How well neurons are found again in another model",
        rows,
        plot="dots",
        x_label="correlation of activations",
        reference=0.0,
        note="Median and quartiles over n neurons of correlations on held-out train problems; the shuffled one is of the best "
        f"partner, on the texts that chose it. alike_share: above {ALIKE:g}; same_direction_share: partners whose difference "
        "between correct and incorrect responses has the predicted sign.",
        reading="Near 1 the partner does the same. Shuffled texts and random partners are what chance reaches.",
    )


def match_words(carried: Carried) -> str:
    """One or two sentences about the match."""
    match = carried.match
    words = (
        f"the partners correlate {median(match.correlation):.2f} in the median on held-out responses (random ones "
        f"{median(match.chance):.2f}, the best of shuffled texts {median(match.shuffled):.2f}), and {carried.same_direction:.0%} "
        "differ between correct and incorrect responses in the direction that this predicts."
    )
    if match.same_index is None:
        return f"{words} Its sizes differ, so nothing is carried by index."
    verdict = f"below {SAME_NEURON:g} it is no fine-tune, so nothing is carried by index."
    if match.is_fine_tune:
        verdict = "it is a fine-tune, to which the set is carried by index too."
    return (
        f"{words} The neurons at the same index correlate {median(match.same_index):.2f}, and {match.at_same_index} of "
        f"{len(match.correlation)} partners are these: {verdict}"
    )


def median(values: NDArray[np.float64]) -> float:
    """The median."""
    return float(np.median(values))
