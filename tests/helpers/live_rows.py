"""Random mixes of sentinels in one batch, and the only answer that each request can have."""

from typing import Any

import numpy as np

from live_engines import answer, prompts, sampling, tokens
from sentinels import WORDS
from trimtab.model import LanguageModel
from trimtab.vllm_plugin.offline import gate_outputs

LENGTH = 6
NAMED = {"six": "six", "sun": "sun", "gated": "minus"}
"""Steering to sentinel."""


def word(model: LanguageModel, name: str, sign: float = 1.0) -> int:
    """The token that a sentinel repeats."""
    found = model.tokenizer.convert_tokens_to_ids(WORDS[NAMED.get(name, name)][0 if sign > 0 else 1])
    assert isinstance(found, int)
    return found


def drawn(rng: np.random.Generator) -> dict[str, Any]:
    """What a random request asks for."""
    name = rng.choice(["none", "six", "sun", "gated"])
    if name == "none":
        return {}
    asked: dict[str, Any] = {"steering": str(name), "strength": float(rng.choice([1.0, -1.0, 0.8]))}
    if name == "gated":
        return asked | {"gate": str(rng.choice(["auto", "on", "off"]))}
    return asked | ({"scope": "all"} if rng.random() < 0.3 else {})


def expected(model: LanguageModel, asked: dict[str, Any], plain: list[int], fires: bool) -> list[int]:
    """The answer of a request; its first token is of the prompt, which only scope ``all`` steers."""
    open_gate = {"auto": fires, "on": True, "off": False}[asked.get("gate", "auto")] if asked.get("steering") == "gated" else True
    if not asked or not open_gate:
        return plain
    repeated = [word(model, asked["steering"], asked["strength"])] * LENGTH
    return repeated if asked.get("scope") == "all" else plain[:1] + repeated[1:]


def mixes(llm: Any, model: LanguageModel, number: int, seed: int = 0) -> tuple[int, int]:
    """Run random mixes; returns how many requests ran and how many were answered as another should have been."""
    rng, asked = np.random.default_rng(seed), prompts(model)
    plain = [tokens(output) for output in answer(llm, asked, [sampling(LENGTH)] * len(asked))]
    read = gate_outputs(llm, [each.request_id for each in answer(llm, asked, [sampling(2, steering="gated")] * len(asked))])
    fires = [facts["fired"] for facts in read]
    assert set(fires) == {True, False}
    total = wrong = 0
    for _ in range(number):
        chosen = rng.integers(0, len(asked), rng.integers(1, 13))
        requests = [drawn(rng) for _ in chosen]
        outputs = answer(llm, [asked[i] for i in chosen], [sampling(LENGTH, **request) for request in requests])
        for i, request, output in zip(chosen, requests, outputs, strict=True):
            total += 1
            wrong += tokens(output) != expected(model, request, plain[i], fires[i])
    return total, wrong
