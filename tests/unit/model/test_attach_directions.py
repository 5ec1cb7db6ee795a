"""Directions on every family, against a plain hook on the block that loops over rows and positions."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from steering_oracle import (
    logistic_gate,
    naive_probability,
    naive_steering,
    prompts,
    steering_for,
    stepwise_logits,
    whole_logits,
)
from tiny_models import D_MODEL, N_LAYERS, tiny
from trimtab.directions import Directions
from trimtab.errors import InputError, MismatchError, ModelError
from trimtab.gate import ALWAYS, NEVER
from trimtab.model import attach, find_ffn, identify

LENGTHS, EXTRA = (6, 3, 5), 3
WIDTH = max(LENGTHS)
BLOCKS = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}


def _along(model, layers=(0, 2), strength=1.5, scope="generated", gate=ALWAYS):
    rng = np.random.default_rng(3)
    vectors = rng.normal(0, 2, (len(layers), D_MODEL)).astype(np.float32)
    return Directions(np.array(layers), vectors, "mean-difference", identify(model, "tiny", None)).steering(strength, gate, scope)


@contextmanager
def _plain_hooks(model, steering, coefficient, steered):
    """Each row's vector onto each steered position of the block's output, one after the other."""

    def hook_of(vector):
        def hook(_, __, output):
            stream = output[0] if isinstance(output, tuple) else output
            changed = stream.clone()
            for row in range(stream.shape[0]):
                for position in range(stream.shape[1]):
                    if steered[row, position]:
                        changed[row, position] += coefficient[row] * vector
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook

    blocks = model.get_submodule(BLOCKS.get(model.config.model_type, "model.layers"))
    vectors = zip(steering.direction_layer.tolist(), torch.from_numpy(steering.direction), strict=True)
    handles = [blocks[layer].register_forward_hook(hook_of(vector)) for layer, vector in vectors]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _steered(scope, mask):
    columns = torch.arange(mask.shape[1])
    first = {"generated": WIDTH, "last-and-generated": WIDTH - 1, "all": 0}[scope]
    return (columns >= first).expand(mask.shape) & mask.bool()


@pytest.mark.parametrize("scope", ["generated", "last-and-generated", "all"])
def test_prefill_and_decode_match_plain_hooks(tiny_model, scope):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    steering = _along(tiny_model, scope=scope)
    with _plain_hooks(tiny_model, steering, [1.5] * 3, _steered(scope, mask)):
        expected = whole_logits(tiny_model, ids, mask)
    plain = whole_logits(tiny_model, ids, mask)
    with attach(tiny_model, steering) as attachment:
        actual = stepwise_logits(tiny_model, ids, mask, WIDTH)
    real = mask.bool()
    torch.testing.assert_close(actual[real], expected[real], rtol=1e-4, atol=1e-4)
    effect, naive_effect = (actual - plain)[real], (expected - plain)[real]
    assert torch.linalg.norm(effect - naive_effect) <= 1e-3 * torch.linalg.norm(naive_effect)
    forwards = EXTRA if scope == "generated" else EXTRA + 1
    assert attachment.calls == {0: forwards, 2: forwards}


def test_the_next_block_reads_the_stream_with_the_vector_on_top(tiny_model):
    ids, mask = prompts((5, 5))
    steering = _along(tiny_model, layers=(1,), scope="all")

    def given_to_the_last():
        seen = []
        last = tiny_model.get_submodule(BLOCKS.get(tiny_model.config.model_type, "model.layers"))[2]
        handle = last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        whole_logits(tiny_model, ids, mask)
        handle.remove()
        return seen[0]

    before = given_to_the_last()
    with attach(tiny_model, steering):
        after = given_to_the_last()
    expected = torch.from_numpy(1.5 * steering.direction[0]).expand(after.shape)
    torch.testing.assert_close(after - before, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [{"strength": 0.0}, {"gate": "off"}, {"strength": torch.zeros(3)}],
    ids=["zero strength", "gate off", "zero row strengths"],
)
def test_nothing_asked_changes_no_bit(tiny_model, options):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    plain = stepwise_logits(tiny_model, ids, mask, WIDTH)
    with attach(tiny_model, _along(tiny_model), **options):
        assert torch.equal(stepwise_logits(tiny_model, ids, mask, WIDTH), plain)


def test_closed_gates_change_no_bit_and_leaving_restores_every_hook(tiny_model):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    plain = stepwise_logits(tiny_model, ids, mask, WIDTH)
    for gate in (NEVER, logistic_gate(bias=-50.0), logistic_gate(bias=-50.0, mode="proportional")):
        with attach(tiny_model, _along(tiny_model, gate=gate)):
            assert torch.equal(stepwise_logits(tiny_model, ids, mask, WIDTH), plain)
    with attach(tiny_model, _along(tiny_model)):
        assert not torch.equal(stepwise_logits(tiny_model, ids, mask, WIDTH), plain)
    assert torch.equal(stepwise_logits(tiny_model, ids, mask, WIDTH), plain)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in tiny_model.modules())


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "gpt2", "mixtral"])
def test_a_gate_decides_each_row_from_the_unsteered_prompt(family):
    model = tiny(family)
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    p = [naive_probability(model, logistic_gate(), row[WIDTH - n : WIDTH].tolist()) for n, row in zip(LENGTHS, ids, strict=True)]
    gate = logistic_gate(threshold=float(np.median(p)))
    coefficient = [1.5 * (one >= gate.threshold - 1e-6) for one in p]
    with _plain_hooks(model, _along(model), coefficient, _steered("generated", mask)):
        expected = whole_logits(model, ids, mask)
    with attach(model, _along(model, gate=gate)) as attachment:
        actual = stepwise_logits(model, ids, mask, WIDTH)
    assert 0 < (attachment.coefficient > 0).sum() < 3
    torch.testing.assert_close(actual[mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_scoring_responses_in_one_forward_steers_what_decoding_does(tiny_model, side):
    gate = logistic_gate(mode="proportional", threshold=0.2)
    steering = _along(tiny_model, gate=gate)
    ids, mask = prompts(LENGTHS, side=side, extra=EXTRA)
    with attach(tiny_model, steering, prompt_lengths=list(LENGTHS)):
        scored = whole_logits(tiny_model, ids, mask)
    for row, length in enumerate(LENGTHS):
        alone = ids[row : row + 1, mask[row].bool()]
        with attach(tiny_model, steering):
            single = stepwise_logits(tiny_model, alone, torch.ones_like(alone), length)
        torch.testing.assert_close(scored[row, mask[row].bool()], single[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"cache_implementation": "static"}], ids=str)
def test_generate_is_steered_as_a_loop_over_whole_forwards(options):
    model = tiny("qwen3")
    ids, mask = prompts(LENGTHS)
    steering = _along(model)
    with attach(model, steering):
        found = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0, **options)
    grown, grown_mask = ids, mask
    for _ in range(4):
        with _plain_hooks(model, steering, [1.5] * 3, _steered("generated", grown_mask)):
            chosen = whole_logits(model, grown, grown_mask)[:, -1].argmax(-1, keepdim=True)
        grown, grown_mask = torch.cat([grown, chosen], 1), torch.cat([grown_mask, torch.ones_like(chosen)], 1)
    assert torch.equal(found, grown)
    bare = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert not torch.equal(found, bare)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "qwen3_moe"])
def test_neurons_and_directions_act_together(family):
    model = tiny(family)
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    neurons, along = steering_for(model, gain=[0.0] * 6), _along(model, strength=-0.7)
    steered = _steered("generated", mask)
    with naive_steering(model, neurons, [1.5] * 3, steered), _plain_hooks(model, along, [-0.7] * 3, steered):
        expected = whole_logits(model, ids, mask)
    with attach(model, neurons + along) as attachment:
        actual = stepwise_logits(model, ids, mask, WIDTH)
    torch.testing.assert_close(actual[mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-4)
    assert attachment.calls == dict.fromkeys(range(N_LAYERS), EXTRA)


def test_a_block_that_does_not_run_or_returns_no_stream_is_an_error(monkeypatch):
    model = tiny("qwen3")
    ids, mask = prompts(LENGTHS)
    block = find_ffn(model).base.layers[2]
    with attach(model, _along(model, scope="all")), monkeypatch.context() as patch:
        patch.setattr(block, "_call_impl", block.forward)  # runs the block and none of its hooks
        with pytest.raises(ModelError, match=r"decoder blocks of layers \[2\] did not run"):
            whole_logits(model, ids, mask)
    handle = block.register_forward_hook(lambda *_: torch.zeros(2, 3, 6, D_MODEL))
    with attach(model, _along(model, scope="all")), pytest.raises(ModelError, match="layer 2: the decoder block returned"):
        whole_logits(model, ids, mask)
    handle.remove()


def test_another_model_and_an_empty_steering_are_refused():
    with pytest.raises(MismatchError):
        attach(tiny("qwen3", seed=1), _along(tiny("qwen3")))
    with pytest.raises(InputError, match="32 numbers does not fit tiny, whose residual stream is 16 wide"):
        _along(tiny("qwen3", hidden_size=16))
