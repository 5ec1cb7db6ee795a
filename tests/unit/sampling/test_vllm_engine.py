"""What a vLLM engine is started for, and from which token on a control steers; the engine itself runs in tests/vllm."""

import numpy as np
import torch

from layered_stack import linear, steering
from trimtab.gate import ALWAYS, RandomOpening, RunningGate
from trimtab.sampling import Request
from trimtab.sampling.vllm_engine import Needs, attached, first_tokens, needs_of, opening


def watching(seed: int, question: int) -> RunningGate:
    own = linear(seed)
    return RunningGate(own.layer, own.index, own.weight, threshold=0.5, question=linear(question))


def test_a_layer_has_room_for_what_both_gates_read_and_for_a_shared_neuron_once() -> None:
    gate = watching(0, 1)
    assert gate.question is not None
    both = {(layer, index) for one in (gate, gate.question) for layer, index in zip(one.layer, one.index, strict=True)}
    fullest = max(sum(layer == at for layer, _ in both) for at in range(3))
    own = steering(0, scope="generated", gate=gate)
    assert needs_of("m", own) == Needs("m", int(np.bincount(own.layer).max()), fullest)
    same = steering(0, scope="generated", gate=watching(1, 1))
    assert needs_of("m", same).features == int(np.bincount(linear(1).layer).max())
    assert needs_of("m", steering(0)).features == 0


def test_a_control_that_opens_at_random_is_loaded_without_its_gate_and_drawn_by_request() -> None:
    gate = RandomOpening(np.array([0, 1, 4]), seed=2)
    own = steering(0, scope="generated", gate=gate)
    requests = [Request(str(i), (i, i + 1)) for i in range(12)]
    loaded = attached(own, "auto")
    assert loaded is not None
    assert loaded.gate is ALWAYS
    assert first_tokens(own, "auto", requests) == [gate.draw(request.prompt_ids) for request in requests]
    assert set(first_tokens(own, "auto", requests) or ()) == {0, 1, 4}
    assert first_tokens(own, "on", requests) is None
    assert first_tokens(steering(0), "auto", requests) is None


def test_the_course_of_a_control_is_open_from_its_token_on() -> None:
    assert opening(3, 5).value.tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]
    assert opening(0, 2).value.tolist() == [0.0, 0.0]
    assert torch.isnan(opening(1, 2).probability).all()
