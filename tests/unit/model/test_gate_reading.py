"""Gates that read every prompt token, in the prefill of a padded batch, against numpy on each prompt alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from steering_oracle import every_activation, logistic_gate, prompts, steering_for, stepwise_logits, whole_logits
from tiny_models import D_FF, VOCABULARY, tiny
from trimtab.errors import InputError, ModelError
from trimtab.gate import AttentionGate, Gate
from trimtab.model import attach, find_ffn
from trimtab.model.forwards import Forward, Positions, begin_reading
from trimtab.model.plan import plan_layers

LENGTHS = (6, 3, 5)
WIDTH = max(LENGTHS)
LAYER, INDEX = np.array([2, 0, 1, 1, 2]), np.array([30, 5, 9, 0, 40])


def mean_gate(threshold: float = 0.5, mode: str = "hard") -> Gate:
    return replace(logistic_gate(threshold, mode), pooling="mean")


def attention_gate(threshold: float = 0.5, mode: str = "hard", units: int = 4) -> AttentionGate:
    """Features in no order of layers, so that columns matter."""
    rng = np.random.default_rng(0)
    query, hidden, offset, output = (
        3 * rng.normal(size=shape).astype(np.float32) for shape in ((5,), (units, 5), (units,), (units,))
    )
    return AttentionGate(LAYER, INDEX, query, hidden, offset, output, 0.2, -0.1, mode, threshold)


GATES = [mean_gate, attention_gate]


def naive_probability(model, gate, prompt: list[int]) -> float:
    """p(fail) of one prompt alone, without padding, by the gate's own numpy formula."""
    tokens = np.nan_to_num(every_activation(model, prompt)[:, gate.layer, gate.index].astype(np.float32))
    features = [tokens] if isinstance(gate, AttentionGate) else tokens.astype(np.float64).mean(axis=0, keepdims=True)
    return float(gate.probability(features)[0])


def rows_of(ids: torch.Tensor, lengths: tuple[int, ...], side: str = "left") -> list[list[int]]:
    width = ids.shape[1]
    return [(row[width - n :] if side == "left" else row[:n]).tolist() for row, n in zip(ids, lengths, strict=True)]


@pytest.mark.parametrize("make", GATES)
def test_left_padded_prefill(tiny_model, make):
    ids, mask = prompts(LENGTHS)
    gate = make()
    expected = [naive_probability(tiny_model, gate, row) for row in rows_of(ids, LENGTHS)]
    assert np.ptp(expected) > 0.01, "the fixture should tell the prompts apart"
    plain = whole_logits(tiny_model, ids, mask, use_cache=True)
    with attach(tiny_model, steering_for(tiny_model, gate=gate)) as attachment:
        assert torch.equal(whole_logits(tiny_model, ids, mask, use_cache=True), plain)
    np.testing.assert_allclose(attachment.probability.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", GATES)
def test_each_row_is_steered_by_its_own_gate(qwen3, make):
    ids, mask = prompts(LENGTHS, extra=2)
    prompt_ids = ids[:, :WIDTH]
    lone = [naive_probability(qwen3, make(), row) for row in rows_of(prompt_ids, LENGTHS)]
    gate = make(threshold=float(np.median(lone)) - 1e-4)
    fires = np.array(lone) >= gate.threshold
    assert 0 < fires.sum() < 3
    plain = stepwise_logits(qwen3, ids, mask, WIDTH)
    with attach(qwen3, steering_for(qwen3, gate=gate)) as attachment:
        steered = stepwise_logits(qwen3, ids, mask, WIDTH)
    assert attachment.coefficient.tolist() == [1.5 * fired for fired in fires.tolist()]
    for row, fired in enumerate(fires.tolist()):
        assert torch.equal(steered[row], plain[row]) is not fired
    with attach(qwen3, steering_for(qwen3, gate=gate), strength=torch.tensor(1.5 * fires, dtype=torch.float32), gate="on"):
        assert torch.equal(stepwise_logits(qwen3, ids, mask, WIDTH), steered)


@pytest.mark.parametrize("make", GATES)
def test_proportional(qwen3, make):
    ids, mask = prompts(LENGTHS)
    gate = make(threshold=0.05, mode="proportional")
    with attach(qwen3, steering_for(qwen3, gate=gate)) as attachment:
        whole_logits(qwen3, ids, mask, use_cache=True)
    g = gate.value(np.array([naive_probability(qwen3, gate, row) for row in rows_of(ids, LENGTHS)]))
    np.testing.assert_allclose(attachment.coefficient.numpy(), 1.5 * g, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("make", GATES)
def test_scoring_with_prompt_lengths_reads_the_prompts_only(qwen3, make, side):
    ids, mask = prompts(LENGTHS, side=side, extra=3)
    gate = make()
    rows = [row[:length] for row, length in zip(rows_of(ids, [n + 3 for n in LENGTHS], side), LENGTHS, strict=True)]
    expected = [naive_probability(qwen3, gate, row) for row in rows]
    with attach(qwen3, steering_for(qwen3, gate=gate), prompt_lengths=LENGTHS) as attachment:
        whole_logits(qwen3, ids, mask)
    np.testing.assert_allclose(attachment.probability.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert attachment.calls == {0: 1, 1: 1, 2: 1}


@pytest.mark.parametrize("side", ["left", "right"])
def test_prompts_alone_with_prompt_lengths(qwen3, side):
    ids, mask = prompts(LENGTHS, side=side)
    gate = attention_gate()
    with attach(qwen3, steering_for(qwen3, gate=gate), prompt_lengths=LENGTHS) as attachment:
        whole_logits(qwen3, ids, mask, use_cache=True)
    expected = [naive_probability(qwen3, gate, row) for row in rows_of(ids, LENGTHS, side)]
    np.testing.assert_allclose(attachment.probability.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", GATES)
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generate(qwen3, make, cache):
    ids, mask = prompts(LENGTHS)
    gate = make()
    with attach(qwen3, steering_for(qwen3, gate=gate)) as attachment:
        qwen3.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=3,
            do_sample=False,
            cache_implementation=cache if cache == "static" else None,
            disable_compile=True,
        )
    expected = [naive_probability(qwen3, gate, row) for row in rows_of(ids, LENGTHS)]
    np.testing.assert_allclose(attachment.probability.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_prepared_mask_of_a_sliding_window(attention):
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=4,
        initializer_range=0.2,
        attn_implementation=attention,
    )
    torch.manual_seed(0)
    model = MistralForCausalLM(config).eval().requires_grad_(False)
    ids, mask = prompts(LENGTHS)
    gate = attention_gate()
    with attach(model, steering_for(model, gate=gate)) as attachment:
        model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=2,
            do_sample=False,
            cache_implementation="static",
            disable_compile=True,
            pad_token_id=0,
        )
    expected = [naive_probability(model, gate, row) for row in rows_of(ids, LENGTHS)]
    np.testing.assert_allclose(attachment.probability.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", GATES)
def test_what_stands_at_padding_does_not_matter(qwen3, make):
    gate = make()
    _, mask = prompts(LENGTHS)
    activations = torch.randn(len(find_ffn(qwen3).down), 3, WIDTH, D_FF, generator=torch.Generator().manual_seed(0))
    broken = activations.masked_fill(~mask.bool().unsqueeze(-1), torch.nan)
    forward = Forward(3, WIDTH, 0, True, mask, mask.device)
    reading = begin_reading(gate, forward, Positions(None, None), None)
    for layer, plan in plan_layers(steering_for(qwen3, gate=gate), gate, find_ffn(qwen3)).items():
        reading.add(plan.features, broken[layer])
    columns = activations[gate.layer, :, :, gate.index].permute(1, 2, 0)
    tokens = [row[WIDTH - n :].numpy() for row, n in zip(columns, LENGTHS, strict=True)]
    features = tokens if isinstance(gate, AttentionGate) else np.stack([row.mean(axis=0) for row in tokens])
    np.testing.assert_allclose(torch.sigmoid(reading.logit()).numpy(), gate.probability(features), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", GATES)
def test_right_padding_without_prompt_lengths_is_refused(qwen3, make):
    ids, mask = prompts(LENGTHS, side="right")
    with attach(qwen3, steering_for(qwen3, gate=make())), pytest.raises(ModelError, match="padding_side"):
        whole_logits(qwen3, ids, mask, use_cache=True)


@pytest.mark.parametrize("scope", ["last-and-generated", "all"])
def test_a_gate_that_reads_cannot_steer_the_prompt(qwen3, scope):
    with pytest.raises(InputError, match="decides after the prompt was read"):
        steering_for(qwen3, gate=attention_gate(), scope=scope)


def test_a_bypassed_layer_is_an_error(qwen3, monkeypatch):
    mlp = qwen3.model.layers[1].mlp
    fused = lambda h: torch.nn.functional.linear(mlp.act_fn(mlp.gate_proj(h)) * mlp.up_proj(h), mlp.down_proj.weight)  # noqa: E731
    monkeypatch.setattr(mlp, "forward", fused)
    ids, mask = prompts(LENGTHS)
    with attach(qwen3, steering_for(qwen3, gate=mean_gate())), pytest.raises(ModelError, match=r"layers \[1\] did not run"):
        whole_logits(qwen3, ids, mask, use_cache=True)


def test_half_precision():
    ids, mask = prompts(LENGTHS)
    model, half = tiny("qwen3"), tiny("qwen3").to(torch.bfloat16)
    for make in GATES:
        steering = steering_for(model, gate=make())
        with attach(half, steering, identity=steering.model) as attachment:
            whole_logits(half, ids, mask, use_cache=True)
        assert attachment.probability.dtype == torch.float32
        expected = [naive_probability(half, make(), row) for row in rows_of(ids, LENGTHS)]
        np.testing.assert_allclose(attachment.probability.numpy(), expected, atol=0.03)
