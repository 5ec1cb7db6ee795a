"""The arms of a verdict and what each attaches."""

from dataclasses import replace

import numpy as np
import pytest

from steering_samples import logistic, neuron_set
from trimtab.errors import InputError
from trimtab.evaluation.arms import Arm, prompt_only, standard_arms
from trimtab.evaluation.names import ALWAYS, GATED, NEGATIVE, RANDOM, RANDOM_NORM, UNSTEERED
from trimtab.model import OpenModel, down_weights
from trimtab.steering import Steering
from trimtab.tasks import Prompt

SETS = 5


@pytest.fixture
def steering(opened: OpenModel) -> Steering:
    return Steering.of(neuron_set(opened.identity), 2.5, gate=logistic())


@pytest.fixture
def arms(opened: OpenModel, steering: Steering) -> dict:
    down = down_weights(opened, np.unique(steering.layer).tolist())
    return {arm.name: arm for arm in standard_arms(steering, down, SETS, seed=0)}


def test_names_and_counts(arms: dict) -> None:
    randoms = [f"{kind}-{i}" for i in range(SETS) for kind in (RANDOM, RANDOM_NORM)]
    assert list(arms) == [UNSTEERED, ALWAYS, GATED, NEGATIVE, *randoms]


def test_the_found_arms(arms: dict, steering: Steering) -> None:
    assert arms[UNSTEERED].steering is None
    assert arms[ALWAYS].steering is arms[GATED].steering is steering
    assert [arms[name].gate for name in (ALWAYS, GATED, NEGATIVE)] == ["on", "auto", "on"]
    negative = arms[NEGATIVE].steering
    assert negative.strength == -steering.strength
    np.testing.assert_array_equal(negative.shift, steering.shift)


def test_random_sets_have_the_found_counts_strength_and_shifts(arms: dict, steering: Steering) -> None:
    for i in range(SETS):
        arm = arms[f"{RANDOM}-{i}"]
        drawn = arm.steering
        assert arm.gate == "on"
        assert (drawn.strength, drawn.scope) == (steering.strength, steering.scope)
        np.testing.assert_array_equal(np.bincount(drawn.layer), np.bincount(steering.layer))
        found = set(zip(steering.layer.tolist(), steering.index.tolist(), strict=True))
        assert not found & set(zip(drawn.layer.tolist(), drawn.index.tolist(), strict=True))
        for layer in np.unique(steering.layer):
            mine, theirs = (np.sort(np.abs(s.shift[s.layer == layer])) for s in (drawn, steering))
            np.testing.assert_array_equal(mine, theirs)
    assert len({arms[f"{RANDOM}-{i}"].steering.digest for i in range(SETS)}) == SETS


def test_norm_matched_sets_push_the_residual_stream_as_far(arms: dict, opened: OpenModel, steering: Steering) -> None:
    def push(side: Steering, layer: int) -> float:
        total = np.zeros(opened.identity.d_model)
        weight = opened.layout.down[layer].weight.double().numpy()
        for at, index, shift in zip(side.layer, side.index, side.shift, strict=True):
            if at == layer:
                total += weight[:, index] * float(shift)
        return float(np.linalg.norm(total))

    for i in range(SETS):
        plain, matched = arms[f"{RANDOM}-{i}"].steering, arms[f"{RANDOM_NORM}-{i}"].steering
        np.testing.assert_array_equal(plain.index, matched.index)
        for layer in np.unique(steering.layer).tolist():
            assert push(matched, layer) == pytest.approx(push(steering, layer), rel=1e-4)
            assert push(plain, layer) != pytest.approx(push(steering, layer), rel=1e-4)


def test_the_seed_decides(opened: OpenModel, steering: Steering) -> None:
    down = down_weights(opened, np.unique(steering.layer).tolist())

    def digests(seed: int) -> list[str]:
        return [arm.steering.digest for arm in standard_arms(steering, down, SETS, seed) if arm.steering]

    assert digests(0) == digests(0)
    assert digests(0)[:3] == digests(9)[:3]
    assert not set(digests(0)[3:]) & set(digests(9)[3:])


def test_down_weights_are_those_of_the_model(opened: OpenModel) -> None:
    weights = down_weights(opened, [1])
    assert list(weights) == [1]
    assert weights[1].shape == (opened.identity.d_model, opened.identity.d_ff)
    np.testing.assert_array_equal(weights[1], opened.model.model.layers[1].mlp.down_proj.weight.numpy())
    assert replace(opened).d_ff == opened.identity.d_ff


def test_prompt_only_puts_the_instruction_into_the_tasks_template(opened: OpenModel) -> None:
    arm = prompt_only(Prompt(template="<{question}>", system="s"), "please {question}", opened.tokenizer)
    assert arm == Arm("prompt-only", prompt=Prompt(template="<please {question}>", system="s"))
    with pytest.raises(InputError, match=r"does not know all words of the instruction 'ponder'; set evaluation\.instruction"):
        prompt_only(Prompt(), "ponder {question}", opened.tokenizer)
