"""A running gate on a model: plain hooks that loop over rows and tokens are the oracle, cached or not, padded or not."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from steering_oracle import logistic_gate, naive_steering, prompts, steering_for, stepwise_logits, whole_logits
from trimtab.errors import ModelError
from trimtab.gate import Gate, RandomOpening, RunningGate
from trimtab.model import attach, find_ffn

LENGTHS, EXTRA, WIDTH = (6, 3, 5), 6, 6
READ = np.array([0, 1, 1, 2, 2]), np.array([5, 9, 0, 30, 40])
WEIGHT = np.array([2.8, -3.1, 2.6, 1.9, -2.7], np.float32)


def running(**options) -> RunningGate:
    """Reads neurons of all three layers, steered ones among them."""
    return RunningGate(*READ, WEIGHT, **{"bias": 0.05, "threshold": 0.5, **options})


@contextmanager
def features_kept(model, gate: Gate | RunningGate):
    """The gate's features of every position of a forward, ``[batch, seq, feature]``, before anything is changed."""
    kept, handles = {}, []
    for layer, down in enumerate(find_ffn(model).down):
        handles.append(down.register_forward_pre_hook(lambda _, args, layer=layer: kept.update({layer: args[0].double()})))
    try:
        yield lambda: torch.stack([kept[la][..., i] for la, i in zip(gate.layer, gate.index, strict=True)], -1).detach().numpy()
    finally:
        for handle in handles:
            handle.remove()


def naive_decode(model, steering, row: list[int], prompt: int) -> tuple[list[float], list[float], torch.Tensor]:
    """One row, token by token without a cache: p after each response token, g at it, and the logits of the last forward."""
    gate = steering.gate
    with features_kept(model, gate.question or gate) as read:
        whole_logits(model, torch.tensor([row[:prompt]]))
        asked = None
        if gate.question is not None:
            asked = float(gate.question.value(gate.question.probability(read()[0, -1:]))[0])
    join = {"and": min, "or": max}[gate.join]
    on, off = gate.levels
    mean, steers, own, p_of, g_of, values = 0.0, gate.action == "close", gate.initial, [], [], []
    logits = torch.zeros(0)
    for token in range(1, len(row) - prompt + 1):
        g_of.append(own if asked is None else join(own, asked))
        values.append(g_of[-1])
        logits, features = _steered_by_value(model, steering, row[: prompt + token], prompt, values)
        rate = max(1 / token, 1 / gate.memory if gate.memory else 0.0)
        mean += rate * (float(features @ gate.weight.astype(np.float64)) - mean)
        p = 1 / (1 + np.exp(-(mean + gate.bias)))
        p_of.append(p)
        if token >= gate.after:
            steers = p >= on if not steers else p >= off
            own = float(steers) * ((p - off) / (1 - off) if gate.action == "scale" else 1.0)
    return p_of, g_of, logits


def _steered_by_value(model, steering, ids, prompt, values):
    """Logits ``[seq, vocab]`` and the last token's features, each response token steered with its own g."""
    with features_kept(model, steering.gate) as read, _by_token(model, steering, prompt, values):
        logits = whole_logits(model, torch.tensor([ids]))[0]
        return logits, read()[0, -1]


@contextmanager
def _by_token(model, steering, prompt, values):
    def hook_of(layer):
        def hook(_, args):
            after = args[0].clone()
            for token, g in enumerate(values):
                for k in range(len(steering)):
                    if steering.layer[k] == layer:
                        a = args[0][0, prompt + token, steering.index[k]].item()
                        change = float(steering.gain[k]) * a + float(steering.shift[k])
                        after[0, prompt + token, steering.index[k]] = a + steering.strength * g * change
            return (after,)

        return hook

    handles = [down.register_forward_pre_hook(hook_of(layer)) for layer, down in enumerate(find_ffn(model).down)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


GATES = {
    "open": {"threshold": 0.55},
    "open and back": {"threshold": 0.55, "release": 0.45, "memory": 1},
    "close": {"action": "close", "threshold": 0.5},
    "close and back": {"action": "close", "threshold": 0.45, "release": 0.6, "memory": 2},
    "scale": {"action": "scale", "threshold": 0.3, "memory": 3},
    "scale with hysteresis": {"action": "scale", "threshold": 0.55, "release": 0.3, "memory": 1},
    "after": {"threshold": 0.2, "after": 4},
    "and": {"threshold": 0.5, "memory": 1, "question": logistic_gate(0.5), "join": "and"},
    "or": {"threshold": 0.5, "memory": 1, "question": logistic_gate(0.5), "join": "or"},
    "or in proportion": {"threshold": 0.5, "question": logistic_gate(0.2, "proportional"), "join": "or", "action": "scale"},
}


@pytest.fixture(params=GATES)
def gate(request) -> RunningGate:
    return running(**GATES[request.param])


def rows_of(ids, mask):
    return [ids[row][mask[row].bool()].tolist() for row in range(len(ids))]


def assert_courses(attachment, expected, dropped=()):
    for row, (course, (p, g, _)) in enumerate(zip(attachment.courses, expected, strict=True)):
        n = len(course.probability) if row in dropped else len(p)
        np.testing.assert_allclose(course.probability.numpy(), p[:n], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(course.value.numpy(), g[:n], rtol=1e-3, atol=1e-5)


def test_cached_decoding_is_the_naive_loop(qwen3, gate):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    steering = steering_for(qwen3, gate=gate)
    expected = [naive_decode(qwen3, steering, row, n) for row, n in zip(rows_of(ids, mask), LENGTHS, strict=True)]
    with attach(qwen3, steering) as attachment:
        logits = stepwise_logits(qwen3, ids, mask, WIDTH)
        assert_courses(attachment, expected)
    for row, (*_, whole) in enumerate(expected):
        torch.testing.assert_close(logits[row][mask[row].bool()], whole, rtol=1e-3, atol=1e-3)


def test_the_oracle_sees_decisions_change():
    """A comparison of gates that never move would hold for anything."""
    changes = 0
    from tiny_models import tiny

    model = tiny("qwen3")
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    for options in GATES.values():
        steering = steering_for(model, gate=running(**options))
        found = [naive_decode(model, steering, row, n)[1] for row, n in zip(rows_of(ids, mask), LENGTHS, strict=True)]
        changes += len({tuple(g) for g in found}) > 1 or any(len(set(g)) > 1 for g in found)
    assert changes >= len(GATES) - 2


@pytest.mark.parametrize("side", ["left", "right"])
def test_one_forward_over_responses_decides_as_decoding_does(qwen3, gate, side):
    ids, mask = prompts(LENGTHS, side, EXTRA)
    steering = steering_for(qwen3, gate=gate)
    expected = [naive_decode(qwen3, steering, row, n) for row, n in zip(rows_of(ids, mask), LENGTHS, strict=True)]
    with attach(qwen3, steering, prompt_lengths=LENGTHS) as attachment:
        logits = whole_logits(qwen3, ids, mask)
        assert_courses(attachment, expected)
    for row, (*_, whole) in enumerate(expected):
        torch.testing.assert_close(logits[row][mask[row].bool()], whole, rtol=1e-3, atol=1e-3)


def test_generate_decides_the_same_with_and_without_a_cache(qwen3, gate):
    ids, mask = prompts(LENGTHS)
    steering = steering_for(qwen3, gate=gate)
    told = {"attention_mask": mask, "max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    found = []
    for use_cache in (True, False):
        with attach(qwen3, steering) as attachment:
            made = qwen3.generate(ids, use_cache=use_cache, **told)
            found.append((made, attachment.courses))
    assert torch.equal(found[0][0], found[1][0])
    for cached, plain in zip(found[0][1], found[1][1], strict=True):
        assert len(cached.value) == 5  # the last token is never forwarded
        torch.testing.assert_close(cached.probability, plain.probability, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(cached.value, plain.value, rtol=1e-3, atol=1e-4)


def test_dropped_rows_keep_their_course_and_do_not_move_the_others(qwen3):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    gate = running(threshold=0.55, release=0.45, memory=1, question=logistic_gate(0.2, "proportional"))
    steering = steering_for(qwen3, gate=gate)
    strength = torch.tensor([1.0, 0.5, 2.0])
    with attach(qwen3, steering, strength=strength) as attachment:
        whole = stepwise_logits(qwen3, ids, mask, WIDTH)
        courses = attachment.courses
    kept = torch.tensor([0, 2])
    with attach(qwen3, steering, strength=strength) as attachment:
        cache = _run(qwen3, ids, mask, slice(0, WIDTH + 3), None)[1]
        cache.batch_select_indices(kept)
        attachment.select_rows(kept)
        logits, _ = _run(qwen3, ids[kept], mask[kept], slice(WIDTH + 3, ids.shape[1]), cache)
        again = attachment.courses
    torch.testing.assert_close(logits, whole[kept][:, WIDTH + 3 :], rtol=1e-4, atol=1e-4)
    for row, tokens in enumerate((EXTRA, 3, EXTRA)):
        torch.testing.assert_close(again[row].probability, courses[row].probability[:tokens], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(again[row].value, courses[row].value[:tokens], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def _run(model, ids, mask, columns, cache):
    from transformers import DynamicCache

    cache, pieces = cache or DynamicCache(), []
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    first = columns.start == 0
    spans = [slice(0, WIDTH)] if first else []
    spans += [slice(c, c + 1) for c in range(WIDTH if first else columns.start, columns.stop)]
    for span in spans:
        made = model(
            input_ids=ids[:, span],
            attention_mask=mask[:, : span.stop],
            position_ids=positions[:, span],
            past_key_values=cache,
            use_cache=True,
        )
        pieces.append(made.logits)
    return torch.cat(pieces, 1), cache


def test_a_gate_that_stays_closed_leaves_every_bit(qwen3):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    plain = stepwise_logits(qwen3, ids, mask, WIDTH)
    with attach(qwen3, steering_for(qwen3, gate=running(bias=-50.0))) as attachment:
        assert torch.equal(stepwise_logits(qwen3, ids, mask, WIDTH), plain)
        assert [course.steered_tokens for course in attachment.courses] == [0, 0, 0]
        assert [course.opened_at for course in attachment.courses] == [None] * 3


def test_one_that_opens_at_once_steers_from_the_second_token(qwen3):
    ids, _ = prompts((4, 4), extra=3)
    steering = steering_for(qwen3, gate=running(bias=50.0))
    later = torch.zeros_like(ids, dtype=torch.bool)
    later[:, 5:] = True
    with naive_steering(qwen3, steering, [1.5, 1.5], later):
        expected = whole_logits(qwen3, ids)
    with attach(qwen3, steering, prompt_lengths=(4, 4)) as attachment:
        torch.testing.assert_close(whole_logits(qwen3, ids), expected, rtol=1e-4, atol=1e-4)
        assert [(course.steered_tokens, course.opened_at) for course in attachment.courses] == [(2, 2), (2, 2)]
        assert attachment.calls == {0: 1, 1: 1, 2: 1}


def test_a_new_prompt_begins_anew(qwen3):
    steering = steering_for(qwen3, gate=running(threshold=0.55, release=0.45, memory=1))
    told = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    batches = [prompts((4, 4), seed=seed) for seed in (1, 2)]
    with attach(qwen3, steering) as attachment:
        alone = []
        for ids, mask in batches:
            qwen3.generate(ids, attention_mask=mask, **told)
            alone.append(attachment.courses)
    with attach(qwen3, steering) as attachment:
        qwen3.generate(batches[1][0], attention_mask=batches[1][1], **told)
        for one, other in zip(attachment.courses, alone[1], strict=True):
            assert torch.equal(one.probability, other.probability)


def test_on_and_off_need_no_course(qwen3):
    ids, mask = prompts((4, 4), extra=2)
    steering = steering_for(qwen3, gate=running())
    with attach(qwen3, steering, gate="on") as attachment:
        always = stepwise_logits(qwen3, ids, mask, 4)
        with pytest.raises(ModelError, match="keeps no course"):
            _ = attachment.courses
    with attach(qwen3, steering_for(qwen3)):
        assert torch.equal(stepwise_logits(qwen3, ids, mask, 4), always)


def test_beams_and_further_turns_are_refused(qwen3):
    ids, mask = prompts((4, 4))
    with attach(qwen3, steering_for(qwen3, gate=running())):
        with pytest.raises(ModelError, match=r"num_beams=2\).*beams exchange rows"):
            qwen3.generate(ids, attention_mask=mask, num_beams=2, max_new_tokens=2, pad_token_id=0)
        said = qwen3.generate(ids, attention_mask=mask, max_new_tokens=3, min_new_tokens=3, do_sample=False, pad_token_id=0)
        more = torch.cat([said, torch.tensor([[5, 6], [7, 8]])], 1)
        with pytest.raises(ModelError, match="further turn"):
            qwen3.generate(more, max_new_tokens=2, do_sample=False, pad_token_id=0)


def test_static_caches_decide_the_same(qwen3):
    ids, mask = prompts(LENGTHS)
    steering = steering_for(qwen3, gate=running(threshold=0.55, release=0.45, memory=1))
    told = {"attention_mask": mask, "max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    found = []
    for options in ({}, {"cache_implementation": "static", "disable_compile": True}):
        with attach(qwen3, steering) as attachment:
            qwen3.generate(ids, **told, **options)
            found.append(attachment.courses)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one.probability, other.probability, rtol=1e-4, atol=1e-5)
        assert torch.equal(one.value, other.value)


def test_an_artifact_steers_as_the_value(qwen3, tmp_path):
    from trimtab.steering import Steering

    gate = replace(running(action="close", threshold=0.4, release=0.6), question=logistic_gate(0.3), join="or")
    steering = steering_for(qwen3, gate=gate)
    steering.save_pretrained(tmp_path / "artifact")
    loaded = Steering.from_pretrained(tmp_path / "artifact")
    assert loaded.digest == steering.digest
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    with attach(qwen3, steering):
        expected = stepwise_logits(qwen3, ids, mask, WIDTH)
    with attach(qwen3, loaded):
        assert torch.equal(stepwise_logits(qwen3, ids, mask, WIDTH), expected)


def test_the_control_opens_at_its_token_however_it_is_run(qwen3):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    gate = RandomOpening(np.array([0, 1, 2, 4]), seed=2)
    steering = steering_for(qwen3, gate=gate)
    drawn = [gate.draw(row[:n]) for row, n in zip(rows_of(ids, mask), LENGTHS, strict=True)]
    assert len(set(drawn)) > 1
    steered = torch.zeros_like(ids, dtype=torch.bool)
    for row, first in enumerate(drawn):
        if first:
            steered[row, WIDTH + first - 1 :] = True
    with naive_steering(qwen3, steering, [1.5] * 3, steered):
        expected = whole_logits(qwen3, ids, mask)
    with attach(qwen3, steering) as attachment:
        logits = stepwise_logits(qwen3, ids, mask, WIDTH)
        assert [course.opened_at or 0 for course in attachment.courses] == drawn
    torch.testing.assert_close(logits[mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-4)
    with attach(qwen3, steering, prompt_lengths=LENGTHS):
        scored = whole_logits(qwen3, ids, mask)
    torch.testing.assert_close(scored[mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-4)
