"""The V2 runner's hooks on vLLM's own classes: what cannot run here without Triton is left out of them."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("vllm")

from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.model_runner import GPUModelRunner
from vllm.v1.worker.gpu.model_states.default import DefaultModelState
from vllm.v1.worker.gpu.model_states.interface import ModelState

from layered_stack import D_MODEL, Stack, engine, linear, steering
from trimtab.gate import RunningGate
from trimtab.vllm_plugin.options import ResolvedOptions
from trimtab.vllm_plugin.runners import follow_v2
from trimtab.vllm_plugin.step import EngineSteering
from vllm import SamplingParams


class Runner:
    """The part of the runner that the hooks meet: its state, its requests, and how it ends them."""

    finish_requests = GPUModelRunner.finish_requests
    pooling_runner = None

    def __init__(self) -> None:
        self.model_state = bare_state()
        self.removed: list[str] = []

    def _remove_request(self, request_id: str) -> bool:
        self.model_state.remove_request(request_id)
        self.removed.append(request_id)
        return True


def bare_state() -> DefaultModelState:
    """vLLM's state of a text model, without what its constructor asks of a GPU."""
    state = DefaultModelState.__new__(DefaultModelState)
    state.rope_state = state.prompt_embeds_state = state.mm_pruner = None
    state.supports_mm_inputs = False
    return state


def new(request_id: str, prompt: int, entries: dict[str, object], generated: int = 0) -> NewRequestData:
    """A request as the scheduler announces it, or again after a preemption with the tokens that it has generated."""
    return NewRequestData(
        req_id=request_id,
        prompt_token_ids=list(range(prompt)),
        mm_features=[],
        sampling_params=SamplingParams(max_tokens=4, extra_args=entries),
        pooling_params=None,
        block_ids=([0],),
        num_computed_tokens=0,
        lora_request=None,
        prefill_token_ids=list(range(prompt + generated)),
    )


def batch(ids: list[str], start: list[int], count: list[int]) -> InputBatch:
    """An input batch with what is read of it; a padded one would have more rows of the same arrays."""
    made = InputBatch.__new__(InputBatch)
    made.req_ids, made.num_scheduled_tokens, made.num_computed_tokens_np = ids, np.array(count), np.array(start)
    return made


def leavers(finished: set[str], preempted: set[str]) -> SchedulerOutput:
    """A step in which requests leave."""
    made = SchedulerOutput.make_empty()
    made.finished_req_ids, made.preempted_req_ids = finished, preempted
    return made


def entries(made: EngineSteering, gate: int = 1) -> dict[str, object]:
    return ResolvedOptions(1, made.tables.digests[1], 1.0, "generated", gate).entries()


def hidden(tokens: int) -> torch.Tensor:
    return torch.randn(tokens, D_MODEL, generator=torch.Generator().manual_seed(tokens)) / 2


@pytest.fixture
def parts() -> tuple[Stack, EngineSteering, Runner]:
    stack = Stack()
    made = engine(stack, [steering(0, scope="generated", gate=replace(linear(3), bias=100.0))])
    runner = Runner()
    follow_v2(runner, made)
    return stack, made, runner


def step(stack: Stack, runner: Runner, ids: list[str], start: list[int], count: list[int]) -> torch.Tensor:
    """What the runner does in a step: inputs, forward, state after the sampler."""
    assert runner.model_state.prepare_inputs(batch(ids, start, count), SimpleNamespace()) == {}
    with torch.no_grad():
        output = stack(hidden(sum(count)))
    runner.model_state.postprocess_state(torch.arange(len(ids)), torch.ones(len(ids)), None)
    return output


def test_the_methods_that_are_wrapped_are_vllms_own() -> None:
    for name in ("add_request", "prepare_inputs", "prepare_dummy_inputs", "postprocess_state"):
        assert callable(getattr(ModelState, name))
    for name in ("finish_requests", "_dummy_run", "get_model"):
        assert callable(getattr(GPUModelRunner, name))


def test_a_gate_decides_in_the_prompts_step_and_steers_the_next(parts: tuple[Stack, EngineSteering, Runner]) -> None:
    stack, made, runner = parts
    runner.model_state.add_request(0, new("r", 4, entries(made)))
    runner.model_state.add_request(1, new("plain", 3, {}))
    step(stack, runner, ["r", "plain"], [0, 0], [4, 3])
    assert made.gate_outputs.find("r")["g"] == 1.0
    assert not made.step.weight[:7].any()
    steered = step(stack, runner, ["plain", "r"], [3, 4], [1, 1])
    assert made.step.weight[:2].tolist() == [0.0, 1.0]
    with torch.no_grad():
        bare = Stack()(hidden(2))
    assert torch.equal(steered[0], bare[0])
    assert not torch.equal(steered[1], bare[1])


def test_a_preempted_request_comes_back_with_its_decision(parts: tuple[Stack, EngineSteering, Runner]) -> None:
    stack, made, runner = parts
    runner.model_state.add_request(0, new("r", 4, entries(made)))
    step(stack, runner, ["r"], [0], [4])
    runner.finish_requests(leavers(set(), {"r"}))
    assert runner.removed == ["r"]
    assert len(made.requests) == 1
    runner.model_state.add_request(3, new("r", 4, entries(made), generated=2))
    step(stack, runner, ["r"], [0], [6])
    assert made.step.weight[:6].tolist() == [0.0] * 4 + [1.0] * 2
    assert made.status()["gate_read"] == 1
    runner.finish_requests(leavers({"r"}, set()))
    assert len(made.requests) == 0
    assert made.gate_outputs.find("r")["running"] is False


def test_a_running_gate_opens_after_a_token_and_stays_so_through_a_preemption() -> None:
    own, stack = linear(3), Stack()
    gate = RunningGate(own.layer, own.index, own.weight, bias=100.0, threshold=0.5)
    made, runner = engine(stack, [steering(0, scope="generated", gate=gate)]), Runner()
    follow_v2(runner, made)
    runner.model_state.add_request(0, new("r", 2, entries(made)))
    weights = []
    for start, count in ((0, 2), (2, 1), (3, 1)):
        step(stack, runner, ["r"], [start], [count])
        weights += made.step.weight[:count].tolist()
    runner.finish_requests(leavers(set(), {"r"}))
    runner.model_state.add_request(2, new("r", 2, entries(made), generated=3))
    step(stack, runner, ["r"], [0], [5])
    assert weights == [0.0, 0.0, 0.0, 1.0]
    assert made.step.weight[:5].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]
    runner.finish_requests(leavers({"r"}, set()))
    told = made.gate_outputs.find("r")
    assert (told["running_gate"]["tokens"], told["running_gate"]["opened_at"], told["steered_tokens"]) == (3, 2, 2)


def test_dummy_tokens_are_never_steered(parts: tuple[Stack, EngineSteering, Runner]) -> None:
    stack, made, runner = parts
    runner.model_state.add_request(0, new("r", 1, entries(made, gate=2)))
    step(stack, runner, ["r"], [1], [5])
    assert made.step.weight[:5].all()
    runner.model_state.prepare_dummy_inputs(2, 8)
    assert not made.step.weight.any()
    step(stack, runner, ["r"], [6], [2])
    step(stack, runner, ["_dummy_req_0", "_dummy_req_1"], [0, 0], [1, 1])
    assert not made.step.weight.any()


def test_a_request_that_ends_in_the_middle_of_its_prompt_leaves_no_place(parts: tuple[Stack, EngineSteering, Runner]) -> None:
    stack, made, runner = parts
    for turn in range(20):
        runner.model_state.add_request(0, new(f"r{turn}", 6, entries(made)))
        step(stack, runner, [f"r{turn}"], [0], [3])
        runner.finish_requests(leavers({f"r{turn}"}, set()))
    assert len(made.requests) == 0
    assert len(made.requests.active) == 4  # its req_indices never had to grow


def test_the_hooks_hold_on_every_kind_of_runner_object(parts: tuple[Stack, EngineSteering, Runner]) -> None:
    """Two engines in one process do not see each other's requests."""
    _, made, runner = parts
    other: Any = Runner()
    other.model_state.add_request(0, new("r", 4, entries(made)))
    assert len(made.requests) == 0
    assert "add_request" in vars(runner.model_state)
    assert "add_request" not in vars(other.model_state)
