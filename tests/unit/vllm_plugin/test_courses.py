"""Running gates in an engine's steps, against a loop over tokens: chunks, preemptions, thrown away tokens, pages, warnings."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import layered_stack
from layered_stack import D_FF, D_MODEL, LAYERS, Stack, engine, linear, steering
from trimtab.errors import ModelError
from trimtab.gate import Gate, RunningGate
from trimtab.steering import Steering
from trimtab.vllm_plugin import courses
from trimtab.vllm_plugin.courses import PAGE, Courses, Warned, Warns
from trimtab.vllm_plugin.options import ResolvedOptions
from trimtab.vllm_plugin.step import EngineSteering

CPU = torch.device("cpu")


def running(seed: int, **settings: object) -> RunningGate:
    """Random features of all layers, which p(fail) swings around the threshold with."""
    rng = np.random.default_rng(seed)
    flat = rng.choice(LAYERS * D_FF, 9, replace=False)
    made = RunningGate(flat // D_FF, flat % D_FF, rng.normal(size=9).astype(np.float32) * 0.03, 0.1, threshold=0.5)
    return replace(made, **settings)


GATES = [
    running(1),
    running(2, memory=1, release=0.4),
    running(3, memory=3, action="close", after=2),
    running(4, memory=1, action="close", release=0.6),
    running(5, memory=2, action="scale", release=0.3, after=3),
    running(6, memory=1, action="scale", threshold=0.45),
    running(7, memory=1, release=0.45, question=linear(8), join="and"),
    running(8, memory=1, release=0.45, question=linear(9), join="or"),
    running(9, memory=2, action="scale", question=linear(10, proportional=True), join="or"),
]
LOADED = [steering(i, scope="generated", gate=gate) for i, gate in enumerate(GATES)]


def embedded(seed: int, tokens: int) -> torch.Tensor:
    return torch.randn(tokens, D_MODEL, generator=torch.Generator().manual_seed(seed)) / 2


@dataclass
class Course:
    """What a loop over the tokens of a response finds."""

    p: list[float]
    g: list[float]
    output: torch.Tensor

    def warned_at(self, gate: RunningGate) -> int | None:
        numbers = range(1, len(self.p) + 1)
        return next((t for t, p in zip(numbers, self.p, strict=True) if t >= gate.after and p >= gate.cutoff), None)

    def opened_at(self) -> int | None:
        return next((t for t, g in enumerate(self.g, 1) if g > 0), None)


def forward(own: Steering, h: torch.Tensor, weight: float) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
    """Activations of each layer before its own edit, and the output."""
    seen, state = {}, h
    for layer, block in enumerate(STACK.layers):
        a = seen[layer] = block.neurons(state).detach()
        changed = a.clone()
        mine = own.layer == layer
        index = torch.from_numpy(own.index[mine])
        changed[index] += weight * (torch.from_numpy(own.gain[mine]) * a[index] + torch.from_numpy(own.shift[mine]))
        state = state + (changed @ block.mlp.down_proj.weight.T).detach()
    return seen, state


STACK = Stack()


def unsteered(h: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return STACK(h)


def features(gate: Gate | RunningGate, seen: dict[int, torch.Tensor]) -> np.ndarray:
    pairs = zip(gate.layer.tolist(), gate.index.tolist(), strict=True)
    return np.array([float(seen[layer][index]) for layer, index in pairs], np.float32)


def by_hand(own: Steering, prompt: torch.Tensor, response: torch.Tensor, strength: float, asked: int) -> Course:
    gate = own.gate
    assert isinstance(gate, RunningGate)
    question = 1.0 if gate.join == "and" else 0.0
    if gate.question is not None:
        read = features(gate.question, forward(own, prompt[-1], 0.0)[0])
        question = float(gate.question.value(gate.question.probability(read[None]))[0])
    p, g, rows, outputs = [], [], [], []
    for h in response:
        said = float(gate.value(np.array([*p, 0.5]))[-1])
        both = min(said, question) if gate.join == "and" else max(said, question)
        g.append([0.0, both, 1.0][asked])
        seen, output = forward(own, h, strength * g[-1])
        rows.append(features(gate, seen))
        outputs.append(output)
        p.append(float(gate.probability(np.stack(rows))[-1]))
    return Course(p, g, torch.stack(outputs) if outputs else torch.zeros(0, D_MODEL))


def named(i: int) -> str:
    """A request's id as vLLM makes it of the caller's."""
    return f"r{i}-01234567"


def entries(made: EngineSteering, slot: int, gate: int = 1, strength: float = 1.0) -> dict[str, object]:
    return ResolvedOptions(slot, made.tables.digests[slot], strength, "generated", gate).entries()


def step(made: EngineSteering, stack: Stack, batch: dict[str, tuple[int, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """As :func:`layered_stack.step`, by request."""
    output = layered_stack.step(made, stack, batch)
    return dict(zip(batch, output.split([len(h) for _, h in batch.values()]), strict=True))


asked_for = st.lists(
    st.tuples(
        st.integers(0, len(GATES)),  # slot
        st.sampled_from([1.0, -0.5, 0.3]),  # strength
        st.sampled_from([1, 1, 1, 0, 2]),  # gate
        st.integers(1, 4),  # prompt length
        st.integers(0, 12),  # response length
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(asked_for=asked_for, seed=st.integers(0, 10**6))
def test_every_token_is_steered_as_in_a_loop_over_tokens(asked_for: list[tuple], seed: int) -> None:
    """Shuffled batches, prompts in chunks, and preempted requests that compute all again, in chunks of any size."""
    rng, stack = np.random.default_rng(seed), Stack()
    made = engine(stack, LOADED, tokens=200)
    whole = [embedded(seed + i, prompt + response) for i, (*_, prompt, response) in enumerate(asked_for)]
    done, far = [0] * len(asked_for), [prompt for *_, prompt, _ in asked_for]  # computed, and known to the engine
    outputs = [torch.full((len(h), D_MODEL), torch.nan) for h in whole]

    def begin(i: int) -> None:
        slot, strength, gate, prompt, _ = asked_for[i]
        made.begin(named(i), entries(made, slot, gate, strength) if slot else None, prompt, far[i])

    while any(done[i] < len(h) for i, h in enumerate(whole)):
        batch = {}
        for i in rng.permutation(len(whole)).tolist():
            if done[i] == len(whole[i]) or rng.random() < 0.2:
                continue
            if rng.random() < 0.15:
                made.pause(named(i))
                done[i] = 0
            begin(i)
            stop = int(rng.integers(done[i] + 1, far[i] + 1))
            batch[named(i)] = (done[i], whole[i][done[i] : stop])
        if not batch:
            continue
        for name, output in step(made, stack, batch).items():
            i = int(name[1:-9])
            outputs[i][done[i] : done[i] + len(output)] = output
            done[i] += len(output)
            if done[i] == far[i]:  # its last token was forwarded, so it has one more
                far[i] = min(far[i] + 1, len(whole[i]))
    told = [made.gate_outputs.find(f"r{i}") for i in range(len(whole))]
    for i in rng.permutation(len(whole)).tolist():
        made.end(named(i))
    for i, (slot, strength, gate, prompt, length) in enumerate(asked_for):
        if not slot:
            torch.testing.assert_close(outputs[i], unsteered(whole[i]), rtol=1e-4, atol=1e-4)
            assert told[i] is None
            continue
        own = LOADED[slot - 1]
        expected = by_hand(own, whole[i][:prompt], whole[i][prompt:], strength, gate)
        torch.testing.assert_close(outputs[i][prompt:], expected.output, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(outputs[i][:prompt], unsteered(whole[i][:prompt]), rtol=1e-4, atol=1e-4)
        for facts in (told[i], made.gate_outputs.find(f"r{i}")):
            assert facts is not None
            course = facts["running_gate"]
            assert (course["tokens"], course["warned_at"]) == (length, expected.warned_at(own.gate))
            assert course["opened_at"] == expected.opened_at()
            assert facts["steered_tokens"] == sum(g > 0 for g in expected.g)
        read = made.requests.courses.take(f"r{i}")
        np.testing.assert_allclose(read, np.array([expected.p, expected.g]).T.reshape(-1, 2), atol=1e-4)
        assert made.requests.courses.take(f"r{i}") is None
    warned = {each.request_id for each in made.requests.courses.warned(0)}
    assert warned == {f"r{i}" for i, facts in enumerate(told) if facts is not None and facts["running_gate"]["warned_at"]}
    assert made.status()["warnings"] == len(warned)


def test_the_tests_gates_open_close_and_change_their_minds() -> None:
    kinds = set()
    for own, seed in product(LOADED, range(6)):
        course = by_hand(own, embedded(seed, 2), embedded(seed + 100, 12), 1.0, 1)
        kinds |= {(own.gate.action, before > 0, after > 0) for before, after in zip(course.g, course.g[1:], strict=False)}
    assert kinds == set(product(("open", "close", "scale"), (False, True), (False, True)))


def test_a_token_that_was_thrown_away_is_read_anew() -> None:
    own = LOADED[1]
    h, other = embedded(0, 6), embedded(50, 3)
    stack = Stack()
    made = engine(stack, [own])
    made.begin("r", entries(made, 1), 2, 2)
    step(made, stack, {"r": (0, h[:2])})
    for t in range(2, 6):
        step(made, stack, {"r": (t, h[t : t + 1])})
    made.pause("r")
    made.begin("r", entries(made, 1), 2, 4)  # of four response tokens the engine has kept two
    again = step(made, stack, {"r": (0, h[:4])})["r"]
    outputs = [again[2:], *(step(made, stack, {"r": (4 + t, other[t : t + 1])})["r"] for t in range(3))]
    expected = by_hand(own, h[:2], torch.cat([h[2:4], other]), 1.0, 1)
    torch.testing.assert_close(torch.cat(outputs), expected.output, rtol=1e-4, atol=1e-4)
    made.end("r")
    np.testing.assert_allclose(made.requests.courses.take("r"), np.array([expected.p, expected.g]).T, atol=1e-4)


def test_a_response_token_after_a_gap_stops_the_engine() -> None:
    stack = Stack()
    made = engine(stack, [LOADED[0]])
    made.begin("r", entries(made, 1), 1, 3)
    with pytest.raises(ModelError, match="request r hands over token 2 of its response before the one before it was decided"):
        step(made, stack, {"r": (0, embedded(0, 3))})


def fill(made: Courses, name: str, p: list[float], req_index: int = 1) -> None:
    made.begin(req_index, f"{name}-01234567", 0.0, Warns(0.5, 2))
    runs, one = np.ones(1, np.bool_), np.ones(1, np.int64)
    for t, value in enumerate(p):
        new = made.plan(req_index * one, t * one, one, one, runs).new
        made.records[new[3], courses.P] = value


def test_pages_grow_with_the_response_and_are_given_back() -> None:
    made = Courses(CPU)
    values = np.random.default_rng(0).random(5 * PAGE).round(3)
    fill(made, "long", values.tolist())
    fill(made, "short", [0.1], req_index=2)
    assert float(made.summary(2)[0]) == pytest.approx(0.1)
    made.end(1)
    np.testing.assert_allclose(made.take("long")[:, 0], values, atol=1e-6)
    pages = len(made.records)
    for _ in range(20):
        fill(made, "again", values.tolist(), req_index=3)
        made.end(3)
        made.take("again")
    assert len(made.records) == pages


def test_ended_courses_make_room_for_later_ones_and_no_warning_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courses, "KEPT", 4 * PAGE)
    made = Courses(CPU)
    for i in range(20):
        fill(made, f"r{i}", [0.9, 0.9 * (i % 2)])
        made.end(1)
    assert [i for i in range(20) if made.take(f"r{i}") is not None] == [16, 17, 18, 19]
    assert made.warned(0) == [Warned(f"r{i}", 2, pytest.approx(0.9)) for i in range(1, 20, 2)]
    assert [each.request_id for each in made.warned(9)] == ["r19"]
    assert made.warned(10) == []


def test_a_running_response_warns_once_and_early() -> None:
    made = Courses(CPU)
    fill(made, "r", [0.9, 0.2, 0.6])
    assert made.warned(0) == [Warned("r", 3, pytest.approx(0.6))]
    made.end(1)
    assert made.warned(1) == []
    assert made.warned_so_far() == 1
