"""How batches of a model are generated: the fastest way that the model itself proves, found once."""

import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig

from trimtab.model import LanguageModel
from trimtab.sampling.batch import Request, Rows, end_tokens, forward, numbers
from trimtab.sampling.decoding import PreallocatedLayer, grouped_attention, keep_rows, new_cache, sees_everything

logger = logging.getLogger(__name__)


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
_BROKEN = (RuntimeError, ValueError, TypeError, AttributeError, IndexError, NotImplementedError)
"""What architectures raise that do not take a padded batch or a forward of several tokens on top of a cache."""
_PROOF_LIMIT = {torch.float32: 1e-3, torch.float64: 1e-3}
_COARSE_LIMIT = 0.1
_ways: WeakKeyDictionary[nn.Module, Way] = WeakKeyDictionary()
_gaps: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


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
    requests = _proof_requests(model)
    tokens, alone = zip(*(_alone(model, request) for request in requests), strict=True)
    if not all(logits.isfinite().all() for logits in alone):
        return _WAYS[0]  # broken in every way, as the generation itself will say
    limit = _PROOF_LIMIT.get(model.hf_model.dtype, _COARSE_LIMIT)
    reason = ""
    for way in _WAYS:
        try:
            with grouped_attention(model.hf_model) if way.grouped else nullcontext():
                difference = _difference(model, requests, alone, torch.stack(tokens), way.drops)
        except _BROKEN as error:
            first, _, _ = str(error).partition("\n")
            reason = reason or f"a padded batch raised {type(error).__name__}: {first[:100]}"
            continue
        if difference <= limit:
            return replace(way, reason=reason if way.drops is False else "")
        reason = reason or f"a row in a padded batch differs from the row alone (its logits by {difference:.1%})"
    return Way(False, False, by_generate=True, reason=reason)


def _proof_requests(model: LanguageModel) -> list[Request]:
    vocabulary, rng = model.identity.vocab_size, np.random.default_rng(0)
    return [Request(str(n), tuple(rng.integers(0, vocabulary, n).tolist())) for n in _PROOF_LENGTHS]


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
    """The largest relative difference of a row's logits in a batch from the row's alone, along the same tokens.

    A model with windows is tried with the cache of short batches, which lie within them, and with that of long ones.
    """
    config = model.hf_model.config
    caches = [new_cache(config, max(_PROOF_LENGTHS) + _PROOF_TOKENS)]
    if not sees_everything(config, sys.maxsize):
        caches.append(new_cache(config, sys.maxsize))
    return max(_difference_with(cache, model, requests, alone, tokens, drops) for cache in caches)


def _difference_with(
    cache: DynamicCache, model: LanguageModel, requests: Sequence[Request], alone: Sequence[Tensor], tokens: Tensor, drops: bool
) -> float:
    rows = Rows(requests, model, _PROOF_TOKENS)
    worst = 0.0
    for step in range(_PROOF_TOKENS):
        worst = max(worst, _farthest(forward(model, rows, cache), rows.origin, alone, rows.made))
        rows.made += 1
        rows.read(tokens[rows.origin, step, None])
        if drops and step == _ROW_DROPPED:
            kept = numbers(rows.origin != _ROW_DROPPED)
            rows.keep(kept)
            keep_rows(cache, kept)
    return worst


def _farthest(logits: Tensor, origin: Tensor, alone: Sequence[Tensor], made: Tensor) -> float:
    """The largest relative difference of logits ``[row, token, vocabulary]`` from those alone, which begin at token ``made``."""
    worst = 0.0
    for row, (number, first) in enumerate(zip(origin.tolist(), made.tolist(), strict=True)):
        expected = alone[number][first : first + logits.shape[1]].float()
        difference = torch.linalg.norm(logits[row].float() - expected, dim=-1) / torch.linalg.norm(expected, dim=-1)
        worst = max(worst, difference.nan_to_num(nan=torch.inf).max().item())
    return worst


@torch.inference_mode()
def gaps_hold(model: LanguageModel) -> bool:
    """Whether several tokens of each row may be read on top of a cache of which the mask hides columns in between; found once.

    Only with caches of this package, whose columns the mask can hide. The proof: three rows read three tokens each, keep one, two
    and three of them, and give the logits that ``model.generate`` gives for each row alone, there and one token on. A model that
    counts distances by columns fails it.
    """
    if model.hf_model not in _gaps:
        way, limit = way_of(model), _PROOF_LIMIT.get(model.hf_model.dtype, _COARSE_LIMIT)
        try:
            with grouped_attention(model.hf_model) if way.grouped else nullcontext():
                _gaps[model.hf_model] = way.drops and _gaps_differ(model) <= limit
        except _BROKEN as error:
            logger.info("%s reads nothing over gaps: %s: %s", model.identity.name, type(error).__name__, error)
            _gaps[model.hf_model] = False
    return _gaps[model.hf_model]


def drafts_hold(model: LanguageModel) -> bool:
    """Whether drafts give the plain tokens: where :func:`gaps_hold`, in float32 and wider alone, where another order of addition
    does not decide between tokens."""
    return model.hf_model.dtype in _PROOF_LIMIT and gaps_hold(model)


def _gaps_differ(model: LanguageModel) -> float:
    requests = _proof_requests(model)
    ids, alone = zip(*(_alone(model, request) for request in requests), strict=True)
    tokens = torch.stack(ids)
    rows = Rows(requests, model, 2 * _PROOF_TOKENS)
    cache = new_cache(model.hf_model.config, rows.filled + 2 * _PROOF_TOKENS)
    if not all(isinstance(layer, PreallocatedLayer) for layer in cache.layers):
        return torch.inf
    forward(model, rows, cache)
    rows.made += 1
    rows.read(tokens[:, :3])
    worst = _farthest(forward(model, rows, cache, 3), rows.origin, alone, rows.made)
    rows.made += torch.arange(len(rows), device=rows.made.device)
    first = rows.filled - 3
    rows.mask[:, first : rows.filled] = torch.arange(3, device=rows.made.device) < (rows.made - 1)[:, None]
    for _ in range(2):
        rows.read(tokens.gather(1, (rows.made - 1)[:, None]))
        worst = max(worst, _farthest(forward(model, rows, cache), rows.origin, alone, rows.made))
        rows.made += 1
    return worst
