"""The output side, LoRA, samples and aborts, engines that did not ask for the plugin, and what does not start."""

import gc
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from live_engines import answer, effect_here, effect_of_hooks, mild, prompts, refusals, sampling, start, tokens
from trimtab.gate import ALWAYS
from trimtab.model import LanguageModel
from trimtab.steering import Steering
from trimtab.vllm_plugin.config import PluginConfig
from trimtab.vllm_plugin.offline import adapters_of, gate_outputs, status


@pytest.fixture(scope="module")
def additive(reasoner: LanguageModel) -> Steering:
    """A steering without gains."""
    own = mild(reasoner, ALWAYS, seed=4)
    return Steering(own.layer, own.index, np.zeros_like(own.gain), own.shift * 4, 1.0, "generated", ALWAYS, own.model)


@pytest.mark.parametrize("lora", [False, True], ids=["plain", "lora"])
def test_the_output_side_has_the_hooks_effect(reasoner: LanguageModel, additive: Steering, tmp_path: Path, lora: bool) -> None:
    config = PluginConfig(steerings={"s": str(additive.save_pretrained(tmp_path / "s"))}, side="output")
    llm = start(config, enable_lora=lora)
    prompt, vocab = prompts(reasoner)[0], reasoner.identity.vocab_size
    (output,) = answer(llm, [prompt], [sampling(10, vocab, steering="s", strength=0.7)])
    here = effect_here(llm, prompt, output, vocab)
    reference = effect_of_hooks(reasoner, additive, prompt, tokens(output), strength=0.7)
    assert np.linalg.norm(reference) > 1.0
    assert np.linalg.norm(here - reference) / np.linalg.norm(reference) <= 1e-3
    assert status(llm)["self_test"] == {"layers": (0, 1, 2, 3), "identical": True, "counted": True}


def test_samples_of_one_request_hold_its_slot_until_the_last_has_ended(eager: Any, reasoner: LanguageModel) -> None:
    from vllm import SamplingParams

    own = adapters_of(eager)
    slot = own.loaded()["six"].slot
    params = SamplingParams(n=3, temperature=1.0, max_tokens=5, ignore_eos=True, extra_args={"steering": "six"})
    engine = eager.llm_engine
    engine.add_request("many", {"prompt_token_ids": prompts(reasoner)[0]}, params)
    del params
    gc.collect()
    assert own.requests(slot) >= 1
    while engine.has_unfinished_requests():
        engine.step()
    gc.collect()
    assert own.requests(slot) == 0
    assert gate_outputs(eager, ["0_many", "1_many", "2_many", "3_many"])[3] is None
    assert all(gate_outputs(eager, ["0_many", "1_many", "2_many"]))


def test_an_aborted_request_gives_its_slot_back(eager: Any, reasoner: LanguageModel) -> None:
    own, engine = adapters_of(eager), eager.llm_engine
    slot = own.loaded()["sun"].slot
    internal = engine.add_request("gone", {"prompt_token_ids": prompts(reasoner)[0]}, sampling(50, steering="sun"))
    for _ in range(4):
        engine.step()
    assert own.requests(slot) == 1
    engine.abort_request([internal], internal=True)
    gc.collect()
    assert own.requests(slot) == 0
    answer(eager, prompts(reasoner)[:1], [sampling(2, steering="sun")])
    assert gate_outputs(eager, ["gone"])[0]["running"] is False


def test_an_engine_that_did_not_ask_has_nothing_of_the_plugin(eager: Any, reasoner: LanguageModel) -> None:
    llm = start(None)
    engine = llm.llm_engine
    runner = engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
    hooks = [module for module in runner.get_model().modules() if module._forward_pre_hooks or module._forward_hooks]
    assert hooks == []
    for owner in (runner, engine.input_processor, engine.engine_core.engine_core.model_executor.driver_worker.worker):
        own = {name: value for name, value in vars(owner).items() if getattr(value, "__module__", "").startswith("trimtab")}
        assert own == {}
    plain, other = (answer(each, prompts(reasoner), [sampling(12)] * 6) for each in (llm, eager))
    assert [tokens(output) for output in plain] == [tokens(output) for output in other]


def test_the_key_of_compiled_graphs_knows_the_tables(eager: Any) -> None:
    from trimtab.vllm_plugin.worker import LAYOUT

    vllm_config = eager.llm_engine.vllm_config
    with_layout = vllm_config.compute_hash()
    layout = vllm_config.additional_config.pop(LAYOUT)
    assert vllm_config.compute_hash() != with_layout
    vllm_config.additional_config[LAYOUT] = layout.replace("0:[", "0:[1", 1)
    assert vllm_config.compute_hash() != with_layout
    vllm_config.additional_config[LAYOUT] = layout
    assert vllm_config.compute_hash() == with_layout


def test_what_does_not_fit_does_not_start(
    reasoner: LanguageModel, additive: Steering, tmp_path: Path, steerings: dict[str, str]
) -> None:
    path = str(additive.save_pretrained(tmp_path / "s"))
    other = replace(additive, model=replace(additive.model, fingerprint="0" * 32)).save_pretrained(tmp_path / "other")
    ngrams = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}
    own = PluginConfig(steerings={"s": path})
    told = refusals(
        [
            (own, {"enable_lora": True}),
            (PluginConfig(steerings={"s": steerings["mild"]}, side="output"), {}),
            (own, {"speculative_config": ngrams}),
            (PluginConfig(steerings={"s": str(other)}), {}),
        ]
    )
    expected = [
        r"ModelError: .*wrapped by LoRA.*Fix: side 'output'",
        r"ModelError: .*multiplies activations \(gain\)",
        r"ConfigError: .*speculative_config",
        r"MismatchError: .*made for .* with fingerprint 0000.*force_model",
    ]
    for said, pattern in zip(told, expected, strict=True):
        assert re.match(pattern, said), said
