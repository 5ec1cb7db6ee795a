"""The generation loop: one batch, left-padded, one cache, finished rows dropped as they end."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor
from transformers import DynamicCache

from trimtab.errors import InputError, ModelError
from trimtab.model import Attachment, LanguageModel, attach
from trimtab.sampling.attention import grouped_attention
from trimtab.sampling.cache import keep_rows, new_cache
from trimtab.sampling.draw import draw_tokens, uniforms
from trimtab.sampling.recorder import Recorder
from trimtab.sampling.settings import SamplingSettings
from trimtab.steering import Steering

DROP_SHARE = 0.25
"""Finished rows are dropped once they are this share of the batch: each drop copies the cache."""
NOTHING = -1


@dataclass(frozen=True, slots=True)
class Request:
    """One sequence to generate. ``seed`` is its own (see :func:`trimtab.sampling.draw.row_seed`)."""

    id: str
    prompt_ids: tuple[int, ...]
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Generation:
    """What was generated, end token included; ``p_fail`` is the gate's probability where a gate was read."""

    id: str
    response_ids: tuple[int, ...]
    finish: Literal["stop", "length"]
    p_fail: float | None = None


class _Rows:
    """The rows still being generated: which requests they are, their tokens, mask and next position."""

    def __init__(self, requests: Sequence[Request], pad: int, device: torch.device, max_new_tokens: int) -> None:
        width = max(len(request.prompt_ids) for request in requests)
        self.origin = torch.arange(len(requests), device=device)
        self.input_ids = torch.full((len(requests), width), pad, device=device)
        self.mask = torch.zeros((len(requests), width + max_new_tokens), dtype=torch.long, device=device)
        for row, request in enumerate(requests):
            start = width - len(request.prompt_ids)
            self.input_ids[row, start:] = torch.tensor(request.prompt_ids, device=device)
            self.mask[row, start:] = 1
        self.filled = width
        self.positions = (self.mask[:, :width].cumsum(-1) - 1).clamp_(min=0)
        self.seeds = torch.tensor([request.seed for request in requests], device=device)
        self.finished = torch.zeros(len(requests), dtype=torch.bool, device=device)

    def append(self, tokens: Tensor) -> None:
        self.mask[:, self.filled] = 1
        self.input_ids = tokens[:, None]
        self.positions = self.positions[:, -1:] + 1
        self.filled += 1

    def keep(self, rows: Tensor) -> None:
        for name in ("origin", "input_ids", "mask", "positions", "seeds", "finished"):
            setattr(self, name, getattr(self, name)[rows])


def end_tokens(model: LanguageModel) -> tuple[int, ...]:
    """Ids that end a response: the generation config's and the tokenizer's."""
    configured = model.hf_model.generation_config.eos_token_id if model.hf_model.generation_config else None
    named = [model.tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])]
    ends = tuple(sorted({i for i in named if isinstance(i, int)}))
    if not ends:
        raise ModelError(f"{model.identity.name} names no end-of-sequence token; set eos_token_id in its generation_config.json")
    return ends


@torch.inference_mode()
def generate_batch(
    model: LanguageModel,
    requests: Sequence[Request],
    settings: SamplingSettings,
    steering: Steering | None = None,
    gate: Literal["auto", "on", "off"] = "auto",
    recorder: Recorder | None = None,
) -> list[Generation]:
    """Generate all requests as one batch, in their order.

    The gate reads the prefill that starts the generation, so a gated run costs one model and one pass. Each row draws from its
    own seed. A recorder reads the same forwards and changes no token.

    Raises:
        ModelError: a logit is NaN, or the model cannot be steered.
        InputError: a steering and a recorder.
    """
    if steering is not None and recorder is not None:
        raise InputError("moments of a steered model would not be those that a ranking contrasts; record without a steering")
    context = nullcontext()
    if steering is not None:
        context = attach(model.hf_model, steering, gate=gate, layout=model.layout, identity=model.identity)
    with context as attachment, grouped_attention(model.hf_model), recorder or nullcontext():
        return _loop(model, requests, settings, attachment, recorder)


def _loop(
    model: LanguageModel,
    requests: Sequence[Request],
    settings: SamplingSettings,
    attachment: Attachment | None,
    recorder: Recorder | None,
) -> list[Generation]:
    ends = torch.tensor(end_tokens(model), device=model.device)
    rows = _Rows(requests, cast("int", model.tokenizer.pad_token_id), model.device, settings.max_new_tokens)
    cache = new_cache(model.hf_model.config, rows.filled + settings.max_new_tokens)
    output = torch.full((len(requests), settings.max_new_tokens), NOTHING, device=model.device)
    probability: list[float] | None = None
    if recorder is not None:
        recorder.begin([len(request.prompt_ids) for request in requests])
    step = 0
    for step in range(settings.max_new_tokens):
        logits = _forward(model, rows, cache)
        if step == 0 and attachment is not None and attachment.probability is not None:
            probability = attachment.probability.tolist()
        tokens = draw_tokens(logits, uniforms(rows.seeds, step), settings.temperature, settings.top_p)
        output[rows.origin, step] = tokens.masked_fill(rows.finished, NOTHING)
        ending = torch.isin(tokens, ends) & ~rows.finished
        rows.finished |= ending
        # a NaN anywhere in a row's last hidden state makes all of its logits NaN, so one column is enough to see it
        counts = torch.stack((rows.finished.sum(), ending.sum(), logits[:, 0].isnan().sum()))
        finished, new, broken = counts.tolist()
        if broken:
            raise ModelError(f"{model.identity.name} gave NaN logits for {broken} of {len(tokens)} rows; try dtype float32")
        if new and recorder is not None:
            recorder.finish(_numbers(ending), step)
        if finished == len(tokens):
            break
        rows.append(tokens)
        if finished >= DROP_SHARE * len(tokens):
            kept = _numbers(~rows.finished)
            rows.keep(kept)
            keep_rows(cache, kept)
            for follower in (attachment, recorder):
                if follower is not None:
                    follower.select_rows(kept)
    if recorder is not None:
        recorder.finish(_numbers(~rows.finished), step)
    return _collect(requests, output, probability, set(ends.tolist()))


def _forward(model: LanguageModel, rows: _Rows, cache: DynamicCache) -> Tensor:
    """Logits of each row's next token, ``[row, vocabulary]``."""
    return model.hf_model(
        input_ids=rows.input_ids,
        attention_mask=rows.mask[:, : rows.filled],
        position_ids=rows.positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]


def _numbers(mask: Tensor) -> Tensor:
    return mask.nonzero().squeeze(-1)


def _collect(requests: Sequence[Request], output: Tensor, probability: list[float] | None, ends: set[int]) -> list[Generation]:
    generations = []
    for row, (request, ids) in enumerate(zip(requests, output.tolist(), strict=True)):
        response = tuple(ids[: ids.index(NOTHING)] if NOTHING in ids else ids)
        finish = "stop" if response[-1] in ends else "length"
        generations.append(Generation(request.id, response, finish, probability[row] if probability else None))
    return generations
