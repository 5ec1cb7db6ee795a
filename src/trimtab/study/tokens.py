"""The tokens of the judged pair: which responses of the unsteered model and of the judged condition are recorded, and under which
key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trimtab.analysis.contributions import why_not
from trimtab.analysis.passes import find_readout
from trimtab.analysis.token_record import JudgedResponse, TokenRecord, tokens_job
from trimtab.errors import ModelError
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.rows import UNSTEERED
from trimtab.evaluation.runner import Condition, read_response_ids
from trimtab.evaluation.verdict import matched
from trimtab.gate import RandomOpening, RunningGate
from trimtab.steering import Steering
from trimtab.store import AnyPath, Entry, digest_of
from trimtab.study import find
from trimtab.tasks import render_prompt
from trimtab.traces import Problem, Trace

if TYPE_CHECKING:
    from trimtab.study.study import Study

TOKEN_LIMIT = 2_000_000
"""Tokens that are recorded at most: of all flips first, then of other pairs in the order of a hash."""
CPU_POSITIONS = 4_096
"""Positions of one forward on a CPU, whose caches hold the activations of that many and no more: a quarter faster than 16,384."""


@dataclass(frozen=True, slots=True, eq=False)
class PairTokens:
    """The tokens of the unsteered and of the judged responses.

    Args:
        responses: of every recorded response by its name: its tokens, and the strength (times g) that acted on it.
        record: what the model said of them.
        steering: that acted on the judged ones.
        probe: the running gate whose p(fail) is recorded; None where the study has none.
    """

    responses: Mapping[str, JudgedResponse]
    record: TokenRecord
    steering: Steering
    probe: RunningGate | None = None


def response_name(outcome: Outcome) -> str:
    """What the record calls a response."""
    return f"{outcome.condition}/{outcome.seed}/{outcome.problem_id}/{outcome.sample}"


def record_tokens(
    study: "Study",
    judged: Condition,
    outcomes: Mapping[str, Sequence[Outcome]],
    entries: Mapping[str, Sequence[Entry]],
    problems: Sequence[Problem],
) -> PairTokens | None:
    """Record the pair's tokens in one teacher-forced pass, or read them.

    None where the responses' tokens were not kept, or where this architecture's logits are not understood, which is noted.

    A judged response whose gate did not fire has the unsteered one's tokens, and is not forwarded a second time.

    Args:
        judged: the condition of the verdict.
        outcomes: of the unsteered model and of that condition, by name.
        entries: of the answers of both, one a seed, by name.
        problems: that were answered.
    """
    steering = judged.steering
    assert steering is not None
    if isinstance(steering.gate, RunningGate | RandomOpening):
        study.note("the tokens of the judged pair are not recorded: their gate decides again at each token")
        return None
    ids = {name: [read_response_ids(entry.folder) for entry in found] for name, found in entries.items()}
    if any(each is None for found in ids.values() for each in found):
        return None
    seeds = sorted({outcome.seed for outcome in outcomes[UNSTEERED]})
    tokens = {
        f"{name}/{seed}/{trace_id}": response
        for name, found in ids.items()
        for seed, each in zip(seeds, found, strict=True)
        for trace_id, response in (each or {}).items()
    }
    by_id = {problem.id: problem for problem in problems}
    prompts = {
        problem_id: render_prompt(study.model.tokenizer, problem.question, study.settings.prompt)
        for problem_id, problem in by_id.items()
    }
    responses = _chosen(judged, steering, outcomes, tokens, prompts)
    recorded = _without_repeats(responses, outcomes)
    probe = find.fit_running_gate(study) if study.settings.evaluation.gates else None
    batch_tokens = study.settings.recording.batch_tokens
    if study.model.device.type == "cpu":
        batch_tokens = min(batch_tokens, CPU_POSITIONS)
    facts = {
        "answers": {name: [entry.name for entry in found] for name, found in entries.items()},
        "steering": steering.digest,
        "responses": digest_of({name: response.strength for name, response in recorded.items()}),
        "batch_tokens": batch_tokens,
        **({} if probe is None else {"probe": study.keys["running-gate"]}),
    }
    entry = study.entry("tokens", {**facts, **study.forward_facts()})

    def work(folder: AnyPath) -> None:
        reason = why_not(study.model, steering, find_readout(study.model))
        job = tokens_job(study.model, recorded, steering, folder, batch_tokens=batch_tokens, why_not=reason, probe=probe)
        study.run([job])

    try:
        record = study.compute("tokens", entry, work, TokenRecord)
    except ModelError as error:  # the verdict does not hang on what the view would show
        study.note(f"the tokens of the judged pair are not recorded, so the view has no probabilities: {error}")
        return None
    return PairTokens(responses, record, steering, probe)


def _chosen(
    judged: Condition,
    steering: Steering,
    outcomes: Mapping[str, Sequence[Outcome]],
    tokens: Mapping[str, tuple[int, ...]],
    prompts: Mapping[str, tuple[int, ...]],
) -> dict[str, JudgedResponse]:
    """The responses of the pairs within the limit, with the strength that acted on each."""
    pairs = matched(outcomes[UNSTEERED], outcomes[judged.name])
    pairs.sort(key=lambda pair: (pair[0].correct == pair[1].correct, digest_of(response_name(pair[0]))))
    responses: dict[str, JudgedResponse] = {}
    total = 0
    for pair in pairs:
        total += sum(outcome.tokens for outcome in pair)
        if total > TOKEN_LIMIT and responses:
            break
        for outcome in pair:
            name = response_name(outcome)
            strength = 0.0 if outcome.condition == UNSTEERED else steering.strength * _g(judged, outcome)
            trace = Trace(
                name, outcome.problem_id, outcome.sample, prompts[outcome.problem_id], tokens[name], outcome.response, "stop"
            )
            responses[name] = JudgedResponse(trace, strength)
    return responses


def _g(judged: Condition, outcome: Outcome) -> float:
    assert judged.steering is not None
    gate = judged.steering.gate
    if judged.gate == "on" or isinstance(gate, RandomOpening):
        return 1.0
    p_fail = np.array([0.0 if outcome.p_fail is None else outcome.p_fail])
    return float(gate.value(p_fail)[0])


def same_as(name: str, judged: Outcome, base: Outcome, responses: Mapping[str, JudgedResponse]) -> str:
    """The name under which a judged response is recorded: the unsteered one's where nothing acted and the tokens are the same."""
    own, other = responses[name], responses[response_name(base)]
    same = own.strength == 0 and own.trace.response_ids == other.trace.response_ids
    return response_name(base) if same and judged.condition != UNSTEERED else name


def _without_repeats(
    responses: Mapping[str, JudgedResponse], outcomes: Mapping[str, Sequence[Outcome]]
) -> dict[str, JudgedResponse]:
    base, judged = outcomes.values()
    kept = {}
    for before, after in matched(base, judged):
        for outcome in (before, after):
            name = response_name(outcome)
            if name in responses and same_as(name, outcome, before, responses) == name:
                kept[name] = responses[name]
    return kept
