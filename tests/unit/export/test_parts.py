"""What is refused, in which words, and what dropping leaves."""

from dataclasses import replace

import numpy as np
import pytest

from trimtab.directions import Directions
from trimtab.errors import InputError
from trimtab.export.parts import CARRIES, PARTS, TARGET_NAMES, expressible, parts_of
from trimtab.gate import ALWAYS, NEVER, Gate
from trimtab.neurons import ModelIdentity
from trimtab.steering import Steering

MODEL = ModelIdentity("m", None, "qwen3", "f", n_layers=3, d_model=4, d_ff=8, vocab_size=9)
LOGISTIC = Gate("logistic", "hard", np.array([0]), np.array([1]), np.array([2.0], np.float32), 0.1, 0.5)


def everything() -> Steering:
    return Steering(
        np.array([0, 1, 2]),
        np.array([3, 4, 5]),
        np.array([0.0, -1.0, 0.0], np.float32),
        np.array([2.0, 0.0, 3.0], np.float32),
        0.5,
        "generated",
        LOGISTIC,
        MODEL,
    )


def with_direction() -> Steering:
    return replace(everything(), direction_layer=np.array([0, 1]), direction=np.ones((2, 4), np.float32))


def test_every_part_is_found_and_none_in_a_plain_steering() -> None:
    assert tuple(parts_of(with_direction())) == PARTS
    assert parts_of(with_direction())["layer-0"] == "the 1 neurons of layer 0 and the direction after layer 0"
    plain = Steering(np.array([1]), np.array([0]), np.zeros(1, np.float32), np.ones(1, np.float32), 1.0, "all", ALWAYS, MODEL)
    assert tuple(parts_of(plain)) == ("shift",)


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_each_target_refuses_what_it_cannot_carry_and_takes_the_rest(target) -> None:
    lacking = [part for part in PARTS if part not in CARRIES[target]]
    with pytest.raises(InputError) as refusal:
        expressible(with_direction(), target)
    assert all(f"--drop {part}" in str(refusal.value) for part in lacking)
    assert not any(f"--drop {part}" in str(refusal.value) for part in CARRIES[target])
    left = parts_of(expressible(with_direction(), target, drop=lacking))
    assert set(left) == set(parts_of(with_direction())) - {*lacking} - ({"layer-0"} if "shift" in lacking else set())


def test_a_refusal_names_the_part_and_the_targets_that_can() -> None:
    with pytest.raises(InputError, match=r"the shifts of 2 neurons; targets that can: merged, gguf, adaras-csv, json, lm-eval"):
        expressible(everything(), "lora", drop=["scope", "gate"])
    with pytest.raises(InputError, match=r"the gate \(logistic, last prompt token\); targets that can: none; Steering.attach"):
        expressible(everything(), "merged", drop=["scope"])


def test_dropping_removes_neurons_that_do_nothing_more() -> None:
    reduced = expressible(everything(), "gguf", drop=["gain", "layer-0", "scope", "gate"])
    assert (reduced.layer.tolist(), reduced.shift.tolist(), reduced.gain.tolist()) == ([2], [3.0], [0.0])
    assert (reduced.scope, reduced.gate.kind, reduced.strength) == ("all", "always", 0.5)


def test_a_direction_is_carried_by_control_vectors_alone_and_dropped_as_a_whole() -> None:
    along = Directions(np.array([0, 1]), np.ones((2, 4), np.float32), "mean-difference", MODEL).steering(scope="all")
    with pytest.raises(InputError, match="the direction after layers 0, 1; targets that can: gguf"):
        expressible(along, "merged")
    reduced = expressible(along, "gguf", drop=["layer-0"])
    assert (reduced.direction_layer.tolist(), reduced.direction.tolist()) == ([1], [[1.0] * 4])
    with pytest.raises(InputError, match="without direction, layer-0 nothing of this steering is left"):
        expressible(along, "lora", drop=["direction", "layer-0"])


def test_dropping_what_is_not_there_is_refused() -> None:
    steering = Steering(np.array([1]), np.array([0]), np.ones(1, np.float32), np.zeros(1, np.float32), 1.0, "all", ALWAYS, MODEL)
    with pytest.raises(InputError, match="has no gate, shift to drop; it has gain"):
        expressible(steering, "lora", drop=["gate", "shift"])
    with pytest.raises(InputError, match="nothing of this steering is left"):
        expressible(steering, "lora", drop=["gain"])


@pytest.mark.parametrize("dead", [everything().with_strength(0.0), everything().with_gate(NEVER)])
def test_a_steering_that_never_steers_is_not_exported(dead: Steering) -> None:
    with pytest.raises(InputError, match="never steers"):
        expressible(dead, "lora", drop=["scope", "gate", "shift"])
