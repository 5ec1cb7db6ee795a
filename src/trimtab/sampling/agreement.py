"""Where two engines part on the same greedy requests, and how near a tie it was there."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from trimtab.errors import InputError
from trimtab.model import LanguageModel, attach
from trimtab.sampling.batch import Request
from trimtab.sampling.decoding import NEAR_TIE
from trimtab.sampling.generate import Generation
from trimtab.steering import Steering


@dataclass(frozen=True, slots=True)
class Parting:
    """The first token in which two answers to a request differ.

    Args:
        id: of the request.
        step: of the token in the response, from 0.
        gap: between the two best logits there, by the transformers model.
    """

    id: str
    step: int
    gap: float

    @property
    def near_tie(self) -> bool:
        """Whether rounding may have decided."""
        return self.gap < NEAR_TIE


@torch.inference_mode()
def partings(
    model: LanguageModel,
    requests: Sequence[Request],
    ours: Sequence[Generation],
    theirs: Sequence[Generation],
    steering: Steering | None = None,
    gate: Literal["auto", "on", "off"] = "auto",
) -> list[Parting]:
    """Every request that was answered in two ways. Greedy answers of exact engines part at near ties only.

    Args:
        model: the model.
        requests: that both have answered.
        ours, theirs: in the order of the requests.
        steering, gate: under which they did.

    Raises:
        InputError: answers to other requests.
    """
    found = []
    for request, one, other in zip(requests, ours, theirs, strict=True):
        if {request.id} != {one.id, other.id}:
            raise InputError(
                f"answers to {one.id!r} and {other.id!r} were given for the request {request.id!r}; keep their order"
            )
        if one.response_ids != other.response_ids:
            pairs = enumerate(zip(one.response_ids, other.response_ids, strict=False))
            step = next((i for i, (a, b) in pairs if a != b), min(len(one.response_ids), len(other.response_ids)))
            gap = _gap(model, request.prompt_ids, one.response_ids[:step], steering, gate)
            found.append(Parting(request.id, step, gap))
    return found


def _gap(
    model: LanguageModel,
    prompt: Sequence[int],
    response: Sequence[int],
    steering: Steering | None,
    gate: Literal["auto", "on", "off"],
) -> float:
    row = torch.tensor([[*prompt, *response]], device=model.device)
    context = nullcontext()
    if steering is not None:
        context = attach(
            model.hf_model, steering, gate=gate, layout=model.layout, identity=model.identity, prompt_lengths=[len(prompt)]
        )
    with context:
        logits = model.hf_model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False, logits_to_keep=1).logits
    first, second = logits[0, -1].float().topk(2).values.tolist()
    return first - second
