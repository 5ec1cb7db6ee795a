"""Magnitudes before and after the edit, against hooks on each trace alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analysis_samples import alone, model, steering, traces
from trimtab.analysis import magnitudes
from trimtab.gate import Gate
from trimtab.model import LanguageModel, attach
from trimtab.recording import batch_features
from trimtab.steering import Steering
from trimtab.traces import Trace

TRACES = traces()


@torch.no_grad()
def seen(model: LanguageModel, one: Trace, edit: Steering, after: bool) -> np.ndarray:
    """Activations of the steered neurons ``[token, neuron]``, caught in front of or behind the attachment's hooks."""
    caught: dict[int, Tensor] = {}

    def catch(layer: int):
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            caught[layer] = inputs[0][0].clone()

        return hook

    with attach(model.hf_model, edit, gate="on", prompt_lengths=[len(one.prompt_ids)]):
        hooks = [
            module.register_forward_pre_hook(catch(layer), prepend=not after) for layer, module in enumerate(model.layout.modules)
        ]
        model.hf_model(input_ids=alone(one), use_cache=False)
    for hook in hooks:
        hook.remove()
    columns = [caught[layer][:, i] for layer, i in zip(edit.layer.tolist(), edit.index.tolist(), strict=True)]
    return torch.stack(columns, dim=1).numpy()[len(one.prompt_ids) :]


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
@pytest.mark.parametrize("gain", [0.0, -1.0])
def test_they_are_what_the_hooks_see(family: str, gain: float) -> None:
    lm = model(family)
    edit = steering(lm, gain=gain)
    found = magnitudes(lm, TRACES, TRACES, edit, gate="on", batch_tokens=30)
    bare = [np.abs(batch_features(lm, [one], edit.layer, edit.index, "response")[0]).mean(0) for one in TRACES]
    before, after = ([np.abs(seen(lm, one, edit, side)).mean(0) for one in TRACES] for side in (False, True))
    for i, neuron in enumerate(found.neurons):
        assert (neuron.layer, neuron.index) == (edit.layer[i], edit.index[i])
        for estimate, rows in ((neuron.unsteered, bare), (neuron.before, before), (neuron.after, after)):
            assert estimate.value == pytest.approx(np.mean([row[i] for row in rows]), rel=1e-3, abs=1e-5)
            assert estimate.low <= estimate.value <= estimate.high


def test_suppressed_neurons_are_silent_afterwards() -> None:
    lm = model("qwen3")
    edit = steering(lm, gain=-1.0)
    silent = replace(edit, shift=np.zeros_like(edit.shift), strength=1.0)
    found = magnitudes(lm, TRACES, TRACES, silent, gate="on")
    assert all(neuron.after.value == 0 < neuron.before.value for neuron in found.neurons)


def test_a_closed_gate_edits_nothing() -> None:
    lm = model("qwen3")
    never = Gate("logistic", "hard", np.array([0]), np.array([0]), np.array([0.0], np.float32), -30.0, 0.5)
    found = magnitudes(lm, TRACES, TRACES, steering(lm, gate=never))
    for neuron in found.neurons:
        assert neuron.after == neuron.before
        assert neuron.before.value == pytest.approx(neuron.unsteered.value, rel=1e-3)


def test_experts_are_edited_where_tokens_are_routed_to_them() -> None:
    lm = model("mixtral")
    # the first layer's FFN sees no edit, so what comes into its own edit is what it is unsteered
    edit = replace(steering(lm, k=1), layer=np.array([0]))
    found = magnitudes(lm, TRACES, TRACES, edit, gate="on").neurons[0]
    rows = [batch_features(lm, [one], edit.layer, edit.index, "response")[0][:, 0] for one in TRACES]
    assert any((row == 0).any() for row in rows)
    assert any((row != 0).any() for row in rows)
    change = edit.strength * float(edit.shift[0])
    expected = np.mean([np.abs(np.where(row == 0, 0.0, row + change)).mean() for row in rows])
    assert found.after.value == pytest.approx(expected, rel=1e-4)
    assert found.before.value == pytest.approx(found.unsteered.value, rel=1e-4)
