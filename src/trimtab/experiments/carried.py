"""A found set on another model: the same addresses for a fine-tune, the neurons that do the same elsewhere."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trimtab.analysis.passes import batches, with_response
from trimtab.experiments.correlation import BATCH_TOKENS, Addresses, TextPair
from trimtab.experiments.matching import Match, match_neurons
from trimtab.experiments.sources import neurons_of
from trimtab.experiments.workbench import STATISTICS, Workbench
from trimtab.model import LanguageModel, down_weights, rebind
from trimtab.moments import MOMENTS
from trimtab.neurons import Neurons
from trimtab.ranking import ClassMoments, LabelledMoments, class_moments, column_norms
from trimtab.recording import record_batch
from trimtab.steering import Steering
from trimtab.tasks import render_prompt
from trimtab.traces import Split, Trace


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


def carry(bench: Workbench, other: LanguageModel) -> Carried:
    """Match the found neurons on the contrast's chains and measure the partners' class means on them.

    The chains are the first model's, teacher-forced in the other one. The partners' own class means, rather than the first
    model's scaled by the ratio of the standard deviations, bring scale, offset and sign, and every intervention can read them.
    """
    pairs = shared_texts(bench, other)
    pooled = other.tokenizer_fingerprint != bench.model.tokenizer_fingerprint
    found = Addresses(bench.steering.layer, bench.steering.index)
    match = match_neurons(bench.model, other, found, pairs, bench.scope, pooled=pooled, seed=bench.settings.seed)
    moments = moments_on(bench, other, [pair.target for pair in pairs])
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
        criterion=f"{bench.criterion}, matched",
        model=other.identity,
    )
    predicted = match.sign * bench.class_moments.mean_difference[found.layer, found.index]
    return Carried(
        match=match,
        pooled=pooled,
        by_index=rebind(bench.steering, other.identity) if match.is_fine_tune else None,
        matched=matched,
        own=neurons_of(bench.on(other, bench.folder), moments, bench.criterion, bench.k),
        same_direction=float((np.sign(predicted) == np.sign(correct_mean - incorrect_mean)).mean()),
    )


def shared_texts(bench: Workbench, other: LanguageModel) -> list[TextPair]:
    """The contrast's chains as both models read them: the same ids, or tokenised again where the tokenizers differ.

    Raises:
        NotEnoughDataError: no response has two tokens.
    """
    wanted = {row.trace_id for row in bench.contrast}
    traces = [trace for trace in bench.traces if trace.id in wanted]
    if other.tokenizer_fingerprint == bench.model.tokenizer_fingerprint:
        return [TextPair(trace, trace) for trace in traces]
    questions = {problem.id: problem.question for problem in bench.split(Split.TRAIN)}
    again = with_response([_retokenised(trace, questions[trace.problem_id], bench, other) for trace in traces]).traces
    by_id = {trace.id: trace for trace in traces}
    return [TextPair(by_id[trace.id], trace) for trace in again]


def moments_on(bench: Workbench, other: LanguageModel, traces: Sequence[Trace]) -> ClassMoments:
    """Class moments of the contrast's chains in another model, from one pass over them; nothing is written."""
    rows = {row.trace_id: row for row in bench.contrast}

    def parts() -> Iterator[LabelledMoments]:
        for batch in batches(other, traces, BATCH_TOKENS):
            moments = record_batch(other, batch, (bench.scope,), MOMENTS)[bench.scope]
            labels = [rows[trace.id] for trace in batch]
            yield moments, [row.problem_id for row in labels], [row.correct for row in labels]

    counts = Counter(rows[trace.id].problem_id for trace in traces)
    moments = class_moments(parts(), counts, STATISTICS)
    return replace(moments, column_norm=column_norms(down_weights(other, range(other.n_layers))))


def _retokenised(trace: Trace, question: str, bench: Workbench, other: LanguageModel) -> Trace:
    prompt_ids = render_prompt(other.tokenizer, question, bench.prompt)
    return replace(trace, prompt_ids=prompt_ids, response_ids=tuple(other.tokenizer.encode(trace.text, add_special_tokens=False)))
