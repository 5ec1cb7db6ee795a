"""The generation loop: one batch, left-padded, one cache, finished rows dropped as they end."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList

from trimtab.errors import InputError, ModelError
from trimtab.model import Attachment, LanguageModel, attach
from trimtab.model.running import Course
from trimtab.sampling.batch import NOTHING, Followers, Request, Rows, drop_finished, end_tokens, forward, numbers
from trimtab.sampling.decoding import SamplingSettings, draw_tokens, grouped_attention, keep_rows, new_cache, uniforms
from trimtab.sampling.drafts import ROOM, draft_ids, follow_drafts
from trimtab.sampling.prefills import Prefills, shared_tokens
from trimtab.sampling.recorder import Recorder
from trimtab.sampling.ways import way_of
from trimtab.steering import Steering


@dataclass(frozen=True, slots=True)
class Generation:
    """What was generated, end token included; ``p_fail`` is the gate's probability where a gate was read.

    ``course`` is what a running gate decided at each token but the last, which is not forwarded; None without one.
    """

    id: str
    response_ids: tuple[int, ...]
    finish: Literal["stop", "length"]
    p_fail: float | None = None
    course: Course | None = None


@torch.inference_mode()
def generate_batch(
    model: LanguageModel,
    requests: Sequence[Request],
    settings: SamplingSettings,
    steering: Steering | None = None,
    gate: Literal["auto", "on", "off"] = "auto",
    recorder: Recorder | None = None,
    prefills: Prefills | None = None,
    drafts: Mapping[str, Sequence[int]] | None = None,
) -> list[Generation]:
    """Generate all requests as one batch, in their order.

    The gate reads the prefill that starts the generation, so a gated run costs one model and one pass. A prompt that several
    requests have in common is read once, and so is a beginning that all prompts have in common, such as solved examples. Each
    row draws from its own seed. A recorder reads the same forwards and changes no token; only where it, or steering, needs whole
    prompts, a common beginning is not read by itself, so that logits differ by rounding.

    ``prefills`` keep what earlier calls read of the same prompts: this call does not read them again, unless a gate or the
    steering needs their activations.

    ``drafts`` are the bare model's greedy responses to the same requests, by id. A greedy steered response is then searched for
    the token where it departs from its draft, many tokens in one forward, and written token by token from there on; see
    :mod:`trimtab.sampling.drafts`. They change the time that it takes and no token.

    Raises:
        ModelError: a logit is NaN, or the model cannot be steered.
        InputError: a steering and a recorder.
    """
    if empty := [request.id for request in requests if not request.prompt_ids]:
        raise InputError(f"the prompt of request {empty[0]!r} is empty ({len(empty)} of {len(requests)}); nothing can follow it")
    way = way_of(model)
    if recorder is not None and way.by_generate:
        raise ModelError(f"this model cannot be recorded while it is sampled ({way.reason}); record its traces afterwards")
    if steering is not None and recorder is not None:
        raise InputError("moments of a steered model would not be those that a ranking contrasts; record without a steering")
    context, known, shared = nullcontext(), None, shared_tokens(model, requests, settings.max_new_tokens)
    if steering is not None:
        if drafts is not None and settings.temperature == 0.0 and not way.by_generate:
            known = draft_ids(model, requests, drafts, settings)
        context = attach(model.hf_model, steering, gate=gate, layout=model.layout, identity=model.identity)
    with context as attachment:
        if way.by_generate:
            return _one_by_one(model, requests, settings, attachment)
        with grouped_attention(model.hf_model) if way.grouped else nullcontext(), recorder or nullcontext():
            if attachment is not None and attachment.runs:
                known = None  # its gate decides between one token and the next
            return _loop(model, requests, settings, Followers(attachment, recorder), prefills, known, way.drops, shared)


def _read_prompts(
    model: LanguageModel,
    requests: Sequence[Request],
    room: int,
    followers: Followers,
    prefills: Prefills | None,
    drops: bool,
    shared: int,
) -> tuple[Tensor, DynamicCache]:
    """The logits of each response's first token, ``[row, vocabulary]``, and the cache, from one forward over distinct prompts.

    Where rows of this model's cache cannot be selected, each request has a row of its own. The first ``shared`` tokens, with
    which all prompts begin, are read by themselves, in one row.
    """
    numbers = {prompt: row for row, prompt in enumerate(dict.fromkeys(request.prompt_ids for request in requests))}
    repeated = drops and len(numbers) < len(requests)
    prompts = list(numbers) if repeated else [request.prompt_ids for request in requests]
    found = None
    if prefills is not None and not followers.need_prompts:
        found = prefills.get(prompts, model.hf_model.config, room)
    if found is None:
        rows = Rows([Request("", prompt) for prompt in prompts], model, room, shared)
        cache = new_cache(model.hf_model.config, rows.filled + room)
        if shared:
            with followers.reading_beginning():
                forward(model, Rows([Request("", prompts[0][:shared])], model, 0), cache)
            keep_rows(cache, torch.zeros(len(prompts), dtype=torch.long, device=model.device))
        if followers.recorder is not None:
            followers.recorder.begin([len(prompt) - shared for prompt in prompts])
        logits = forward(model, rows, cache)[:, -1]
        if prefills is not None and not followers.need_prompts:
            prefills.keep(prompts, logits, cache, shared)
    else:
        logits, cache = found
    if repeated:
        rows_of = torch.tensor([numbers[request.prompt_ids] for request in requests], device=model.device)
        logits = logits[rows_of]
        keep_rows(cache, rows_of)
        if found is None:
            followers.repeat_rows(rows_of)
    return logits, cache


def _loop(
    model: LanguageModel,
    requests: Sequence[Request],
    settings: SamplingSettings,
    followers: Followers,
    prefills: Prefills | None,
    drafts: Tensor | None,
    drops: bool,
    shared: int,
) -> list[Generation]:
    attachment, recorder = followers
    ends = torch.tensor(end_tokens(model, settings.stop), device=model.device)
    room = settings.max_new_tokens * (1 if drafts is None else ROOM)
    shared = 0 if followers.need_whole_prompts else shared
    rows = Rows(requests, model, room, shared)
    logits, cache = _read_prompts(model, requests, room, followers, prefills, drops, shared)
    output = torch.full((len(requests), settings.max_new_tokens + 1), NOTHING, device=model.device)
    probability: list[float] | None = None
    if attachment is not None and attachment.probability is not None:
        probability = attachment.probability.tolist()
    if drafts is not None:
        logits = follow_drafts(model, rows, cache, logits, drafts, output, ends, followers)
    step = 0
    while len(rows):
        tokens = draw_tokens(logits, uniforms(rows.seeds, step), settings.temperature, settings.top_p)
        output[rows.origin, rows.made] = tokens.masked_fill(rows.finished, NOTHING)
        rows.made += ~rows.finished
        ending = (torch.isin(tokens, ends) | (rows.made == settings.max_new_tokens)) & ~rows.finished
        rows.finished |= ending
        # a NaN anywhere in a row's last hidden state makes all of its logits NaN, so one column is enough to see it
        counts = torch.stack((rows.finished.sum(), ending.sum(), logits[:, 0].isnan().sum()))
        finished, new, broken = counts.tolist()
        if broken:
            raise ModelError(
                f"{model.identity.name} gave NaN logits for {broken} of {len(tokens)} rows; try dtype float32", code="nan-logits"
            )
        if new and recorder is not None:
            recorder.finish(numbers(ending), step)
        if finished == len(tokens):
            break
        rows.read(tokens[:, None])
        if drops:
            drop_finished(rows, cache, followers, finished)
        logits = forward(model, rows, cache)[:, -1]
        step += 1
    return _collect(requests, output, probability, set(ends.tolist()), _courses(attachment))


class _Draw(LogitsProcessor):
    """Leaves one token: the one that the row's own seed draws."""

    def __init__(self, model: LanguageModel, request: Request, settings: SamplingSettings) -> None:
        self._name, self._prompt, self._settings = model.identity.name, len(request.prompt_ids), settings
        self._seeds = torch.tensor([request.seed], device=model.device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if scores.isnan().any():
            raise ModelError(f"{self._name} gave NaN logits for 1 of 1 rows; try dtype float32", code="nan-logits")
        uniform = uniforms(self._seeds, input_ids.shape[1] - self._prompt)
        token = draw_tokens(scores, uniform, self._settings.temperature, self._settings.top_p)
        return torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0.0)


def _one_by_one(
    model: LanguageModel, requests: Sequence[Request], settings: SamplingSettings, attachment: Attachment | None
) -> list[Generation]:
    ends = end_tokens(model, settings.stop)
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=list(ends),
        pad_token_id=model.tokenizer.pad_token_id,
        repetition_penalty=1.0,
    )
    generations = []
    for request in requests:
        ids = torch.tensor([request.prompt_ids], device=model.device)
        drawn = model.hf_model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=config,
            logits_processor=LogitsProcessorList([_Draw(model, request, settings)]),
        )
        response = tuple(drawn[0, len(request.prompt_ids) :].tolist())
        read = None if attachment is None or attachment.probability is None else attachment.probability[0].item()
        (course,) = _courses(attachment) or (None,)
        finish = "stop" if response[-1] in ends else "length"
        generations.append(Generation(request.id, response, finish, read, course))
    return generations


def _courses(attachment: Attachment | None) -> list[Course] | None:
    return attachment.courses if attachment is not None and attachment.runs else None


def _collect(
    requests: Sequence[Request],
    output: Tensor,
    probability: list[float] | None,
    ends: set[int],
    courses: list[Course] | None,
) -> list[Generation]:
    generations = []
    for row, (request, ids) in enumerate(zip(requests, output.tolist(), strict=True)):
        response = tuple(ids[: ids.index(NOTHING)])
        finish = "stop" if response[-1] in ends else "length"
        course = courses[row].upto(len(response) - 1) if courses else None
        generations.append(Generation(request.id, response, finish, probability[row] if probability else None, course))
    return generations
