"""One batch with requests that ask for different things."""

from typing import Any

import numpy as np
import pytest
import torch

from live_engines import Figures, answer, effect_here, effect_of_hooks, prompts, sampling, table, tokens
from trimtab.gate import ALWAYS
from trimtab.model import LanguageModel
from trimtab.model.attach import attach
from trimtab.steering import Steering
from trimtab.vllm_plugin.offline import gate_outputs, status

MIX: list[dict[str, Any]] = [
    {},
    {"steering": "mild", "strength": 0.3},
    {"steering": "mild", "strength": 1.0},
    {"steering": "mild", "strength": -1.0, "scope": "all"},
    {"steering": "six"},
    {"steering": "mild-gated"},
    {"steering": "mild-gated", "gate": "on", "strength": 0.5},
    {"steering": "mild-gated", "gate": "off"},
]


def test_each_request_of_a_mix_equals_its_own_single_run(eager: Any, reasoner: LanguageModel) -> None:
    asked, vocab = prompts(reasoner), reasoner.identity.vocab_size
    batch = [asked[i % len(asked)] for i in range(len(MIX))]
    params = [sampling(16, vocab, **xargs) for xargs in MIX]
    together = answer(eager, batch, params)
    for prompt, own, output in zip(batch, params, together, strict=True):
        (alone,) = answer(eager, [prompt], [own])
        assert tokens(alone) == tokens(output)
        mixed, single = (table(each.outputs[0].logprobs, vocab) for each in (output, alone))
        np.testing.assert_allclose(mixed, single, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("xargs", [xargs for xargs in MIX if xargs.get("gate") != "off" and xargs])
def test_an_effect_is_that_of_the_hooks(
    eager: Any, reasoner: LanguageModel, steerings: dict[str, str], xargs: dict[str, Any], figures: Figures
) -> None:
    steering = Steering.from_pretrained(steerings[xargs["steering"]])
    options = {"strength": xargs.get("strength"), "gate": xargs.get("gate", "auto")}
    if "scope" in xargs:
        steering = Steering(
            steering.layer, steering.index, steering.gain, steering.shift, 1.0, xargs["scope"], ALWAYS, steering.model
        )
    ratios = []
    for prompt in prompts(reasoner):
        (output,) = answer(eager, [prompt], [sampling(12, reasoner.identity.vocab_size, **xargs)])
        here = effect_here(eager, prompt, output, reasoner.identity.vocab_size)
        reference = effect_of_hooks(reasoner, steering, prompt, tokens(output), **options)
        size = float(np.linalg.norm(reference))
        if size == 0.0:  # its gate stays closed, in both
            assert np.abs(here).max() < 1e-4
            continue
        ratios.append(float(np.linalg.norm(here - reference)) / size)
    assert max(ratios) <= 1e-3
    figures(f"effect of {' '.join(map(str, xargs.values()))} within {max(ratios):.0e}")
    assert len(ratios) == (3 if xargs == {"steering": "mild-gated"} else 6)


def test_a_gate_decides_as_in_transformers(eager: Any, reasoner: LanguageModel, steerings: dict[str, str]) -> None:
    asked = prompts(reasoner)
    steering = Steering.from_pretrained(steerings["mild-gated"])
    read = gate_outputs(
        eager, [each.request_id for each in answer(eager, asked, [sampling(4, steering="mild-gated")] * len(asked))]
    )
    expected = []
    for prompt in asked:
        with torch.no_grad(), attach(reasoner.hf_model, steering, layout=reasoner.layout, identity=reasoner.identity) as attached:
            reasoner.hf_model(torch.tensor([prompt]), use_cache=True)
        assert attached.probability is not None
        expected.append(float(attached.probability[0]))
    np.testing.assert_allclose([facts["p_fail"] for facts in read], expected, atol=1e-5)
    assert [facts["fired"] for facts in read] == [p >= 0.5 for p in expected]
    assert {facts["fired"] for facts in read} == {True, False}
    assert [facts["g"] for facts in read] == [float(p >= 0.5) for p in expected]


def test_an_open_or_closed_gate_is_read_all_the_same(eager: Any, reasoner: LanguageModel) -> None:
    prompt = prompts(reasoner)[0]
    modes = ("auto", "on", "off")
    outputs = answer(eager, [prompt] * 3, [sampling(4, steering="mild-gated", gate=mode) for mode in modes])
    auto, on, off = gate_outputs(eager, [output.request_id for output in outputs])
    assert auto["p_fail"] == pytest.approx(on["p_fail"], abs=1e-6)
    assert auto["p_fail"] == pytest.approx(off["p_fail"], abs=1e-6)
    assert (on["g"], off["g"]) == (1.0, 0.0)


def test_the_monitor_is_the_mean_probe_of_generated_tokens(
    eager: Any, reasoner: LanguageModel, steerings: dict[str, str]
) -> None:
    gate = Steering.from_pretrained(steerings["mild-gated"]).gate
    prompt = prompts(reasoner)[1]
    (output,) = answer(eager, [prompt], [sampling(9, steering="mild-gated", gate="off")])
    (facts,) = gate_outputs(eager, [output.request_id])
    seen: list[torch.Tensor] = []
    handle = reasoner.layout.down[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with handle, torch.no_grad():
        reasoner.hf_model(torch.tensor([prompt + tokens(output)[: facts["monitored_tokens"]]]))
    features = seen[0][0, len(prompt) :, gate.index].double().numpy()
    assert facts["monitored_tokens"] in (8, 9)  # a step that is scheduled ahead forwards the last token too
    assert facts["monitor"] == pytest.approx(gate.probability(features).mean(), abs=1e-5)


def test_every_layer_counts_the_tokens_that_were_steered(eager: Any, reasoner: LanguageModel) -> None:
    before = status(eager)
    answer(eager, prompts(reasoner)[:2], [sampling(6, steering="six", scope="all"), sampling(6)])
    after = status(eager)
    steered = after["steered_tokens"] - before["steered_tokens"]
    assert steered >= len(prompts(reasoner)[0]) + 5
    assert {after["layers"][layer] - before["layers"][layer] for layer in after["layers"]} == {steered}
    assert after["self_test"] == {"layers": (0, 1, 2, 3), "identical": True, "counted": True}
