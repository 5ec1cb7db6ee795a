from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from layered_stack import D_FF, D_MODEL, IDENTITY, LAYERS, Stack, engine, linear, steering
from trimtab.errors import ConfigError, MismatchError, ModelError
from trimtab.gate import AttentionGate, Gate, RandomOpening, RunningGate
from trimtab.sampling.vllm_engine import attached
from trimtab.vllm_plugin.config import PluginConfig, RecordConfig
from trimtab.vllm_plugin.hooks import down_projections
from trimtab.vllm_plugin.refusals import check_engine, check_sizes, check_steering, check_weights

ACCEPTED: dict[str, Any] = {
    "speculative_config": None,
    "kv_transfer_config": None,
    "parallel_config.pipeline_parallel_size": 1,
    "parallel_config.data_parallel_size": 1,
    "parallel_config._api_process_count": 1,
    "parallel_config.prefill_context_parallel_size": 1,
    "parallel_config.use_ubatching": False,
    "cache_config.kv_sharing_fast_prefill": False,
    "model_config.runner_type": "generate",
    "scheduler_config.async_scheduling": True,
}


def vllm_config(**changes: object) -> Any:
    made = SimpleNamespace()
    for path, value in (ACCEPTED | changes).items():
        *parents, name = path.split(".")
        holder = made
        for parent in parents:
            vars(holder).setdefault(parent, SimpleNamespace())
            holder = vars(holder)[parent]
        setattr(holder, name, value)
    return made


def test_a_plain_engine_is_accepted() -> None:
    check_engine(vllm_config(), PluginConfig())


@pytest.mark.parametrize(
    ("path", "value", "fix"),
    [
        ("speculative_config", object(), "leave out --speculative-config"),
        ("kv_transfer_config", object(), "leave out --kv-transfer-config"),
        ("parallel_config.pipeline_parallel_size", 2, "use --tensor-parallel-size"),
        ("parallel_config.data_parallel_size", 2, "leave out --data-parallel-size"),
        ("parallel_config._api_process_count", 2, "leave out --api-server-count"),
        ("parallel_config.prefill_context_parallel_size", 2, "set --prefill-context-parallel-size 1"),
        ("parallel_config.use_ubatching", True, "leave out --enable-dbo"),
        ("cache_config.kv_sharing_fast_prefill", True, "leave out --kv-sharing-fast-prefill"),
        ("model_config.runner_type", "pooling", "serve a generative model"),
    ],
)
def test_a_setting_under_which_tokens_are_elsewhere_is_named_with_its_fix(path: str, value: object, fix: str) -> None:
    with pytest.raises(ConfigError, match=f"steering does not work with {path} = .*Fix: {fix}"):
        check_engine(vllm_config(**{path: value}), PluginConfig())


def test_recording_needs_steps_that_are_not_scheduled_ahead() -> None:
    with pytest.raises(ConfigError, match=r"recording does not work with async scheduling.*Fix: --no-async-scheduling"):
        check_engine(vllm_config(), PluginConfig(record=RecordConfig()))
    check_engine(vllm_config(**{"scheduler_config.async_scheduling": False}), PluginConfig(record=RecordConfig()))


def test_only_linear_gates_on_the_last_token_run_in_an_engine() -> None:
    mean = replace(linear(0), pooling="mean")
    one, unit = np.zeros(1, np.int64), np.ones(1, np.float32)
    attention = AttentionGate(one, one, unit, np.ones((1, 1), np.float32), unit, unit, threshold=0.5)
    for gate in (mean, attention):
        with pytest.raises(ModelError, match=r"an engine runs only linear gates on the last prompt token.*Fix: fit the gate"):
            check_steering(steering(0, scope="generated", gate=gate), "g", PluginConfig())
    own = linear(0)
    running = RunningGate(own.layer, own.index, own.weight, threshold=0.5)
    with pytest.raises(ModelError, match=r"an engine runs only linear gates on the last prompt token.*Fix: fit the gate"):
        check_steering(steering(0, scope="generated", gate=running.joined(mean, "or")), "g", PluginConfig())
    with pytest.raises(ModelError, match=r"draws a token by the prompt's ids, which no artifact tells.*Fix: attach the steering"):
        check_steering(steering(0, scope="generated", gate=RandomOpening(np.array([3]))), "g", PluginConfig())
    for gate in (running, running.joined(linear(1), "and")):
        check_steering(steering(0, scope="generated", gate=gate), "g", PluginConfig())
    check_steering(steering(0, scope="generated", gate=linear(0)), "g", PluginConfig())
    check_steering(steering(0, gate=Gate("never")), "g", PluginConfig())


def test_gains_cannot_be_written_on_the_output_side() -> None:
    with pytest.raises(ModelError, match=r"multiplies activations .gain.*Fix: side 'input', or the intervention 'add'"):
        check_steering(steering(0), "s", PluginConfig(side="output"))
    check_steering(steering(0, gains=False), "s", PluginConfig(side="output"))


def test_directions_of_the_residual_stream_are_refused_by_name() -> None:
    along = replace(steering(0), direction_layer=np.array([1]), direction=np.ones((1, D_MODEL), np.float32))
    with pytest.raises(ModelError, match=r"steering 's' adds a direction to the residual stream.*Fix: attach it"):
        check_steering(along, "s", PluginConfig())
    with pytest.raises(ModelError, match="use engine transformers"):
        attached(along, "on")


def test_every_size_that_differs_is_named() -> None:
    sizes = SimpleNamespace(num_hidden_layers=LAYERS, hidden_size=D_MODEL, intermediate_size=D_FF, vocab_size=10)
    check_sizes(IDENTITY, sizes, "s")
    with pytest.raises(ModelError, match="n_layers: made for 3, here 4; d_ff: made for 12, here 13"):
        check_sizes(IDENTITY, SimpleNamespace(**vars(sizes) | {"num_hidden_layers": 4, "intermediate_size": 13}), "s")
    with pytest.raises(ModelError, match="mixture of experts, whose fused kernel hands over no neuron"):
        check_sizes(replace(IDENTITY, n_experts=2), sizes, "s")


def test_stubs_and_fused_experts_are_named() -> None:
    class FusedMoE(nn.Module):
        pass

    class PPMissingLayer(nn.Module):
        pass

    for kind in (FusedMoE, PPMissingLayer):
        stack = Stack()
        stack.layers[1] = kind()
        with pytest.raises(ModelError, match=rf"no down projection in layers \[1\] of Stack, which holds {kind.__name__}.*Fix: "):
            down_projections(stack, LAYERS, "input")


def test_lora_is_refused_on_the_input_side_only() -> None:
    class RowParallelLinearWithLoRA(nn.Module):
        def __init__(self, base: nn.Module) -> None:
            super().__init__()
            self.base_layer = base

        def forward(self, x: torch.Tensor) -> Any:
            return self.base_layer(x)

    stack = Stack()
    for block in stack.layers:
        block.mlp.down_proj = RowParallelLinearWithLoRA(block.mlp.down_proj)
    with pytest.raises(ModelError, match=r"wrapped by LoRA.*Fix: side 'output'"):
        down_projections(stack, LAYERS, "input")
    own, h = steering(0, gains=False), torch.ones(1, D_MODEL)
    made = engine(stack, [own], PluginConfig(side="output", neurons_per_layer=0, features_per_layer=0))
    plain = Stack()
    other = engine(plain, [own])
    for each in (made, other):
        each.step.rows[0], each.step.weight[0] = 1, 1.0
    with torch.no_grad():
        torch.testing.assert_close(stack(h), plain(h), rtol=1e-4, atol=1e-4)


def test_quantised_activations_are_refused() -> None:
    stack = Stack()
    made = engine(stack, [steering(0)])
    table = next(iter(made.tables.layers.values()))
    for activation in (torch.zeros(1, D_FF, dtype=torch.int8), (torch.zeros(1, D_FF), torch.ones(1))):
        with pytest.raises(ModelError, match=r"hands its down projections quantised activations.*Fix: side 'output'"):
            table.edit_input(activation)  # type: ignore[arg-type]


def test_other_weights_are_refused_unless_forced(tmp_path: Any) -> None:
    with pytest.raises(MismatchError, match=r"cannot be compared, since they are not plain safetensors. Fix: serve stack"):
        check_weights(steering(0), str(tmp_path), False, "s", force=False)
    check_weights(steering(0), str(tmp_path), False, "s", force=True)
