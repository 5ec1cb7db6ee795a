"""Every way of generating: supported and right, or refused with the fix."""

import copy

import pytest
import torch
from transformers import GenerationConfig

from steering_oracle import logistic_gate, naive_probability, naive_steering, prompts, steering_for, stepwise_logits, whole_logits
from tiny_models import tiny
from trimtab.errors import ModelError
from trimtab.model import attach

LENGTHS, NEW = (6, 3, 5), 6
WIDTH = max(LENGTHS)


def _greedy_by_hand(model, steering, coefficient, ids, mask):
    """Greedy decoding without a cache, steered by the naive loops at every column past the prompt."""
    for _ in range(NEW):
        steered = (torch.arange(ids.shape[1]) >= WIDTH).expand(ids.shape)
        with naive_steering(model, steering, coefficient, steered):
            token = whole_logits(model, ids, mask)[:, -1].argmax(-1, keepdim=True)
        ids, mask = torch.cat([ids, token], 1), torch.cat([mask, torch.ones_like(token)], 1)
    return ids


def _generate(model, ids, mask, **options):
    return model.generate(input_ids=ids, attention_mask=mask, **({"max_new_tokens": NEW, "do_sample": False} | options))


def _gated(model, ids):
    """A steering whose gate opens for some rows only, and its coefficients."""
    lone = [naive_probability(model, logistic_gate(), ids[row, WIDTH - length :].tolist()) for row, length in enumerate(LENGTHS)]
    gate = logistic_gate(threshold=sorted(lone)[1] - 1e-4)
    return steering_for(model, gate=gate), [1.5 * (p >= gate.threshold) for p in lone]


def test_greedy(tiny_model):
    ids, mask = prompts(LENGTHS)
    steering, coefficient = _gated(tiny_model, ids)
    expected = _greedy_by_hand(tiny_model, steering, coefficient, ids, mask)
    with attach(tiny_model, steering) as attachment:
        actual = _generate(tiny_model, ids, mask)
    assert torch.equal(actual, expected)
    assert not torch.equal(actual, _generate(tiny_model, ids, mask))
    assert attachment.calls == {0: NEW - 1, 1: NEW - 1, 2: NEW - 1}


def test_static_cache(qwen3):
    ids, mask = prompts(LENGTHS)
    steering, coefficient = _gated(qwen3, ids)
    with attach(qwen3, steering):
        static = _generate(qwen3, ids, mask, cache_implementation="static")
    assert torch.equal(static, _greedy_by_hand(qwen3, steering, coefficient, ids, mask))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_static_cache_still_notices_right_padding(attention):
    model = tiny("qwen3")
    model.set_attn_implementation(attention)
    left, right = prompts(LENGTHS, "left"), prompts(LENGTHS, "right")
    with attach(model, steering_for(model)):
        _generate(model, *left, cache_implementation="static")
        with pytest.raises(ModelError, match='padding_side="left"'):
            _generate(model, *right, cache_implementation="static")


def test_without_a_cache(qwen3):
    ids, mask = prompts(LENGTHS)
    steering, coefficient = _gated(qwen3, ids)
    expected = _greedy_by_hand(qwen3, steering, coefficient, ids, mask)
    for lengths in (LENGTHS, None):
        with attach(qwen3, steering, prompt_lengths=lengths):
            assert torch.equal(_generate(qwen3, ids, mask, use_cache=False), expected)


def test_sampling_draws_from_the_steered_distribution(qwen3):
    ids, mask = prompts(LENGTHS)
    with attach(qwen3, steering_for(qwen3)):
        torch.manual_seed(0)
        run = _generate(qwen3, ids, mask, do_sample=True, top_k=0, output_logits=True, return_dict_in_generate=True)
        full_mask = torch.cat([mask, mask.new_ones(3, NEW)], 1)
        replayed = stepwise_logits(qwen3, run.sequences, full_mask, WIDTH)[:, WIDTH - 1 : -1]
    torch.testing.assert_close(torch.stack(run.logits, 1), replayed, rtol=1e-4, atol=1e-4)
    torch.manual_seed(0)
    assert not torch.equal(_generate(qwen3, ids, mask, do_sample=True, top_k=0), run.sequences)


def test_several_return_sequences(qwen3):
    ids, mask = prompts(LENGTHS)
    steering, coefficient = _gated(qwen3, ids)
    with attach(qwen3, steering) as attachment:
        torch.manual_seed(0)
        _generate(qwen3, ids, mask, do_sample=True, num_return_sequences=2)
    assert attachment.coefficient.tolist() == pytest.approx([c for c in coefficient for _ in range(2)])
    with attach(qwen3, steering_for(qwen3), strength=torch.ones(3)), pytest.raises(ModelError, match="repeat_interleave"):
        _generate(qwen3, ids, mask, do_sample=True, num_return_sequences=2)


def test_beams_keep_each_prompts_gate(qwen3):
    ids, mask = prompts(LENGTHS)
    steering, _ = _gated(qwen3, ids)
    options = {"num_beams": 3, "num_return_sequences": 2}
    plain = _generate(qwen3, ids, mask, **options)
    with attach(qwen3, steering) as attachment:
        together = _generate(qwen3, ids, mask, **options)
    fires = attachment.coefficient.view(3, 3)
    assert torch.equal(fires, fires[:, :1].expand(3, 3))
    for row, length in enumerate(LENGTHS):
        with attach(qwen3, steering):
            alone = _generate(qwen3, ids[row : row + 1, WIDTH - length :], mask[row : row + 1, WIDTH - length :], **options)
        group = slice(2 * row, 2 * row + 2)
        assert torch.equal(together[group, WIDTH:], alone[:, length:])
        assert torch.equal(together[group], plain[group]) == (fires[row, 0] == 0)


@pytest.mark.parametrize(
    ("option", "value"),
    [("prompt_lookup_num_tokens", 2), ("assistant_model", "self"), ("prefill_chunk_size", 4), ("guidance_scale", 1.5)],
)
def test_refused_ways_of_generating(qwen3, option, value):
    ids, mask = prompts((6,))
    given = tiny("qwen3") if value == "self" else value
    with attach(qwen3, steering_for(qwen3)):
        with pytest.raises(ModelError, match=rf"generate\({option}=\.\.\.\) cannot be steered: .*Leave {option} out"):
            _generate(qwen3, ids, mask, **{option: given})
        if value != "self":
            with pytest.raises(ModelError, match=option):
                qwen3.generate(ids, GenerationConfig(**{option: value}, max_new_tokens=2))
    assert _generate(qwen3, ids, mask).shape == (1, 6 + NEW)


def test_paged_cache_is_refused(qwen3):
    ids, mask = prompts((6,))
    with attach(qwen3, steering_for(qwen3)), pytest.raises(ModelError, match="paged"):
        _generate(qwen3, ids, mask, cache_implementation="paged")


def test_several_tokens_after_the_prefill_are_refused(qwen3):
    ids, _ = prompts((6, 6))
    with attach(qwen3, steering_for(qwen3)):
        cache = qwen3(input_ids=ids[:, :3], use_cache=True).past_key_values
        with pytest.raises(ModelError, match="3 tokens on top of 3 cached ones: assisted decoding and chunked prefill"):
            qwen3(input_ids=ids[:, 3:], past_key_values=cache)


def test_own_generate_of_an_instance_comes_back(qwen3):
    own = lambda: "mine"  # noqa: E731
    vars(qwen3)["generate"] = own
    with attach(qwen3, steering_for(qwen3)):
        assert qwen3.generate is not own
    assert qwen3.generate is own


def test_a_graph_compiled_before_sees_the_hooks_come_and_go(qwen3):
    ids = prompts((4,))[0]
    with attach(qwen3, steering_for(qwen3, scope="all")):
        eager = whole_logits(qwen3, ids)
    compiled = torch.compile(qwen3, backend="eager")
    plain = whole_logits(compiled, ids)
    with attach(qwen3, steering_for(qwen3, scope="all")):
        torch.testing.assert_close(whole_logits(compiled, ids), eager)
    torch.testing.assert_close(whole_logits(compiled, ids), plain)
    assert not torch.allclose(eager, plain)


def test_compiled_copies_of_a_model_share_no_graph(qwen3):
    ids, other = prompts((4,))[0], copy.deepcopy(qwen3)
    plain = whole_logits(qwen3, ids)
    with attach(qwen3, steering_for(qwen3, scope="all")):
        steered = whole_logits(qwen3, ids)
        assert not torch.allclose(steered, plain)
        compiled, of_other = torch.compile(qwen3, backend="eager"), torch.compile(other, backend="eager")
        for model, logits in ((of_other, plain), (compiled, steered)) * 2:
            torch.testing.assert_close(whole_logits(model, ids), logits)


@pytest.mark.slow
@pytest.mark.parametrize("compiled_before", [True, False], ids=["compiled before", "compiled inside"])
def test_compiled_forward_equals_eager(qwen3, compiled_before):
    ids, mask = prompts(LENGTHS, extra=2)
    steering, _ = _gated(qwen3, ids[:, :WIDTH])
    plain = stepwise_logits(qwen3, ids, mask, WIDTH)
    compiled = torch.compile(qwen3, backend="eager")
    if compiled_before:
        torch.testing.assert_close(stepwise_logits(compiled, ids, mask, WIDTH), plain)
    with attach(qwen3, steering):
        eager = stepwise_logits(qwen3, ids, mask, WIDTH)
    with attach(qwen3, steering) as attachment:
        actual = stepwise_logits(compiled, ids, mask, WIDTH)
    torch.testing.assert_close(actual, eager)
    assert attachment.calls == {0: 2, 1: 2, 2: 2}
    assert not torch.allclose(eager[:, -1], plain[:, -1])
    torch.testing.assert_close(stepwise_logits(compiled, ids, mask, WIDTH), plain)
