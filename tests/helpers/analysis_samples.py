"""Tiny opened models of every family with norms that matter, random traces, and steerings that show."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from tiny_models import D_FF, N_LAYERS, VOCABULARY, tiny, word_tokenizer
from trimtab.gate import ALWAYS, AnyGate
from trimtab.model import LanguageModel, find_ffn, identify
from trimtab.steering import Steering
from trimtab.traces import Trace


@cache
def model(family: str, tied: bool = False, words: int = VOCABULARY) -> LanguageModel:
    """A tiny model whose norms scale, and shift where they can; left as it is by every test."""
    model = tiny(family, tied=tied)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.4)
    layout = find_ffn(model)
    tokenizer = word_tokenizer(words, pad_token="w0", eos_token="w1")
    return LanguageModel(model, tokenizer, layout, identify(model, "tiny", None, layout=layout))


def trace(name: str, prompt: int, response: int, seed: int = 0) -> Trace:
    """Random tokens."""
    ids = np.random.default_rng(seed).integers(2, VOCABULARY, prompt + response).tolist()
    return Trace(name, name.partition("/")[0], 0, tuple(ids[:prompt]), tuple(ids[prompt:]), "", "stop")


def traces(n: int = 6) -> list[Trace]:
    """Traces of different lengths, two a problem."""
    return [trace(f"p{i // 2}/{i % 2}", 2 + i % 3, 3 + (5 * i) % 7, i) for i in range(n)]


def steering(model: LanguageModel, k: int = 8, gate: AnyGate = ALWAYS, scope: str = "generated", gain: float = 0.0) -> Steering:
    """Neurons spread over the layers, the last one among them."""
    rng = np.random.default_rng(3)
    flat = rng.permutation(N_LAYERS * D_FF)[:k]
    shift = rng.normal(0, 2, k).astype(np.float32)
    gain = np.full(k, gain, np.float32)
    return Steering(flat // D_FF, flat % D_FF, gain, shift, 0.7, scope, gate, model.identity)  # type: ignore[arg-type]


def alone(trace: Trace) -> Tensor:
    """The forwarded ids of one trace."""
    return torch.tensor([[*trace.prompt_ids, *trace.response_ids[:-1]]])
