"""AdaRAS's ranking on a real model against a straight implementation of its formula: tokens dumped one by one, sums in Python."""

from pathlib import Path

import numpy as np
import torch

from trimtab.model import LanguageModel, open_model
from trimtab.ranking import class_moments, labelled, rank
from trimtab.recording import RecordingSettings, record_traces
from trimtab.tasks.contrast import ContrastRow
from trimtab.traces import Trace

TOP = 200


def traces_of(model: LanguageModel) -> tuple[list[Trace], list[ContrastRow]]:
    """Eight problems of two traces a verdict, of different lengths, over random tokens."""
    rng = np.random.default_rng(0)
    traces, rows = [], []
    for problem in range(8):
        prompt = tuple(rng.integers(4, model.identity.vocab_size, rng.integers(5, 12)).tolist())
        for sample in range(4):
            response = tuple(rng.integers(4, model.identity.vocab_size, rng.integers(6, 25)).tolist())
            traces.append(Trace(f"p{problem}-{sample}", f"p{problem}", sample, prompt, response, "", "stop"))
            rows.append(ContrastRow(traces[-1].id, f"p{problem}", sample % 2 == 0))
    return traces, rows


@torch.inference_mode()
def dumped(model: LanguageModel, trace: Trace) -> list[list[list[float]]]:
    """``[layer][token][neuron]`` of the response's forwarded tokens, from one unpadded forward."""
    found: list[list[list[float]]] = []
    hooks = [
        layer.mlp.down_proj.register_forward_pre_hook(
            lambda module, inputs: found.append(inputs[0][0, len(trace.prompt_ids) :].double().tolist())
        )
        for layer in model.hf_model.model.layers
    ]
    model.hf_model(torch.tensor([[*trace.prompt_ids, *trace.response_ids[:-1]]]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return found


def straight(model: LanguageModel, traces: list[Trace], rows: list[ContrastRow]) -> list[tuple[float, float, int, int]]:
    """``(r, delta, layer, index)`` of every neuron that differs, best first."""
    means: dict[bool, list[list[list[float]]]] = {True: [], False: []}
    for trace, row in zip(traces, rows, strict=True):
        by_layer = dumped(model, trace)
        means[row.correct].append([[sum(column) / len(tokens) for column in zip(*tokens, strict=True)] for tokens in by_layer])
    neurons = []
    for layer in range(model.n_layers):
        for index in range(model.identity.d_ff):
            good = sum(mean[layer][index] for mean in means[True]) / len(means[True])
            bad = sum(mean[layer][index] for mean in means[False]) / len(means[False])
            if good != bad:
                neurons.append((abs(good - bad) / (abs(good) + abs(bad)), good - bad, layer, index))
    return sorted(neurons, key=lambda neuron: (-neuron[0], -abs(neuron[1])))


def test_our_ranking_equals_the_formula(tmp_path: Path) -> None:
    model = open_model("testbed:reasoner")
    traces, rows = traces_of(model)
    recording = record_traces(model, traces, RecordingSettings(batch_tokens=300), tmp_path)
    moments = class_moments(labelled(recording.stream("response"), rows))
    neurons = rank(moments, "adaras", TOP, model.identity)

    expected = straight(model, traces, rows)
    r, delta, place = {}, {}, {}
    for i, (ratio, difference, layer, index) in enumerate(expected):
        r[layer, index], delta[layer, index], place[layer, index] = ratio, difference, i
    ours = list(zip(neurons.layer.tolist(), neurons.index.tolist(), strict=True))
    # sign flips must reach beyond the first hundred, or the order by size among them was not tried
    assert sum(r[neuron] == 1 for neuron in ours) > 100
    np.testing.assert_allclose(neurons.mean_difference, [delta[neuron] for neuron in ours], rtol=1e-5)
    np.testing.assert_allclose(neurons.score, [r[neuron] for neuron in ours], rtol=1e-5)
    for neuron, (ratio, difference, layer, index) in zip(ours, expected[:TOP], strict=True):
        same = neuron == (layer, index)
        tied = np.allclose([r[neuron], abs(delta[neuron])], [ratio, abs(difference)], rtol=1e-5, atol=0)
        assert same or tied, f"place {place[neuron]} against {place[layer, index]}"
    assert sum(place[neuron] == i for i, neuron in enumerate(ours)) >= TOP - 10
