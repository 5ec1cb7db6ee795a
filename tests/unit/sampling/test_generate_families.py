"""Our generation loop on every family: greedy tokens of a naive loop without a cache, each row by its own gate."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from steering_oracle import logistic_gate, naive_probability, naive_steering, steering_for, whole_logits
from tiny_models import FAMILIES, VOCABULARY, WINDOW, tiny, word_tokenizer
from tiny_testbed import settings
from trimtab.model import LanguageModel, find_ffn, identify
from trimtab.sampling.batch import Request
from trimtab.sampling.generate import generate_batch
from trimtab.steering import Steering

LENGTHS = (6, 3, 5, 4)
NEW = 5
"""So that every prompt grows past the sliding window."""


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> LanguageModel:
    model = tiny(request.param)
    layout = find_ffn(model)
    tokenizer = word_tokenizer(pad_token="w0", eos_token="w1")
    return LanguageModel(model, tokenizer, layout, identify(model, "tiny", None, layout=layout))


@pytest.fixture
def requests() -> list[Request]:
    rng = np.random.default_rng(0)
    return [Request(str(row), tuple(rng.integers(2, VOCABULARY, length).tolist())) for row, length in enumerate(LENGTHS)]


def _by_hand(model: LanguageModel, request: Request, steering: Steering | None) -> tuple[int, ...]:
    """Greedy tokens of one prompt alone, without cache or padding, steered by the naive loops on generated tokens."""
    ids = list(request.prompt_ids)
    while len(ids) < len(request.prompt_ids) + NEW:
        steered = torch.arange(len(ids))[None] >= len(request.prompt_ids)
        with nullcontext() if steering is None else naive_steering(model.hf_model, steering, [steering.strength], steered):
            ids.append(int(whole_logits(model.hf_model, torch.tensor([ids]))[0, -1].argmax()))
        if ids[-1] == model.tokenizer.eos_token_id:
            break
    return tuple(ids[len(request.prompt_ids) :])


def test_greedy_tokens_equal_the_naive_loop_and_each_row_has_its_gate(model: LanguageModel, requests: list[Request]) -> None:
    assert max(LENGTHS) > WINDOW
    greedy = settings(max_new_tokens=NEW)
    bare = generate_batch(model, requests, greedy)
    assert [g.response_ids for g in bare] == [_by_hand(model, request, None) for request in requests]

    lone = [naive_probability(model.hf_model, logistic_gate(), request.prompt_ids) for request in requests]
    gate = logistic_gate(threshold=float(np.median(lone)))
    fires = [p >= gate.threshold for p in lone]
    assert sum(fires) == 2
    steering = steering_for(model.hf_model, gate=gate, strength=4.0)
    gated = generate_batch(model, requests, greedy, steering)
    np.testing.assert_allclose([g.p_fail for g in gated], lone, rtol=1e-4, atol=1e-6)
    assert [g.response_ids for g in gated] == [
        _by_hand(model, request, steering if fire else None) for request, fire in zip(requests, fires, strict=True)
    ]
    changed = [g.response_ids != b.response_ids for g, b in zip(gated, bare, strict=True)]
    assert any(changed)
    assert not any(change and not fire for change, fire in zip(changed, fires, strict=True))
    assert generate_batch(model, requests, greedy, steering.with_strength(0.0), "on") == bare


def test_rows_are_dropped_as_they_end(model: LanguageModel, requests: list[Request], monkeypatch: pytest.MonkeyPatch) -> None:
    greedy, steering = settings(max_new_tokens=NEW), steering_for(model.hf_model)
    whole = [g.response_ids for g in generate_batch(model, requests, greedy, steering)]
    monkeypatch.setattr(model.hf_model.generation_config, "eos_token_id", [whole[0][1], whole[1][3]])
    together = generate_batch(model, requests, greedy, steering)
    alone = [generate_batch(model, [request], greedy, steering)[0] for request in requests]
    assert together == alone
    assert [g.response_ids for g in together] == [row[: len(g.response_ids)] for row, g in zip(whole, together, strict=True)]
    assert len({len(g.response_ids) for g in together}) > 1
