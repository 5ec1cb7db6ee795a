"""Continuations of a response from any of its tokens: unsteered, at another strength, or with another token."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers import DynamicCache

from trimtab.analysis.token_record import JudgedResponse
from trimtab.errors import InputError
from trimtab.model import LanguageModel, attach
from trimtab.sampling.batch import end_tokens
from trimtab.steering import Steering
from trimtab.tasks import grade_traces
from trimtab.traces import Problem, Trace

if TYPE_CHECKING:
    from trimtab.study.study import Study


@dataclass(frozen=True, slots=True)
class Fork:
    """A response that was continued from one of its tokens.

    Args:
        kept: tokens of the old response before the fork.
        ids: tokens after it, the forced one first where there is one.
        p: probability of each.
        finish: ``stop`` or ``length``.
    """

    kept: tuple[int, ...]
    ids: tuple[int, ...]
    p: tuple[float, ...]
    finish: str


@torch.inference_mode()
def fork(
    model: LanguageModel,
    response: JudgedResponse,
    steering: Steering,
    at: int,
    *,
    strength: float,
    forced: int | None = None,
    max_new_tokens: int,
) -> Fork:
    """Drop a response's tokens from ``at`` on and continue greedily.

    What was said before stays as it was said: its keys and values are those of the old response, steered where that was. The
    forward that chooses token ``at`` is the first at the new strength.

    Args:
        at: the first token that is taken back.
        strength: from there on, whatever the gate said; 0 is the bare model.
        forced: the token to go on with, in place of the model's choice.
        max_new_tokens: of the whole response.

    Raises:
        InputError: no such token.
    """
    trace = response.trace
    if not 0 <= at < len(trace.response_ids):
        raise InputError(f"this response has {len(trace.response_ids)} tokens; there is none at {at}")
    kept = trace.response_ids[:at]
    cache = _said_before(model, response, steering, kept)
    ends = set(end_tokens(model))
    ids: list[int] = []
    p: list[float] = []
    step = _Step(model, cache)
    last = (*trace.prompt_ids, *kept)[-1]
    if not kept and steering.scope == "generated":
        # the last prompt token is never steered in this scope
        step.logits = step.forward(last)
    with _steered(model, steering, strength):
        while len(kept) + len(ids) < max_new_tokens:
            logits = step.take() if step.logits is not None else step.forward(last)
            logprob = log_softmax(logits.float(), -1)
            token = forced if forced is not None and not ids else int(logprob.argmax())
            ids.append(token)
            p.append(float(logprob[token].exp()))
            if token in ends:
                return Fork(kept, tuple(ids), tuple(p), "stop")
            last = token
    return Fork(kept, tuple(ids), tuple(p), "length")


class _Step:
    """One token after the other on one cache."""

    def __init__(self, model: LanguageModel, cache: DynamicCache) -> None:
        self._model, self._cache = model, cache
        self.logits: Tensor | None = None

    def forward(self, token: int) -> Tensor:
        ids = torch.tensor([[token]], device=self._model.device)
        return self._model.hf_model(input_ids=ids, past_key_values=self._cache, use_cache=True).logits[0, -1]

    def take(self) -> Tensor:
        assert self.logits is not None
        logits, self.logits = self.logits, None
        return logits


def _said_before(model: LanguageModel, response: JudgedResponse, steering: Steering, kept: tuple[int, ...]) -> DynamicCache:
    """The cache of all tokens before the fork but the last, which is forwarded at the new strength."""
    prompt = response.trace.prompt_ids
    ids = (*prompt, *kept)[:-1]
    cache = DynamicCache(config=model.hf_model.config)
    if not ids:
        return cache
    context = nullcontext()
    if response.strength and (kept or steering.scope != "generated"):
        lengths = [min(len(prompt), len(ids))]
        context = attach(model, steering, strength=response.strength, gate="on", prompt_lengths=lengths)
    with context:
        model.layout.base(input_ids=torch.tensor([ids], device=model.device), past_key_values=cache, use_cache=True)
    return cache


def _steered(model: LanguageModel, steering: Steering, strength: float):
    return attach(model, steering, strength=strength, gate="on") if strength else nullcontext()


def forked_answer(
    study: "Study", problem: Problem, found: Fork, pieces: Callable[[tuple[int, ...], str], tuple[str, ...]]
) -> dict[str, object]:
    """What the page shows of a fork: the text before it, the pieces after it, and how the whole is graded."""
    ids = (*found.kept, *found.ids)
    text = str(study.model.tokenizer.decode(list(ids), skip_special_tokens=True))
    trace = Trace(f"{problem.id}/0", problem.id, 0, (), ids, text, found.finish)
    grade = grade_traces([trace], {problem.id: problem}, study.grader, checker=study.checker)[0]
    parts = pieces(ids, text)
    return {
        "before": "".join(parts[: len(found.kept)]),
        "pieces": parts[len(found.kept) :],
        "p": found.p,
        "score": grade.score.value,
        "answer": grade.answer,
        "reason": grade.reason,
        "steps": grade.quality,
        "text": text,
    }
