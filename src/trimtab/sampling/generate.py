"""The generation loop: one batch, left-padded, one cache, finished rows dropped as they end; proved on each model first."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList

from trimtab.errors import InputError, ModelError
from trimtab.model import Attachment, LanguageModel, attach
from trimtab.model.running import Course
from trimtab.sampling.decoding import SamplingSettings, draw_tokens, grouped_attention, keep_rows, new_cache, uniforms
from trimtab.sampling.prefills import Prefills
from trimtab.sampling.recorder import Recorder
from trimtab.steering import Steering

logger = logging.getLogger(__name__)

DROP_SHARE = 0.1
"""Finished rows are dropped once they are this share of the batch: each drop copies the cache."""
NOTHING = -1


@dataclass(frozen=True, slots=True)
class Request:
    """One sequence to generate. ``seed`` is its own (see :func:`trimtab.sampling.decoding.row_seed`)."""

    id: str
    prompt_ids: tuple[int, ...]
    seed: int = 0


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


class _Rows:
    """The rows still being generated: which requests they are, their tokens, mask and next position."""

    def __init__(self, requests: Sequence[Request], model: LanguageModel, max_new_tokens: int) -> None:
        width = max(len(request.prompt_ids) for request in requests)
        pad, device = cast("int", model.tokenizer.pad_token_id), model.device
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


def end_tokens(model: LanguageModel, stop: tuple[str, ...] = ()) -> tuple[int, ...]:
    """Ids that end a response: the generation config's, the tokenizer's, and every token whose text contains a text of ``stop``.

    Raises:
        ModelError: the model names no end of a sequence.
        InputError: no token contains a text of ``stop``, which a response could never end with.
    """
    configured = model.hf_model.generation_config.eos_token_id if model.hf_model.generation_config else None
    named = [model.tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])]
    ends = tuple(sorted({i for i in named if isinstance(i, int)}))
    if not ends:
        raise ModelError(f"{model.identity.name} names no end-of-sequence token; set eos_token_id in its generation_config.json")
    return tuple(sorted({*ends, *(i for text in stop for i in _containing(model, text))}))


def _containing(model: LanguageModel, text: str) -> tuple[int, ...]:
    known = _stops.setdefault(model.hf_model, {})
    if text not in known:
        words = model.tokenizer.batch_decode([[i] for i in range(len(model.tokenizer))])
        known[text] = tuple(i for i, word in enumerate(words) if text and text in word)
    if not known[text]:
        raise InputError(f"sampling.stop has {text!r}, which no single token contains; give a shorter text, such as a line break")
    return known[text]


@torch.inference_mode()
def generate_batch(
    model: LanguageModel,
    requests: Sequence[Request],
    settings: SamplingSettings,
    steering: Steering | None = None,
    gate: Literal["auto", "on", "off"] = "auto",
    recorder: Recorder | None = None,
    prefills: Prefills | None = None,
) -> list[Generation]:
    """Generate all requests as one batch, in their order.

    The gate reads the prefill that starts the generation, so a gated run costs one model and one pass. A prompt that several
    requests have in common is read once. Each row draws from its own seed. A recorder reads the same forwards and changes no
    token.

    ``prefills`` keep what earlier calls read of the same prompts: this call does not read them again, unless a gate or the
    steering needs their activations.

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
    context = nullcontext()
    if steering is not None:
        context = attach(model.hf_model, steering, gate=gate, layout=model.layout, identity=model.identity)
    with context as attachment:
        if way.by_generate:
            return _one_by_one(model, requests, settings, attachment)
        with grouped_attention(model.hf_model) if way.grouped else nullcontext(), recorder or nullcontext():
            return _loop(model, requests, settings, _Followers(attachment, recorder), prefills, way.drops)


class _Followers(NamedTuple):
    """What looks at every forward and has to know its rows."""

    attachment: Attachment | None
    recorder: Recorder | None

    @property
    def need_prompts(self) -> bool:
        return self.recorder is not None or (self.attachment is not None and self.attachment.reads_prompts)

    def select_rows(self, rows: Tensor) -> None:
        if self.attachment is not None and self.attachment.coefficient is not None:
            self.attachment.select_rows(rows)
        if self.recorder is not None:
            self.recorder.select_rows(rows)

    def repeat_rows(self, rows: Tensor) -> None:
        if self.attachment is not None:
            self.attachment.repeat_rows(rows)
        if self.recorder is not None:
            self.recorder.repeat_rows(rows)


def _read_prompts(
    model: LanguageModel,
    requests: Sequence[Request],
    settings: SamplingSettings,
    followers: _Followers,
    prefills: Prefills | None,
    drops: bool,
) -> tuple[Tensor, DynamicCache]:
    """The logits of each response's first token, ``[row, vocabulary]``, and the cache, from one forward over distinct prompts.

    Where rows of this model's cache cannot be selected, each request has a row of its own.
    """
    numbers = {prompt: row for row, prompt in enumerate(dict.fromkeys(request.prompt_ids for request in requests))}
    repeated = drops and len(numbers) < len(requests)
    prompts = list(numbers) if repeated else [request.prompt_ids for request in requests]
    found = None
    if prefills is not None and not followers.need_prompts:
        found = prefills.get(prompts, model.hf_model.config, settings.max_new_tokens)
    if found is None:
        if followers.recorder is not None:
            followers.recorder.begin([len(prompt) for prompt in prompts])
        rows = _Rows([Request("", prompt) for prompt in prompts], model, settings.max_new_tokens)
        cache = new_cache(model.hf_model.config, rows.filled + settings.max_new_tokens)
        logits = _forward(model, rows, cache)
        if prefills is not None and not followers.need_prompts:
            prefills.keep(prompts, logits, cache)
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
    followers: _Followers,
    prefills: Prefills | None,
    drops: bool,
) -> list[Generation]:
    attachment, recorder = followers
    ends = torch.tensor(end_tokens(model, settings.stop), device=model.device)
    rows = _Rows(requests, model, settings.max_new_tokens)
    logits, cache = _read_prompts(model, requests, settings, followers, prefills, drops)
    output = torch.full((len(requests), settings.max_new_tokens), NOTHING, device=model.device)
    probability: list[float] | None = None
    if attachment is not None and attachment.probability is not None:
        probability = attachment.probability.tolist()
    step = 0
    for step in range(settings.max_new_tokens):
        if step:
            logits = _forward(model, rows, cache)
        tokens = draw_tokens(logits, uniforms(rows.seeds, step), settings.temperature, settings.top_p)
        output[rows.origin, step] = tokens.masked_fill(rows.finished, NOTHING)
        ending = torch.isin(tokens, ends) & ~rows.finished
        rows.finished |= ending
        # a NaN anywhere in a row's last hidden state makes all of its logits NaN, so one column is enough to see it
        counts = torch.stack((rows.finished.sum(), ending.sum(), logits[:, 0].isnan().sum()))
        finished, new, broken = counts.tolist()
        if broken:
            raise ModelError(
                f"{model.identity.name} gave NaN logits for {broken} of {len(tokens)} rows; try dtype float32", code="nan-logits"
            )
        if new and recorder is not None:
            recorder.finish(_numbers(ending), step)
        if finished == len(tokens):
            break
        rows.append(tokens)
        if drops and finished >= DROP_SHARE * len(tokens):
            kept = _numbers(~rows.finished)
            rows.keep(kept)
            keep_rows(cache, kept)
            followers.select_rows(kept)
    if recorder is not None:
        recorder.finish(_numbers(~rows.finished), step)
    return _collect(requests, output, probability, set(ends.tolist()), _courses(attachment))


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


@dataclass(frozen=True, slots=True)
class Way:
    """How batches of a model are generated.

    Args:
        grouped: whether decode attention is computed by groups (:mod:`trimtab.sampling.decoding`).
        drops: whether finished rows are dropped from a batch.
        by_generate: whether ``model.generate`` runs each row by itself, instead of the loop of this module.
        reason: why it is not the first way; empty for the first.
    """

    grouped: bool
    drops: bool
    by_generate: bool = False
    reason: str = ""

    def __str__(self) -> str:
        if self.by_generate:
            return f"row by row through model.generate, since {self.reason}"
        return (
            "padded batches" + ("" if self.drops else ", finished rows kept") + (f", since {self.reason}" if self.reason else "")
        )


_WAYS = (Way(True, True), Way(False, True), Way(False, False))
_PROOF_LENGTHS, _PROOF_TOKENS = (7, 3, 12), 5
_ROW_DROPPED = 1
_PROOF_LIMIT = {torch.float32: 1e-3, torch.float64: 1e-3}
_COARSE_LIMIT = 0.1
_ways: WeakKeyDictionary[nn.Module, Way] = WeakKeyDictionary()
_stops: WeakKeyDictionary[nn.Module, dict[str, tuple[int, ...]]] = WeakKeyDictionary()


@torch.inference_mode()
def way_of(model: LanguageModel) -> Way:
    """The fastest way of generating that this model proves, found once per model.

    The proof: three prompts of different lengths in one left-padded batch, one of them dropped after two tokens, give the logits
    that ``model.generate`` gives for each of them alone. A model that fails it (its padding leaks, its state cannot be selected)
    goes on without grouped attention, then without dropping rows, then row by row through ``model.generate``.
    """
    if model.hf_model not in _ways:
        _ways[model.hf_model] = _proved_way(model)
        if _ways[model.hf_model].reason:
            logger.warning("%s generates %s", model.identity.name, _ways[model.hf_model])
    return _ways[model.hf_model]


def _proved_way(model: LanguageModel) -> Way:
    vocabulary, rng = model.identity.vocab_size, np.random.default_rng(0)
    requests = [Request(str(n), tuple(rng.integers(0, vocabulary, n).tolist())) for n in _PROOF_LENGTHS]
    tokens, alone = zip(*(_alone(model, request) for request in requests), strict=True)
    if not all(logits.isfinite().all() for logits in alone):
        return _WAYS[0]  # broken in every way, as the generation itself will say
    limit = _PROOF_LIMIT.get(model.hf_model.dtype, _COARSE_LIMIT)
    reason = ""
    for way in _WAYS:
        try:
            with grouped_attention(model.hf_model) if way.grouped else nullcontext():
                difference = _difference(model, requests, alone, torch.stack(tokens), way.drops)
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, NotImplementedError) as error:
            first, _, _ = str(error).partition("\n")
            reason = reason or f"a padded batch raised {type(error).__name__}: {first[:100]}"
            continue
        if difference <= limit:
            return replace(way, reason=reason if way.drops is False else "")
        reason = reason or f"a row in a padded batch differs from the row alone (its logits by {difference:.1%})"
    return Way(False, False, by_generate=True, reason=reason)


def _alone(model: LanguageModel, request: Request) -> tuple[Tensor, Tensor]:
    """The first greedy tokens by ``model.generate``, no end among them, and their logits ``[token, vocabulary]``."""
    ids = torch.tensor([request.prompt_ids], device=model.device)
    output = model.hf_model.generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        generation_config=GenerationConfig(
            do_sample=False,
            max_new_tokens=_PROOF_TOKENS,
            min_new_tokens=_PROOF_TOKENS,
            pad_token_id=model.tokenizer.pad_token_id,
            eos_token_id=list(end_tokens(model)),
            output_logits=True,
            return_dict_in_generate=True,
        ),
    )
    return output.sequences[0, len(request.prompt_ids) :], torch.cat(output.logits)


def _difference(model: LanguageModel, requests: Sequence[Request], alone: Sequence[Tensor], tokens: Tensor, drops: bool) -> float:
    """The largest relative difference of a row's logits in a batch from the row's alone, along the same tokens."""
    rows = _Rows(requests, model, _PROOF_TOKENS)
    cache = new_cache(model.hf_model.config, rows.filled + _PROOF_TOKENS)
    worst = 0.0
    for step in range(_PROOF_TOKENS):
        logits = _forward(model, rows, cache)
        for row, origin in enumerate(rows.origin.tolist()):
            expected = alone[origin][step].float()
            difference = torch.linalg.norm(logits[row].float() - expected) / torch.linalg.norm(expected)
            worst = max(worst, difference.nan_to_num(nan=torch.inf).item())
        rows.append(tokens[rows.origin, step])
        if drops and step == _ROW_DROPPED:
            kept = _numbers(rows.origin != _ROW_DROPPED)
            rows.keep(kept)
            keep_rows(cache, kept)
    return worst


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


def _numbers(mask: Tensor) -> Tensor:
    return mask.nonzero().squeeze(-1)


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
        response = tuple(ids[: ids.index(NOTHING)] if NOTHING in ids else ids)
        finish = "stop" if response[-1] in ends else "length"
        course = courses[row].upto(len(response) - 1) if courses else None
        generations.append(Generation(request.id, response, finish, probability[row] if probability else None, course))
    return generations
