"""Drift against two passes of each trace alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from analysis_samples import alone, opened, steering, trace, traces
from torch import Tensor

from tiny_models import N_LAYERS
from trimtab.analysis import drift
from trimtab.analysis.blocks import decoder_blocks, residual
from trimtab.errors import NotEnoughDataError
from trimtab.gate import Gate
from trimtab.model import OpenModel, attach
from trimtab.steering import Steering
from trimtab.traces import Trace

TRACES = traces()

ROUNDING = 1e-6


@torch.no_grad()
def one_pass(model: OpenModel, one: Trace, edit: Steering | None) -> tuple[list[Tensor], Tensor]:
    """Residual streams and log-probabilities at the response tokens of one trace, float64."""
    seen: list[Tensor] = []
    hooks = [b.register_forward_hook(lambda m, i, out: seen.append(residual(out)[0])) for b in decoder_blocks(model)]
    if edit is None:
        logits = model.model(input_ids=alone(one), use_cache=False).logits[0]
    else:
        with attach(model.model, edit, gate="on", prompt_lengths=[len(one.prompt_ids)]):
            logits = model.model(input_ids=alone(one), use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    start = len(one.prompt_ids)
    return [stream[start:].double() for stream in seen], torch.log_softmax(logits[start:].double(), -1)


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "gpt2", "mixtral"])
def test_drift_is_that_of_two_passes(family: str) -> None:
    model = opened(family)
    edit = steering(model)
    found = drift(model, TRACES, edit, batch_tokens=40)
    rows = []
    for one in TRACES:
        (bare, p), (steered, q) = one_pass(model, one, None), one_pass(model, one, edit)
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
    model = opened("qwen3")
    never = Gate("logistic", "hard", np.array([0]), np.array([0]), np.array([0.0], np.float32), -30.0, 0.5)
    closed = steering(model, gate=never) if edit == "gate" else steering(model).with_strength(0.0)
    found = drift(model, TRACES, closed, gate="auto" if edit == "gate" else "on")
    # both halves of one batch, which more than one thread may round differently
    for layer in found.layers:
        assert (layer.distance.high, layer.norm_ratio.value, layer.cosine.value) == pytest.approx((0, 1, 1), abs=ROUNDING)
    assert (found.kl_unsteered_steered.value, found.kl_steered_unsteered.value) == pytest.approx((0, 0), abs=ROUNDING)
    assert found.changed.value == 0


def test_a_gate_that_reads_prompts_changes_no_other_pass() -> None:
    model = opened("qwen3")
    always = Gate("logistic", "hard", np.array([0]), np.array([0]), np.array([0.0], np.float32), 30.0, 0.5)
    fired = drift(model, TRACES, steering(model, gate=always), gate="auto")
    assert replace(fired, gate="on") == drift(model, TRACES, steering(model), gate="on")


def test_layers_before_the_first_edit_do_not_move() -> None:
    model = opened("qwen3")
    whole = steering(model, k=30)
    late = whole.layer == N_LAYERS - 1
    edit = replace(whole, layer=whole.layer[late], index=whole.index[late], dgain=whole.dgain[late], shift=whole.shift[late])
    found = drift(model, TRACES, edit)
    assert [layer.distance.value < ROUNDING for layer in found.layers] == [True, True, False]


def test_traces_without_a_response_are_left_out_and_counted() -> None:
    model = opened("qwen3")
    assert drift(model, [*TRACES, trace("q/0", 3, 1)], steering(model)).left_out == 1
    with pytest.raises(NotEnoughDataError, match="two or more, got 1"):
        drift(model, TRACES[:2], steering(model))
