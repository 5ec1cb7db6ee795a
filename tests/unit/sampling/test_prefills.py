"""A prompt is read once: by all requests that have it in a batch, and by all conditions that leave it alone."""

import numpy as np
import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from tiny_testbed import D_FF, forwards, settings, some_problems
from trimtab.gate import Gate
from trimtab.model import LanguageModel
from trimtab.sampling import Request, generate_batch, way_of
from trimtab.sampling.decoding import new_cache, row_seed
from trimtab.sampling.prefills import Prefills
from trimtab.steering import PositionScope, Steering
from trimtab.tasks import render_prompt

SETTINGS = settings(max_new_tokens=20)
SAMPLED = settings(temperature=1.0, max_new_tokens=20)
PROBLEMS = some_problems(6, seed=3)


def _requests(model: LanguageModel, samples: int) -> list[Request]:
    return [
        Request(f"{p.id}/{i}", render_prompt(model.tokenizer, p.question), row_seed(0, p.id, i))
        for p in PROBLEMS
        for i in range(samples)
    ]


def _steering(
    model: LanguageModel, strength: float = 40.0, scope: PositionScope = "generated", gate: Gate | None = None
) -> Steering:
    layer, index, shift = np.array([0, 1, 1]), np.array([3, 5, D_FF - 1]), np.array([0.2, -0.1, 0.3], np.float32)
    return Steering(layer, index, np.zeros(3, np.float32), shift, strength, scope, gate or Gate("always"), model.identity)


def _reading_gate(model: LanguageModel) -> Gate:
    rng = np.random.default_rng(0)
    size = 6
    return Gate(
        "logistic",
        layer=np.arange(size) % 2,
        index=rng.permutation(D_FF)[:size],
        weight=rng.normal(size=size).astype(np.float32),
        bias=0.0,
        threshold=0.5,
    )


def _prompts_read(shapes: list[tuple[int, ...]]) -> int:
    return sum(rows for rows, length in shapes if length > 1)


@pytest.mark.parametrize("steered", [None, 40.0, -3.0])
def test_a_condition_that_starts_from_a_kept_prefill_gives_the_same_tokens(model: LanguageModel, steered: float | None) -> None:
    requests, kept = _requests(model, 1), Prefills(10_000)
    steering = None if steered is None else _steering(model, steered)
    expected = generate_batch(model, requests, SETTINGS, steering, "on")
    generate_batch(model, requests, SETTINGS, prefills=kept)
    with forwards(model) as shapes:
        actual = generate_batch(model, requests, SETTINGS, steering, "on", prefills=kept)
    assert actual == expected
    assert _prompts_read(shapes) == 0


def test_the_order_of_conditions_does_not_matter(model: LanguageModel) -> None:
    """What a steered condition reads first is the bare model's prefill, and no condition changes it for the next."""
    requests, kept = _requests(model, 1), Prefills(10_000)
    steerings = [_steering(model), None, _steering(model, -3.0), None]
    expected = [generate_batch(model, requests, SETTINGS, steering, "on") for steering in steerings]
    assert [generate_batch(model, requests, SETTINGS, steering, "on", prefills=kept) for steering in steerings] == expected
    assert expected[0] != expected[1]


def test_requests_with_one_prompt_share_its_row(model: LanguageModel) -> None:
    requests = _requests(model, 3)
    apart = [generate_batch(model, [request], SAMPLED)[0] for request in requests]
    with forwards(model) as shapes:
        assert generate_batch(model, requests, SAMPLED) == apart
    assert _prompts_read(shapes) == len(PROBLEMS)
    assert len({g.response_ids for g in apart[:3]}) > 1, "samples of a problem must differ"


def test_a_gate_reads_a_prompt_once_for_all_its_requests(model: LanguageModel) -> None:
    requests, kept = _requests(model, 3), Prefills(10_000)
    steering = _steering(model, gate=_reading_gate(model))
    generate_batch(model, requests, SAMPLED, prefills=kept)
    apart = [generate_batch(model, [request], SAMPLED, steering)[0] for request in requests]
    with forwards(model) as shapes:
        together = generate_batch(model, requests, SAMPLED, steering, prefills=kept)
    assert [g.response_ids for g in together] == [g.response_ids for g in apart]
    np.testing.assert_allclose([g.p_fail for g in together], [g.p_fail for g in apart], atol=1e-6)
    assert len({round(g.p_fail or 0, 4) for g in together}) == len(PROBLEMS)
    assert _prompts_read(shapes) == len(PROBLEMS)


@pytest.mark.parametrize("scope", ["all", "last-and-generated"])
def test_a_steered_prompt_is_read_under_its_steering(model: LanguageModel, scope: PositionScope) -> None:
    requests, kept = _requests(model, 3), Prefills(10_000)
    steering = _steering(model, scope=scope)
    generate_batch(model, requests, SAMPLED, prefills=kept)
    apart = [generate_batch(model, [request], SAMPLED, steering)[0] for request in requests]
    with forwards(model) as shapes:
        assert generate_batch(model, requests, SAMPLED, steering, prefills=kept) == apart
    assert _prompts_read(shapes) == len(PROBLEMS)


def test_rows_that_cannot_be_selected_are_not_shared(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from trimtab.sampling import ways

    monkeypatch.setitem(ways._ways, model.hf_model, replace(way_of(model), drops=False))
    requests = _requests(model, 2)
    with forwards(model) as shapes:
        generate_batch(model, requests, SAMPLED)
    assert _prompts_read(shapes) == len(requests)


def test_no_more_is_kept_than_half_a_batch(model: LanguageModel) -> None:
    requests = _requests(model, 1)
    width = max(len(request.prompt_ids) for request in requests)

    def kept(batch_tokens: int) -> bool:
        prefills = Prefills(batch_tokens)
        generate_batch(model, requests, SETTINGS, prefills=prefills)
        with forwards(model) as shapes:
            generate_batch(model, requests, SETTINGS, prefills=prefills)
        return _prompts_read(shapes) == 0

    assert kept(10 * len(requests) * width)
    assert not kept(len(requests) * width)


def test_the_first_batches_stay(model: LanguageModel) -> None:
    """Each condition begins with the first batch again, so forgetting it for the last would keep nothing."""
    first, second = _requests(model, 1)[:3], _requests(model, 1)[3:]
    width = max(len(request.prompt_ids) for request in first)
    prefills = Prefills(3 * len(first) * width)  # half of it holds one batch and its logits, not two
    for batch in (first, second, first, second):
        generate_batch(model, batch, SETTINGS, prefills=prefills)
    assert len(prefills) == 1
    with forwards(model) as shapes:
        generate_batch(model, first, SETTINGS, prefills=prefills)
    assert _prompts_read(shapes) == 0


def test_a_models_own_cache_is_not_kept() -> None:
    config = MistralConfig(
        num_hidden_layers=2,
        sliding_window=4,
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=20,
    )
    hf_model, kept = MistralForCausalLM(config).eval(), Prefills(10_000)
    cache = new_cache(config, 12)
    with torch.inference_mode():
        logits = hf_model(input_ids=torch.ones((1, 6), dtype=torch.long), past_key_values=cache, use_cache=True).logits
    kept.keep([(1,) * 6], logits[:, -1], cache)
    assert len(kept) == 0
