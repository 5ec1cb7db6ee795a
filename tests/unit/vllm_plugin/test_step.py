"""An engine's steps on a stack of blocks: gates, monitors, moments and what is told of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layered_stack import D_FF, D_MODEL, LAYERS, Stack, engine, linear, steering, step
from trimtab.errors import ModelError
from trimtab.gate import NEVER, Gate
from trimtab.moments import MOMENTS
from trimtab.steering import PositionScope, Steering
from trimtab.vllm_plugin.config import PluginConfig, RecordConfig
from trimtab.vllm_plugin.courses import SlotGate
from trimtab.vllm_plugin.options import UNSTEERED, ResolvedOptions
from trimtab.vllm_plugin.recording import read_wire
from trimtab.vllm_plugin.requests import BUCKETS, NOBODY, RING, RequestStates
from trimtab.vllm_plugin.step import EngineSteering, plan_step
from trimtab.vllm_plugin.worker import WorkerSteering

SCOPES: tuple[PositionScope, ...] = ("generated", "last-and-generated", "all")
CPU = torch.device("cpu")


def options(slot: int, strength: float, scope: PositionScope, gate: int) -> ResolvedOptions:
    return ResolvedOptions(slot, "d", strength, scope, gate) if slot else UNSTEERED


requests = st.lists(
    st.tuples(
        st.integers(0, 3),  # slot
        st.floats(-2, 2, width=32),
        st.sampled_from(SCOPES),
        st.integers(0, 2),  # gate
        st.integers(1, 6),  # prompt length
        st.integers(1, 9),  # tokens in all
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=80, deadline=None)
@given(requests=requests, seed=st.integers(0, 10**6))
def test_every_token_of_every_step_agrees_with_a_loop_over_positions(requests: list[tuple], seed: int) -> None:
    """Chunks of random sizes, some of them computed again after a preemption, in a shuffled batch."""
    rng = np.random.default_rng(seed)
    states = RequestStates(2, CPU)
    req_indices = []
    for i, (slot, strength, scope, gate, prompt, _) in enumerate(requests):
        own = options(slot, strength, scope, gate)
        if not own.steers:
            req_indices.append(NOBODY)
            continue
        state = states.begin(f"r{i}", own, prompt, SlotGate(reads=True))
        states.host.watched[state.req_index] = True
        states.host.record_row[state.req_index] = i
        req_indices.append(state.req_index)
    done, recorded, monitored, decided = [0] * len(requests), set(), set(), set()
    for _ in range(40):
        if all(done[i] >= request[5] for i, request in enumerate(requests)):
            break
        batch = [int(i) for i in rng.permutation(len(requests)) if done[i] < requests[i][5] and rng.random() < 0.8]
        if not batch:
            continue
        for i in batch:
            if rng.random() < 0.15:
                done[i] = 0
        start = np.array([done[i] for i in batch])
        count = np.array([int(rng.integers(1, requests[i][5] - done[i] + 1)) for i in batch])
        plan = plan_step(states, np.array([req_indices[i] for i in batch]), start, count, nowhere=99, buckets=BUCKETS)
        token, deciding = 0, []
        for i, first, n in zip(batch, start, count, strict=True):
            slot, strength, scope, gate, prompt, _ = requests[i]
            for position in range(first, first + n):
                in_scope = {"generated": position >= prompt, "last-and-generated": position >= prompt - 1, "all": True}[scope]
                assert plan.row[token] == slot
                assert plan.strength[token] == np.float32(strength if slot and gate and in_scope else 0.0)
                assert plan.req_index[token] == req_indices[i]
                kind = 0 if position < prompt - 1 else 1 if position == prompt - 1 else 2
                new = slot > 0 and (i, position) not in recorded
                assert plan.target[token] == (i * 3 + kind if new else 99)
                assert plan.monitored[token] == (new and position >= prompt)
                if slot and position == prompt - 1 and i not in decided:
                    deciding.append([token, req_indices[i], slot, int(gate == 1)])
                    decided.add(i)
                if new:
                    recorded.add((i, position))
                    monitored |= {(i, position)} if position >= prompt else set()
                token += 1
            done[i] = first + n
        assert len(plan) == token
        assert sorted(plan.decide.T.tolist()) == sorted(deciding)
    for i, req_index in enumerate(req_indices):
        if req_index != NOBODY:
            assert states.host.counts[req_index].sum() == len([1 for j, _ in recorded if j == i])
            assert states.host.monitored[req_index] == len([1 for j, _ in monitored if j == i])
    assert not states.host.row[NOBODY]
    assert states.host.record_row[NOBODY] == -1


def test_places_are_given_back_and_grow_when_they_run_out() -> None:
    states = RequestStates(2, CPU)
    own = options(1, 1.0, "generated", 1)
    req_indices = [states.begin(str(i), own, 4, SlotGate(reads=True)).req_index for i in range(5)]
    assert len(set(req_indices)) == 5
    assert NOBODY not in req_indices
    states.active[req_indices[4]] = 0.5
    assert states.end("4") is not None
    assert states.end("4") is None
    again = states.begin("again", own, 4, SlotGate(reads=True))
    assert again.req_index == req_indices[4]
    assert float(states.active[again.req_index]) == 0.0
    assert torch.isnan(states.probability[again.req_index])
    assert len(states) == 5


@pytest.mark.parametrize("buckets", [("response",), ("prompt", "last-prompt"), ("last-prompt",)])
def test_only_the_kinds_of_tokens_that_are_needed_have_rows(buckets: tuple[str, ...]) -> None:
    states = RequestStates(2, CPU)
    state = states.begin("r", options(1, 1.0, "all", 2), 3, SlotGate())
    states.host.record_row[state.req_index] = 1
    plan = plan_step(states, np.array([state.req_index]), np.array([0]), np.array([5]), nowhere=50, buckets=buckets)
    kinds = ("prompt", "prompt", "last-prompt", "response", "response")
    assert plan.target.tolist() == [len(buckets) + buckets.index(kind) if kind in buckets else 50 for kind in kinds]


def embedded(tokens: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(tokens, D_MODEL, generator=torch.Generator().manual_seed(seed)) / 2


def asked(made: EngineSteering, slot: int = 1, gate: int = 1, strength: float = 1.0, record: bool = False) -> dict[str, object]:
    return ResolvedOptions(slot, made.tables.digests.get(slot, ""), strength, "generated", gate, record).entries()


def features(h: torch.Tensor, gate: Gate) -> np.ndarray:
    """What the gate reads at each token of an unsteered forward."""
    columns, state = np.zeros((len(h), len(gate.layer)), np.float32), h
    for layer, block in enumerate(Stack().layers):
        own = gate.layer == layer
        columns[:, own] = block.neurons(state).detach()[:, gate.index[own]].numpy()
        state = block(state)
    return columns


@pytest.mark.parametrize("proportional", [False, True])
def test_gates_decide_prompt_by_prompt_and_steer_from_the_first_generated_token(proportional: bool) -> None:
    lengths = [3, 5, 4, 6]
    prompts = [embedded(n, seed) for seed, n in enumerate(lengths)]
    gate = linear(3)
    last = np.array([gate.probability(features(p, gate))[-1] for p in prompts])
    gate = linear(3, threshold=float(np.sort(last)[1:3].mean()), proportional=proportional)
    stack = Stack()
    own = steering(0, scope="generated", gate=gate)
    made = engine(stack, [own])
    for i, n in enumerate(lengths):
        made.begin(f"r{i}", asked(made), n, n)
    step(made, stack, {"r0": (0, prompts[0]), "r1": (0, prompts[1][:2])})  # a whole prompt and a chunk
    step(made, stack, {"r2": (0, prompts[2]), "r1": (2, prompts[1][2:]), "r3": (0, prompts[3])})
    found = [made.gate_outputs.find(f"r{i}") for i in range(4)]
    g = gate.value(last)
    assert 0 < (g > 0).sum() < 4
    np.testing.assert_allclose([each["p_fail"] for each in found], last, atol=1e-5)
    np.testing.assert_allclose([each["g"] for each in found], g, atol=1e-5)
    assert [each["fired"] for each in found] == (g > 0).tolist()
    assert made.status()["gate_read"] == 4
    assert made.status()["gate_fired"] == int((g > 0).sum())
    assert sum(made.status()["p_fail_histogram"]) == 4
    assert made.status()["steered_tokens"] == 0
    following = [embedded(1, 10 + i) for i in range(4)]
    step(made, stack, {f"r{i}": (lengths[i], following[i]) for i in range(4)})
    np.testing.assert_allclose(made.step.weight[:4].numpy(), g, atol=1e-5)
    assert made.status()["steered_tokens"] == (g > 0).sum()
    assert set(made.status()["layers"].values()) == {(g > 0).sum()}


@pytest.mark.parametrize(("code", "value"), [(2, 1.0), (0, 0.0)])
def test_a_gate_that_the_caller_has_set_is_read_and_not_asked(code: int, value: float) -> None:
    gate, stack, prompt = linear(3), Stack(), embedded(4)
    made = engine(stack, [steering(0, scope="generated", gate=gate)])
    made.begin("r", asked(made, gate=code), 4, 4)
    step(made, stack, {"r": (0, prompt)})
    found = made.gate_outputs.find("r")
    assert found["p_fail"] == pytest.approx(float(gate.probability(features(prompt, gate))[-1]), abs=1e-5)
    assert found["g"] == value
    assert made.status()["gate_read"] == 0
    step(made, stack, {"r": (4, embedded(1))})
    assert float(made.step.weight[0]) == value


def test_gates_that_read_nothing() -> None:
    stack = Stack()
    made = engine(stack, [steering(0), steering(1).with_gate(NEVER)])
    for slot in (1, 2):
        made.begin(f"r{slot}", asked(made, slot), 2, 2)
    step(made, stack, {"r1": (2, embedded(1)), "r2": (2, embedded(1))})
    assert made.step.weight[:2].tolist() == [1.0, 0.0]
    assert made.gate_outputs.find("r1")["p_fail"] is None


def test_a_decision_outlives_a_preemption_and_is_not_made_twice() -> None:
    gate, stack, prompt = linear(3), Stack(), embedded(4)
    p = float(gate.probability(features(prompt, gate))[-1])
    made = engine(stack, [steering(0, scope="generated", gate=linear(3, threshold=p - 0.01))])
    made.begin("r", asked(made), 4, 4)
    step(made, stack, {"r": (0, prompt)})
    made.pause("r")
    step(made, stack, {"other": (0, embedded(6))})
    assert made.begin("r", asked(made), 4, 4) == made.requests.states["r"].req_index
    step(made, stack, {"r": (0, torch.cat([prompt, embedded(2)]))})  # prompt and answer so far, again
    assert made.step.weight[:6].tolist() == [0.0] * 4 + [1.0] * 2
    assert made.status()["gate_read"] == 1


def test_what_a_batch_left_behind_is_not_read_by_a_padded_graph() -> None:
    stack = Stack()
    made = engine(stack, [steering(0)], PluginConfig(neurons_per_layer=0, features_per_layer=0))
    made.begin("r", asked(made), 1, 1)
    step(made, stack, {"r": (1, embedded(9))})
    assert made.step.weight[:9].tolist() == [1.0] * 9
    step(made, stack, {"r": (10, embedded(2))})
    assert made.step.weight.tolist() == [1.0] * 2 + [0.0] * 30
    assert made.step.rows.tolist() == [1] * 2 + [0] * 30
    step(made, stack, {"other": (0, embedded(3))})
    assert not made.step.weight.any()
    assert not made.step.rows.any()
    assert int(made.step.steered) == 0


def test_the_monitor_reads_each_generated_token_once() -> None:
    gate, stack, h = linear(3), Stack(), embedded(7)
    made = engine(stack, [steering(0, scope="generated", gate=gate)], monitor=True)
    made.begin("r", asked(made, gate=0), 3, 3)
    step(made, stack, {"r": (0, h[:5])})
    made.pause("r")
    step(made, stack, {"r": (0, h)})
    found = made.gate_outputs.find("r")
    assert found["monitored_tokens"] == 4
    assert found["monitor"] == pytest.approx(gate.probability(features(h, gate)[3:]).mean(), abs=1e-5)


@pytest.mark.parametrize("count", [1, 2])
def test_moments_are_sums_over_the_tokens_of_each_scope(count: int) -> None:
    config = PluginConfig(
        neurons_per_layer=0,
        features_per_layer=0,
        record=RecordConfig(moments=MOMENTS, scopes=("response", "all", "prompt", "last-prompt")),
    )
    h, told = embedded(8), []
    bare, state, a = Stack(), h, []
    for block in bare.layers:
        a.append(block.neurons(state).detach())
        state = block(state)
    for i in range(count):
        stack = Stack(i, count)
        made = engine(stack, [steering(0)], config, rank=(i, count))
        req_index = made.begin("r-01234567", asked(made, gate=0, record=True), 5, 5)
        made.begin("s-01234567", asked(made, gate=2), 2, 2)

        def forward(made: EngineSteering, stack: Stack, start: int, stop: int, req_index: int, i: int) -> None:
            made.before_forward([NOBODY, req_index], np.array([0, start]), np.array([2, stop - start]))
            for layer, block in enumerate(stack.layers):
                width = D_FF // count
                own = a[layer][start:stop, i * width : (i + 1) * width]
                block.mlp.down_proj(torch.cat([torch.full((2, width), 1e3), own]))
            made.after_forward()

        forward(made, stack, 0, 6, req_index, i)
        made.pause("r-01234567")
        made.begin("r-01234567", asked(made, gate=0, record=True), 5, 5)
        forward(made, stack, 0, 4, req_index, i)  # again
        forward(made, stack, 4, 8, req_index, i)
        made.end("r-01234567")
        side = WorkerSteering(made, config, None, "V1")
        told.append(side.moments("r"))
        assert side.moments("r") is None
        assert side.moments("s") is None
    counts, arrays = read_wire(told)
    spans = {"response": (5, 8), "all": (0, 8), "prompt": (0, 5), "last-prompt": (4, 5)}
    powers = {"sum": lambda x: x, "magnitude": torch.abs, "square": torch.square}
    for scope, (start, stop) in spans.items():
        assert counts[scope] == stop - start
        for name in MOMENTS:
            expected = torch.stack([powers[name](a[layer][start:stop]).sum(0) for layer in range(LAYERS)])
            np.testing.assert_allclose(arrays[scope][name], expected.numpy(), rtol=1e-5, atol=1e-5)


def test_rows_of_moments_are_given_back() -> None:
    config = PluginConfig(neurons_per_layer=0, features_per_layer=0, record=RecordConfig())
    stack = Stack()
    made = engine(stack, [steering(0)], config)
    for i in range(20):  # there are four
        made.begin(f"r{i}", asked(made, record=True), 1, 1)
        step(made, stack, {f"r{i}": (0, embedded(3))})
        made.end(f"r{i}")
    assert made.moments("r0").counts.tolist() == [0, 0, 2]
    np.testing.assert_array_equal(made.moments("r3").sums, made.moments("r4").sums)


def test_a_slot_that_holds_another_steering_stops_the_engine() -> None:
    made = engine(Stack(), [steering(0)])
    entries = asked(made)
    made.tables.load(1, Steering.with_strength(steering(0), 2.0), "other")
    with pytest.raises(ModelError, match=r"admitted for steering .* in slot 1, which holds .* Fix: load and unload"):
        made.begin("r", entries, 3, 3)


def test_requests_that_ask_for_nothing_leave_nothing() -> None:
    stack = Stack()
    made = engine(stack, [steering(0)])
    assert made.begin("r", {"else": 1}, 3, 3) == NOBODY
    assert made.begin("q", None, 3, 3) == NOBODY
    output = step(made, stack, {"r": (0, embedded(3))})
    with torch.no_grad():
        assert torch.equal(output, Stack()(embedded(3)))
    made.end("r")
    assert made.gate_outputs.find("r") is None
    assert len(made.requests) == 0


def test_ended_requests_are_remembered_up_to_a_bound() -> None:
    made = engine(Stack(), [steering(0)])
    for i in range(RING + 2):
        made.begin(f"r{i}-01234567", asked(made, strength=float(i)), 3, 3)
        made.end(f"r{i}-01234567")
    assert made.gate_outputs.find("r0") is None
    assert made.gate_outputs.find("r1") is None
    assert made.gate_outputs.find("r2")["strength"] == 2.0
    assert made.gate_outputs.find(f"r{RING + 1}-01234567")["strength"] == RING + 1.0
    assert made.gate_outputs.find("r2")["running"] is False
