"""Scoring in one forward: positions told apart by prompt lengths, whichever side is padded."""

import logging

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from steering_oracle import logistic_gate, naive_probability, naive_steering, prompts, steering_for, stepwise_logits, whole_logits
from trimtab.errors import ModelError
from trimtab.model import attach
from trimtab.model.adapters import find_ffn

LENGTHS, EXTRA = (6, 3, 5), 3


def _scope_by_counting(scope, mask, lengths):
    steered = torch.zeros_like(mask, dtype=torch.bool)
    for row, length in enumerate(lengths):
        number = 0
        for column in range(mask.shape[1]):
            if mask[row, column]:
                first = {"generated": length, "last-and-generated": length - 1, "all": 0}[scope]
                steered[row, column] = number >= first
                number += 1
    return steered


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("scope", ["generated", "last-and-generated", "all"])
@pytest.mark.parametrize("use_cache", [False, True])
def test_one_forward_matches_the_naive_loops(qwen3, scope, side, use_cache):
    ids, mask = prompts(LENGTHS, side, EXTRA)
    steering = steering_for(qwen3, scope=scope)
    with naive_steering(qwen3, steering, [1.5] * 3, _scope_by_counting(scope, mask, LENGTHS)):
        expected = whole_logits(qwen3, ids, mask)
    with attach(qwen3, steering, prompt_lengths=torch.tensor(LENGTHS)):
        actual = whole_logits(qwen3, ids, mask, use_cache)
    torch.testing.assert_close(actual[mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_logistic_gate_reads_the_prompt_first(tiny_model, side):
    ids, mask = prompts(LENGTHS, side, EXTRA)
    rows = [ids[row][mask[row].bool()][:length].tolist() for row, length in enumerate(LENGTHS)]
    lone = [naive_probability(tiny_model, logistic_gate(), row) for row in rows]
    gate = logistic_gate(threshold=float(np.median(lone)) - 1e-4)
    g = gate.value(np.array(lone))
    assert 0 < g.sum() < 3
    steering = steering_for(tiny_model, gate=gate)
    with naive_steering(tiny_model, steering, (1.5 * g).tolist(), _scope_by_counting("generated", mask, LENGTHS)):
        expected = whole_logits(tiny_model, ids, mask)
    plain = whole_logits(tiny_model, ids, mask)
    with attach(tiny_model, steering, prompt_lengths=LENGTHS) as attachment:
        actual = whole_logits(tiny_model, ids, mask)
        assert attachment.calls == {0: 1, 1: 1, 2: 1}
    np.testing.assert_allclose(attachment.probability.numpy(), lone, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(actual[mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-4)
    for row in np.flatnonzero(g == 0):
        if find_ffn(tiny_model).n_experts > 1:  # the library multiplies the tokens of all rows of an expert at once
            torch.testing.assert_close(actual[row], plain[row], rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(actual[row], plain[row])


def test_scoring_with_a_cache_leaves_the_cache_right(qwen3):
    ids, _ = prompts((5, 5), extra=3)
    steering = steering_for(qwen3, gate=logistic_gate(bias=50.0))
    ones = torch.ones_like(ids)
    with attach(qwen3, steering, prompt_lengths=(5, 5)):
        cache = DynamicCache()
        qwen3(input_ids=ids[:, :7], past_key_values=cache)
        assert cache.get_seq_length() == 7
        last = qwen3(input_ids=ids[:, 7:], past_key_values=cache).logits
        whole = whole_logits(qwen3, ids, ones)
    torch.testing.assert_close(last[:, 0], whole[:, 7], rtol=1e-4, atol=1e-4)


def test_prompt_lengths_change_nothing_for_a_cached_run(qwen3):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    steering = steering_for(qwen3, gate=logistic_gate(threshold=0.3, mode="proportional"))
    with attach(qwen3, steering):
        expected = stepwise_logits(qwen3, ids, mask, 6)
    with attach(qwen3, steering, prompt_lengths=LENGTHS):
        actual = stepwise_logits(qwen3, ids, mask, 6)
    torch.testing.assert_close(actual[mask.bool()], expected[mask.bool()], rtol=1e-5, atol=1e-5)


def test_a_failed_gate_pass_does_not_stick(qwen3, monkeypatch):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    norm = qwen3.model.norm
    with attach(qwen3, steering_for(qwen3, gate=logistic_gate(bias=50.0)), prompt_lengths=LENGTHS):
        expected = whole_logits(qwen3, ids, mask)
        monkeypatch.setattr(norm, "forward", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            whole_logits(qwen3, ids, mask)
        monkeypatch.undo()
        assert torch.equal(whole_logits(qwen3, ids, mask), expected)


@pytest.mark.parametrize("lengths", [(0, 3, 5), (6, 7, 5)], ids=["no prompt", "prompt longer than its row"])
def test_impossible_prompt_lengths(qwen3, lengths):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    with (
        attach(qwen3, steering_for(qwen3), prompt_lengths=lengths),
        pytest.raises(ModelError, match="between 1 and the row's number of tokens"),
    ):
        whole_logits(qwen3, ids, mask)


def test_prompt_lengths_of_another_batch(qwen3):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    with attach(qwen3, steering_for(qwen3), prompt_lengths=[3]), pytest.raises(ModelError, match=r"1 prompt lengths .* 3 rows"):
        whole_logits(qwen3, ids, mask)


def test_prepared_masks_cannot_be_counted(qwen3):
    ids, _ = prompts((4, 4), extra=2)
    prepared = torch.ones(6, 6).tril().bool().expand(2, 1, 6, 6)
    with attach(qwen3, steering_for(qwen3), prompt_lengths=[4, 4]), pytest.raises(ModelError, match="plain attention mask"):
        qwen3(input_ids=ids, attention_mask=prepared)


def test_unknown_mask_type(qwen3):
    with attach(qwen3, steering_for(qwen3)), pytest.raises(ModelError, match="cannot read an attention mask of type str"):
        qwen3(input_ids=torch.ones(1, 4, dtype=torch.int64), attention_mask="causal")


@pytest.mark.parametrize("scope", ["generated", "last-and-generated"])
def test_no_cache_without_prompt_lengths_is_refused(qwen3, scope):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    with attach(qwen3, steering_for(qwen3, scope=scope)), pytest.raises(ModelError, match="attach with prompt_lengths"):
        whole_logits(qwen3, ids, mask, use_cache=False)


def test_right_padding_without_prompt_lengths_is_refused(qwen3):
    ids, mask = prompts(LENGTHS, "right")
    with attach(qwen3, steering_for(qwen3)), pytest.raises(ModelError, match='padding_side="left"'):
        whole_logits(qwen3, ids, mask, use_cache=True)
    with attach(qwen3, steering_for(qwen3, scope="all")):
        whole_logits(qwen3, ids, mask, use_cache=True)


def test_packed_rows_and_foreign_caches_are_refused(qwen3):
    ids = torch.ones(1, 4, dtype=torch.int64)
    with attach(qwen3, steering_for(qwen3)):
        with pytest.raises(ModelError, match="packed into one row"):
            qwen3(input_ids=ids, cu_seq_lens_q=torch.tensor([0, 2, 4]))
        with pytest.raises(ModelError, match="give a transformers Cache"):
            qwen3(input_ids=ids, past_key_values=((torch.zeros(1),),))
        with pytest.raises(ModelError, match="input_ids or inputs_embeds"):
            qwen3(attention_mask=ids)


def test_positional_arguments_and_embeddings_are_read(qwen3):
    ids, mask = prompts(LENGTHS)
    with attach(qwen3, steering_for(qwen3, scope="last-and-generated")):
        expected = qwen3.model(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.equal(qwen3.model(ids, mask).last_hidden_state, expected)
        embedded = qwen3.get_input_embeddings()(ids)
        assert torch.equal(qwen3.model(inputs_embeds=embedded, attention_mask=mask).last_hidden_state, expected)


def test_a_block_without_any_steered_forward_is_said(qwen3, caplog):
    ids, mask = prompts(LENGTHS)
    with caplog.at_level(logging.WARNING), attach(qwen3, steering_for(qwen3)):
        whole_logits(qwen3, ids, mask, use_cache=True)
    assert "none was steered" in caplog.text
