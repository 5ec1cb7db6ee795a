"""Drift against two passes of each trace alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from analysis_samples import alone, model, steering, trace, traces
from tiny_models import N_LAYERS
from trimtab.analysis import drift
from trimtab.errors import NotEnoughDataError
from trimtab.gate import Gate
from trimtab.model import LanguageModel, attach
from trimtab.model.hook_points import decoder_blocks, residual
from trimtab.steering import Steering
from trimtab.traces import Trace

TRACES = traces()

ROUNDING = 1e-6


@torch.no_grad()
def one_pass(model: LanguageModel, one: Trace, edit: Steering | None) -> tuple[list[Tensor], Tensor]:
    """Residual streams and log-probabilities at the response tokens of one trace, float64."""
    seen: list[Tensor] = []
    hooks = [b.register_forward_hook(lambda m, i, out: seen.append(residual(out)[0])) for b in decoder_blocks(model.layout)]
    if edit is None:
        logits = model.hf_model(input_ids=alone(one), use_cache=False).logits[0]
    else:
        with attach(model.hf_model, edit, gate="on", prompt_lengths=[len(one.prompt_ids)]):
            logits = model.hf_model(input_ids=alone(one), use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    start = len(one.prompt_ids)
    return [stream[start:].double() for stream in seen], torch.log_softmax(logits[start:].double(), -1)


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "gpt2", "mixtral"])
def test_drift_is_that_of_two_passes(family: str) -> None:
    lm = model(family)
    edit = steering(lm)
    found = drift(lm, TRACES, edit, batch_tokens=40)
    rows = []
    for one in TRACES:
        (bare, p), (steered, q) = one_pass(lm, one, None), one_pass(lm, one, edit)
        row = []
        for u, s in zip(bare, steered, strict=True):
            cosines, distances, ratios = [], [], []
            for a, b in zip(u, s, strict=True):
                cosines.append(float(a @ b) / float(a.norm() * b.norm()))
                distances.append(float((b - a).norm() / a.norm()))
                ratios.append(float(b.norm() / a.norm()))
            row += [np.mean(cosines), np.mean(distances), np.mean(ratios)]
        row.append(float((p.exp() * (p - q)).sum(-1).mean()))
        row.append(float((q.exp() * (q - p)).sum(-1).mean()))
        row.append(float((p.argmax(-1) != q.argmax(-1)).double().mean()))
        rows.append(row)
    expected = np.mean(rows, axis=0)
    actual = [e.value for layer in found.layers for e in (layer.cosine, layer.distance, layer.norm_ratio)]
    actual += [found.kl_unsteered_steered.value, found.kl_steered_unsteered.value, found.changed.value]
    np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-5)
    assert len(found.layers) == N_LAYERS
    assert (found.n_traces, found.n_tokens) == (6, sum(len(t.response_ids) - 1 for t in TRACES))
    assert found.layers[-1].distance.value > 0.01


@pytest.mark.parametrize("edit", ["strength", "gate"])
def test_no_steering_is_no_drift(edit: str) -> None:
    lm = model("qwen3")
    never = Gate("logistic", "hard", np.array([0]), np.array([0]), np.array([0.0], np.float32), -30.0, 0.5)
    closed = steering(lm, gate=never) if edit == "gate" else steering(lm).with_strength(0.0)
    found = drift(lm, TRACES, closed, gate="auto" if edit == "gate" else "on")
    # both halves of one batch, which more than one thread may round differently
    for layer in found.layers:
        assert (layer.distance.high, layer.norm_ratio.value, layer.cosine.value) == pytest.approx((0, 1, 1), abs=ROUNDING)
    assert (found.kl_unsteered_steered.value, found.kl_steered_unsteered.value) == pytest.approx((0, 0), abs=ROUNDING)
    assert found.changed.value == 0


def test_a_gate_that_reads_prompts_changes_no_other_pass() -> None:
    lm = model("qwen3")
    always = Gate("logistic", "hard", np.array([0]), np.array([0]), np.array([0.0], np.float32), 30.0, 0.5)
    fired = drift(lm, TRACES, steering(lm, gate=always), gate="auto")
    assert replace(fired, gate="on") == drift(lm, TRACES, steering(lm), gate="on")


def test_layers_before_the_first_edit_do_not_move() -> None:
    lm = model("qwen3")
    whole = steering(lm, k=30)
    late = whole.layer == N_LAYERS - 1
    edit = replace(whole, layer=whole.layer[late], index=whole.index[late], gain=whole.gain[late], shift=whole.shift[late])
    found = drift(lm, TRACES, edit)
    assert [layer.distance.value < ROUNDING for layer in found.layers] == [True, True, False]


def test_traces_without_a_response_are_left_out_and_counted() -> None:
    lm = model("qwen3")
    assert drift(lm, [*TRACES, trace("q/0", 3, 1)], steering(lm)).left_out == 1
    with pytest.raises(NotEnoughDataError, match="two or more, got 1"):
        drift(lm, TRACES[:2], steering(lm))
