"""The contract of a steering on every family: nothing where nothing is asked, the affine map where it is, and no trace after."""

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from steering_oracle import (
    logistic_gate,
    naive_probability,
    naive_steering,
    prompts,
    steering_for,
    stepwise_logits,
    whole_logits,
)
from tiny_models import D_FF, MIXTURES, tiny, word_tokenizer
from trimtab.errors import InputError, MismatchError, ModelError
from trimtab.gate import NEVER
from trimtab.model import LanguageModel, attach, find_ffn
from trimtab.model.forwards import ForwardReader
from trimtab.steering import Steering

LENGTHS, EXTRA = (6, 3, 5), 3
WIDTH = max(LENGTHS)


def _steered(scope: str, mask: torch.Tensor) -> torch.Tensor:
    columns = torch.arange(mask.shape[1])
    first = {"generated": WIDTH, "last-and-generated": WIDTH - 1, "all": 0}[scope]
    return (columns >= first).expand(mask.shape) & mask.bool()


@pytest.mark.parametrize("scope", ["generated", "last-and-generated", "all"])
def test_prefill_and_decode_match_the_naive_loops(tiny_model, scope):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    steering = steering_for(tiny_model, scope=scope)
    with naive_steering(tiny_model, steering, [1.5] * 3, _steered(scope, mask)):
        expected = whole_logits(tiny_model, ids, mask)
    plain = whole_logits(tiny_model, ids, mask)
    with attach(tiny_model, steering) as attachment:
        actual = stepwise_logits(tiny_model, ids, mask, WIDTH)
    real = mask.bool()
    torch.testing.assert_close(actual[real], expected[real], rtol=1e-4, atol=1e-4)
    effect, naive_effect = (actual - plain)[real], (expected - plain)[real]
    assert torch.linalg.norm(effect - naive_effect) <= 1e-3 * torch.linalg.norm(naive_effect)
    forwards = EXTRA if scope == "generated" else EXTRA + 1
    assert attachment.calls == {0: forwards, 1: forwards, 2: forwards}


def test_shift_only_steering_matches_the_naive_loops(qwen3):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    steering = steering_for(qwen3, gain=[0.0] * 6)
    with naive_steering(qwen3, steering, [1.5] * 3, _steered("generated", mask)):
        expected = whole_logits(qwen3, ids, mask)
    with attach(qwen3, steering):
        actual = stepwise_logits(qwen3, ids, mask, WIDTH)
    torch.testing.assert_close(actual[mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [{"strength": 0.0}, {"gate": "off"}, {"strength": torch.zeros(3)}],
    ids=["zero strength", "gate off", "zero row strengths"],
)
def test_nothing_asked_changes_no_bit(tiny_model, options):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    plain = stepwise_logits(tiny_model, ids, mask, WIDTH)
    with attach(tiny_model, steering_for(tiny_model), **options) as attachment:
        assert torch.equal(stepwise_logits(tiny_model, ids, mask, WIDTH), plain)
    assert torch.equal(attachment.coefficient, torch.zeros(3))


def test_never_gate_and_closed_logistic_gate_change_no_bit(qwen3):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    plain = stepwise_logits(qwen3, ids, mask, WIDTH)
    for gate in (NEVER, logistic_gate(bias=-50.0), logistic_gate(bias=-50.0, mode="proportional")):
        with attach(qwen3, steering_for(qwen3, gate=gate)) as attachment:
            assert torch.equal(stepwise_logits(qwen3, ids, mask, WIDTH), plain)
        assert not attachment.coefficient.any()


def test_leaving_restores_every_bit_and_every_hook(tiny_model):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    plain = stepwise_logits(tiny_model, ids, mask, WIDTH)
    attachment = attach(tiny_model, steering_for(tiny_model))
    with attachment:
        assert not torch.equal(stepwise_logits(tiny_model, ids, mask, WIDTH), plain)
    attachment.detach()
    assert torch.equal(stepwise_logits(tiny_model, ids, mask, WIDTH), plain)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in tiny_model.modules())
    assert "generate" not in vars(tiny_model)


def test_an_exception_restores_too(qwen3):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    plain = stepwise_logits(qwen3, ids, mask, WIDTH)

    def interrupted():
        with attach(qwen3, steering_for(qwen3)):
            stepwise_logits(qwen3, ids, mask, WIDTH)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(stepwise_logits(qwen3, ids, mask, WIDTH), plain)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in qwen3.modules())


def test_a_failing_entry_leaves_no_hook(qwen3, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no hook today")

    monkeypatch.setattr(find_ffn(qwen3).down[2], "register_forward_pre_hook", fail)
    with pytest.raises(RuntimeError, match="no hook today"):
        attach(qwen3, steering_for(qwen3)).__enter__()
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in qwen3.modules())


def test_padded_batch_equals_single_runs(tiny_model):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    gate = logistic_gate(mode="proportional", threshold=0.2)
    with attach(tiny_model, steering_for(tiny_model, gate=gate)):
        together = stepwise_logits(tiny_model, ids, mask, WIDTH)
    for row, length in enumerate(LENGTHS):
        alone = ids[row : row + 1, WIDTH - length :]
        with attach(tiny_model, steering_for(tiny_model, gate=gate)):
            single = stepwise_logits(tiny_model, alone, torch.ones_like(alone), length)
        torch.testing.assert_close(together[row : row + 1, WIDTH - length :], single, rtol=1e-4, atol=1e-4)


def test_row_strengths_touch_only_their_rows(qwen3):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    plain = stepwise_logits(qwen3, ids, mask, WIDTH)
    steering = steering_for(qwen3)
    strengths = torch.tensor([0.0, 1.5, -0.7])
    with attach(qwen3, steering, strength=strengths):
        actual = stepwise_logits(qwen3, ids, mask, WIDTH)
    with naive_steering(qwen3, steering, strengths.tolist(), _steered("generated", mask)):
        expected = whole_logits(qwen3, ids, mask)
    assert torch.equal(actual[0], plain[0])
    assert not torch.equal(actual[1], plain[1])
    torch.testing.assert_close(actual[mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["hard", "proportional"])
def test_each_row_has_its_own_gate(tiny_model, mode):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    probe = logistic_gate()
    lone = [naive_probability(tiny_model, probe, ids[row, WIDTH - length : WIDTH].tolist()) for row, length in enumerate(LENGTHS)]
    gate = logistic_gate(threshold=float(np.median(lone)) - 1e-4, mode=mode)
    g = gate.value(np.array(lone))
    assert 0 < np.count_nonzero(g) < 3, "the fixture should open the gate for some rows only"
    plain = stepwise_logits(tiny_model, ids, mask, WIDTH)
    steering = steering_for(tiny_model, gate=gate)
    with attach(tiny_model, steering) as attachment:
        actual = stepwise_logits(tiny_model, ids, mask, WIDTH)
    np.testing.assert_allclose(attachment.probability.numpy(), lone, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(attachment.coefficient.numpy(), 1.5 * g, rtol=1e-3, atol=1e-5)
    with naive_steering(tiny_model, steering, (1.5 * g).tolist(), _steered("generated", mask)):
        expected = whole_logits(tiny_model, ids, mask)
    torch.testing.assert_close(actual[mask.bool()], expected[mask.bool()], rtol=1e-3, atol=1e-3)
    # the library computes all tokens of an expert together, so how many others there are moves the last bits
    tolerance = {"rtol": 1e-5, "atol": 2e-6} if tiny_model.config.model_type in MIXTURES else {"rtol": 0.0, "atol": 0.0}
    for row in np.flatnonzero(g == 0):
        torch.testing.assert_close(actual[row], plain[row], **tolerance)
    assert torch.equal(actual[:, :WIDTH], plain[:, :WIDTH])


def test_gate_override_on_steers_every_row(qwen3):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    closed = steering_for(qwen3, gate=logistic_gate(bias=-50.0))
    with attach(qwen3, closed, gate="on") as attachment:
        forced = stepwise_logits(qwen3, ids, mask, WIDTH)
    with attach(qwen3, steering_for(qwen3)):
        assert torch.equal(stepwise_logits(qwen3, ids, mask, WIDTH), forced)
    assert attachment.probability is None


def test_select_rows_keeps_the_right_coefficients(qwen3):
    ids, mask = prompts((4, 4, 4), extra=1)
    steering, strengths = steering_for(qwen3), torch.tensor([0.5, 1.0, 2.0])
    kept = torch.tensor([2, 0])
    with attach(qwen3, steering, strength=strengths) as attachment, torch.no_grad():
        full = stepwise_logits(qwen3, ids, mask, 4)
        cache = qwen3(input_ids=ids[:, :4], use_cache=True).past_key_values
        cache.batch_select_indices(kept)
        attachment.select_rows(kept)
        rest = qwen3(input_ids=ids[kept, 4:], past_key_values=cache).logits
        assert torch.equal(attachment.coefficient, torch.tensor([2.0, 0.5]))
    torch.testing.assert_close(rest[:, 0], full[kept, 4], rtol=1e-4, atol=1e-4)


def test_unannounced_row_drop_is_refused(qwen3):
    ids, _ = prompts((4, 4, 4))
    with attach(qwen3, steering_for(qwen3), strength=torch.ones(3)) as attachment:
        with pytest.raises(ModelError, match="before any prefill"):
            attachment.select_rows(torch.tensor([0]))
        cache = qwen3(input_ids=ids, use_cache=True).past_key_values
        with pytest.raises(ModelError, match="row numbers as int64"):
            attachment.select_rows(torch.tensor([True, False, True]))
        cache.batch_select_indices(torch.tensor([0, 2]))
        with pytest.raises(ModelError, match="select_rows"):
            qwen3(input_ids=ids[:2, :1], past_key_values=cache)


def test_prompt_read_before_attaching(qwen3):
    ids, _ = prompts((4, 4))
    cache = qwen3(input_ids=ids, use_cache=True).past_key_values
    with attach(qwen3, steering_for(qwen3, gate=logistic_gate())), pytest.raises(ModelError, match="before attaching"):
        qwen3(input_ids=ids[:, :1], past_key_values=cache)
    plain = qwen3(input_ids=ids[:, :1], past_key_values=qwen3(input_ids=ids, use_cache=True).past_key_values).logits
    with attach(qwen3, steering_for(qwen3)):
        assert not torch.equal(qwen3(input_ids=ids[:, :1], past_key_values=cache).logits, plain)


def test_gradients_flow_through_the_hooks(qwen3):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    qwen3.train().requires_grad_(True)
    with attach(qwen3, steering_for(qwen3), prompt_lengths=LENGTHS):
        qwen3(input_ids=ids, attention_mask=mask, use_cache=False).logits[mask.bool()].square().mean().backward()
    gradient = qwen3.model.layers[0].mlp.up_proj.weight.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_in_its_dtype_and_keeps_the_effect(dtype):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    real = mask.bool()
    model, half = tiny("qwen3"), tiny("qwen3").to(dtype)
    plain, plain_half = stepwise_logits(model, ids, mask, WIDTH), stepwise_logits(half, ids, mask, WIDTH)
    steering = steering_for(model)
    with attach(model, steering):
        effect = (stepwise_logits(model, ids, mask, WIDTH) - plain)[real]
    with attach(half, steering, identity=steering.model):
        steered = stepwise_logits(half, ids, mask, WIDTH)
    assert steered.dtype == dtype
    assert torch.linalg.norm((steered - plain_half)[real].float() - effect) <= 0.05 * torch.linalg.norm(effect)
    with attach(half, steering, identity=steering.model, strength=0.0):
        assert torch.equal(stepwise_logits(half, ids, mask, WIDTH), plain_half)


def test_refused_options(qwen3):
    steering = steering_for(qwen3)
    none = Steering(
        *(np.zeros(0, np.int64),) * 2, *(np.zeros(0, np.float32),) * 2, 1.0, "generated", steering.gate, steering.model
    )
    with pytest.raises(ModelError, match="no neurons"):
        attach(qwen3, none)
    with pytest.raises(ModelError, match="accepted: auto, on, off"):
        attach(qwen3, steering, gate="maybe")
    with pytest.raises(InputError, match="finite"):
        attach(qwen3, steering, strength=float("nan"))
    with pytest.raises(InputError, match="one per row"):
        attach(qwen3, steering, strength=torch.ones(2, 2))
    with attach(qwen3, steering), pytest.raises(ModelError, match="steered already") as refused, attach(qwen3, steering):
        pass
    assert refused.value.code == "model/steered-already"
    with attach(qwen3, steering, strength=torch.ones(2)), pytest.raises(ModelError, match="repeat_interleave"):
        whole_logits(qwen3, torch.ones(3, 4, dtype=torch.int64), use_cache=True)


def test_another_model_is_refused_unless_forced(qwen3):
    steering, other = steering_for(qwen3), tiny("qwen3", seed=7)
    with pytest.raises(MismatchError, match="fingerprint"):
        attach(other, steering)
    ids, mask = prompts(LENGTHS, extra=1)
    plain = stepwise_logits(other, ids, mask, WIDTH)
    with attach(other, steering, force_model=True):
        assert not torch.equal(stepwise_logits(other, ids, mask, WIDTH), plain)
    with pytest.raises(MismatchError, match="architecture"):
        attach(tiny("llama"), steering, force_model=True)


def test_a_bypassed_down_projection_is_an_error(qwen3, monkeypatch):
    mlp = qwen3.model.layers[1].mlp
    fused = lambda h: torch.nn.functional.linear(mlp.act_fn(mlp.gate_proj(h)) * mlp.up_proj(h), mlp.down_proj.weight)  # noqa: E731
    monkeypatch.setattr(mlp, "forward", fused)
    steering = steering_for(qwen3, scope="all")
    with attach(qwen3, steering), pytest.raises(ModelError, match=r"layers \[1\] did not run"):
        whole_logits(qwen3, torch.ones(1, 4, dtype=torch.int64))


def test_activations_that_are_not_float_are_refused(qwen3, monkeypatch):
    mlp = qwen3.model.layers[0].mlp
    monkeypatch.setattr(mlp, "forward", lambda h: mlp.down_proj(torch.zeros(*h.shape[:-1], D_FF, dtype=torch.int8)))
    with attach(qwen3, steering_for(qwen3, scope="all")), pytest.raises(ModelError, match=r"layer 0: .*int8"):
        whole_logits(qwen3, torch.ones(1, 4, dtype=torch.int64))


class Int8Linear(torch.nn.Module):
    """A weight-only quantised linear as the libraries make them: int8 weights, float activations."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("scale", linear.weight.abs().amax() / 127)
        self.register_buffer("quantised", (linear.weight / self.scale).round().to(torch.int8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.quantised.to(x.dtype) * self.scale)


def test_blocks_that_flatten_batch_and_sequence_are_steered_alike(qwen3, monkeypatch):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    steering = steering_for(qwen3, gate=logistic_gate(mode="proportional", threshold=0.2))
    with attach(qwen3, steering):
        expected = stepwise_logits(qwen3, ids, mask, WIDTH)
    for layer in qwen3.model.layers:
        inner = layer.mlp.forward
        monkeypatch.setattr(layer.mlp, "forward", lambda h, inner=inner: inner(h.flatten(0, 1)).view_as(h))
    with attach(qwen3, steering) as attachment:
        actual = stepwise_logits(qwen3, ids, mask, WIDTH)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert attachment.coefficient.any()


def test_a_quantised_down_projection_with_float_activations_is_steered(qwen3):
    ids, mask = prompts(LENGTHS, extra=1)
    steering = steering_for(qwen3)
    for layer in qwen3.model.layers:
        layer.mlp.down_proj = Int8Linear(layer.mlp.down_proj)
    plain = stepwise_logits(qwen3, ids, mask, WIDTH)
    with attach(qwen3, steering, identity=steering.model):
        steered = stepwise_logits(qwen3, ids, mask, WIDTH)
    assert torch.equal(steered[:, :WIDTH], plain[:, :WIDTH])
    assert not torch.equal(steered[:, WIDTH], plain[:, WIDTH])


def test_steering_attach_is_the_same(qwen3):
    ids, mask = prompts(LENGTHS, extra=1)
    steering = steering_for(qwen3)
    with attach(qwen3, steering, strength=0.5):
        expected = stepwise_logits(qwen3, ids, mask, WIDTH)
    with steering.attach(qwen3, strength=0.5):
        assert torch.equal(stepwise_logits(qwen3, ids, mask, WIDTH), expected)


def test_an_opened_model_is_attached_to_as_well_as_its_own(qwen3):
    opened = LanguageModel.of(qwen3, word_tokenizer(eos_token="w1"))
    steering, (ids, mask) = steering_for(qwen3), prompts(LENGTHS, extra=EXTRA)
    with attach(qwen3, steering):
        expected = stepwise_logits(qwen3, ids, mask, WIDTH)
    for context in (attach(opened, steering), steering.attach(opened)):
        with context:
            assert torch.equal(stepwise_logits(qwen3, ids, mask, WIDTH), expected)


def test_a_cache_is_a_cache_by_whatever_name_it_comes(qwen3):
    """transformers 5.24 renamed past_key_values; read as none, every token would be a prompt that is not steered."""

    def forward(input_ids, kv=None, use_cache=None): ...

    base = qwen3.get_decoder()
    base.forward = forward
    cache = DynamicCache(config=qwen3.config)
    cache.update(torch.zeros(1, 2, 5, 16), torch.zeros(1, 2, 5, 16), 0)
    reader = ForwardReader(base)
    read = reader.read((torch.zeros(1, 1, dtype=torch.long),), {"kv": cache})
    assert (read.past, read.holds_cache, read.cached) == (5, True, True)
    assert reader.without_cache((), {"kv": cache, "input_ids": None}) == {"input_ids": None, "use_cache": False}
