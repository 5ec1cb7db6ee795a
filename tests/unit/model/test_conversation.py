"""Several turns in one attach block: the same tokens are steered with the cache of the turn before, without, and anew."""

import threading

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from steering_oracle import logistic_gate, naive_steering, prompts, steering_for, whole_logits
from tiny_models import tiny
from trimtab.errors import ModelError
from trimtab.model import attach
from trimtab.model.conversation import Conversation

NEW, SAID = 4, 3
"""Tokens of an answer, and of what the user says next."""


def _chat(model: PreTrainedModel, scope: str, way: str) -> tuple[Tensor, Tensor, Tensor]:
    """Three turns of two rows: all tokens, their mask, and the logits that chose the generated ones."""
    ids, mask = prompts((6, 4))
    generator, logits = torch.Generator().manual_seed(0), []
    options = {"past_key_values": DynamicCache(config=model.config)} if way == "cache" else {"use_cache": way != "none"}
    with attach(model, steering_for(model, scope=scope)):
        for _ in range(3):
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=NEW,
                do_sample=False,
                pad_token_id=0,
                output_logits=True,
                return_dict_in_generate=True,
                **options,
            )
            logits.append(torch.stack(output.logits, 1))
            ids = torch.cat([output.sequences, torch.randint(1, 97, (2, SAID), generator=generator)], 1)
            mask = torch.cat([mask, torch.ones(2, NEW + SAID, dtype=torch.int64)], 1)
    return ids, mask, torch.cat(logits, 1)


@pytest.mark.parametrize("scope", ["generated", "last-and-generated", "all"])
@pytest.mark.parametrize("family", ["qwen3", "mixtral"])
def test_a_chat_of_three_turns_is_steered_alike_with_and_without_a_cache(family: str, scope: str) -> None:
    model = tiny(family)
    ids, mask, cached = _chat(model, scope, "cache")
    for way in ("none", "anew"):
        again, _, logits = _chat(model, scope, way)
        assert torch.equal(again, ids)
        torch.testing.assert_close(logits, cached, rtol=1e-4, atol=1e-4)
    columns = torch.arange(ids.shape[1])
    answers = [6 + turn * (NEW + SAID) for turn in range(3)]
    steered = torch.zeros(ids.shape[1], dtype=torch.bool)
    for start in answers:
        steered |= (columns >= start) & (columns < start + NEW)
        steered[start - 1] |= scope == "last-and-generated"
    with naive_steering(model, steering_for(model, scope=scope), [1.5] * 2, (steered | (scope == "all")).expand(2, -1)):
        expected = whole_logits(model, ids, mask)
    places = torch.cat([torch.arange(start - 1, start + NEW - 1) for start in answers])
    torch.testing.assert_close(cached, expected[:, places], rtol=1e-4, atol=1e-4)


def test_the_gate_decides_once_a_conversation(qwen3: PreTrainedModel) -> None:
    ids, mask = prompts((6, 4))
    cache, decisions = DynamicCache(config=qwen3.config), []
    with attach(qwen3, steering_for(qwen3, gate=logistic_gate(mode="proportional", threshold=0.01))) as attachment:
        for _ in range(2):
            ids = qwen3.generate(
                ids, attention_mask=mask, past_key_values=cache, max_new_tokens=3, do_sample=False, pad_token_id=0
            )
            decisions.append(attachment.coefficient)
            ids = torch.cat([ids, ids[:, -2:]], 1)
            mask = torch.ones_like(ids) * torch.nn.functional.pad(mask, (0, ids.shape[1] - mask.shape[1]), value=1)
        assert torch.equal(*decisions)
        qwen3.generate(ids[:, :5], max_new_tokens=2, do_sample=False, pad_token_id=0)  # another conversation
        assert not torch.equal(attachment.coefficient, decisions[0])


def test_a_loop_of_ones_own_says_what_it_drew_last(qwen3: PreTrainedModel) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    cache = DynamicCache(config=qwen3.config)
    with attach(qwen3, steering_for(qwen3)) as attachment:
        drawn = qwen3(ids, past_key_values=cache).logits[:, -1].argmax(-1)
        turn = torch.tensor([[int(drawn), 11, 12]])
        with pytest.raises(ModelError, match=r"say which token of each row was drawn last: attachment\.note_sampled"):
            qwen3(turn, past_key_values=cache)
        attachment.note_sampled(drawn)
        actual = qwen3(turn, past_key_values=cache).logits
    steered = torch.tensor([[False] * 4 + [True, False, False]])
    with naive_steering(qwen3, steering_for(qwen3), [1.5], steered):
        expected = whole_logits(qwen3, torch.cat([ids, turn], 1))[:, 4:]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_rows_that_end_early_are_found_again_without_their_padding() -> None:
    conversation = Conversation()
    ids, real = torch.tensor([[0, 5, 6], [7, 8, 9]]), torch.tensor([[False, True, True], [True, True, True]])
    assert conversation.begin(ids, real) is None
    one = torch.ones(2, 1, dtype=torch.bool)
    conversation.add_generated(torch.tensor([[3], [20]]), one)  # 3 ends a response
    conversation.add_generated(torch.tensor([[0], [21]]), one)
    conversation.note_generated(torch.tensor([[0, 5, 6, 3, 0, 0], [7, 8, 9, 20, 21, 3]]), pad=0, ends=(3,))
    again = torch.tensor([[0, 0, 5, 6, 3, 40, 41], [7, 8, 9, 20, 21, 3, 40]])
    found = conversation.begin(again, again != 0)
    assert found is not None
    assert found.int().tolist() == [[0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 1, 1, 1, 0]]
    assert conversation.begin(torch.tensor([[1, 2, 3]] * 2), torch.ones(2, 3, dtype=torch.bool)) is None


class _Held(BaseStreamer):
    """Waits at the first generated token until it is let go."""

    def __init__(self) -> None:
        self.reached, self.go, self._seen = threading.Event(), threading.Event(), 0

    def put(self, value: Tensor) -> None:
        self._seen += 1
        if self._seen == 2:  # the prompt is the first
            self.reached.set()
            assert self.go.wait(60)

    def end(self) -> None:
        pass


def _in_thread(model: PreTrainedModel, held: _Held, outcome: list[object]) -> threading.Thread:
    def run() -> None:
        try:
            outcome.append(model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=6, do_sample=False, streamer=held))
        except ModelError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert held.reached.wait(60)
    return thread


def test_a_second_thread_is_refused_and_the_first_is_right(qwen3: PreTrainedModel) -> None:
    prompt, outcome, held = torch.tensor([[5, 6, 7]]), [], _Held()
    with attach(qwen3, steering_for(qwen3)):
        expected = qwen3.generate(prompt, max_new_tokens=6, do_sample=False)
        thread = _in_thread(qwen3, held, outcome)
        with pytest.raises(ModelError, match="another generate call runs on this attached model"):
            qwen3.generate(prompt, max_new_tokens=2)
        with pytest.raises(ModelError, match="another thread runs this attached model"):
            qwen3(prompt)
        held.go.set()
        thread.join()
    assert torch.equal(outcome[0], expected)


def test_a_stream_that_outlives_its_block_does_not_go_on_unsteered(qwen3: PreTrainedModel) -> None:
    outcome, held = [], _Held()
    with pytest.raises(ModelError, match="join the thread inside the block"), attach(qwen3, steering_for(qwen3)):
        thread = _in_thread(qwen3, held, outcome)
    held.go.set()
    thread.join()
    assert "join the thread inside the block" in str(outcome[0])
    assert not qwen3.model._forward_pre_hooks
    assert np.isfinite(qwen3(torch.tensor([[5, 6]])).logits).all()
