"""The conditions of a verdict and what each attaches."""

from dataclasses import replace

import numpy as np
import pytest

from steering_samples import logistic, neuron_set
from trimtab.errors import InputError
from trimtab.evaluation.rows import ALWAYS, GATED, NEGATIVE, RANDOM, RANDOM_NORM, UNSTEERED
from trimtab.evaluation.runner import Condition, prompt_only, standard_conditions
from trimtab.model import LanguageModel, down_weights
from trimtab.steering import Steering
from trimtab.tasks import Prompt

SETS = 5


@pytest.fixture
def steering(model: LanguageModel) -> Steering:
    return Steering.of(neuron_set(model.identity), 2.5, gate=logistic())


@pytest.fixture
def conditions(model: LanguageModel, steering: Steering) -> dict:
    down = down_weights(model, np.unique(steering.layer).tolist())
    return {condition.name: condition for condition in standard_conditions(steering, down, SETS, seed=0)}


def test_names_and_counts(conditions: dict) -> None:
    randoms = [f"{kind}-{i}" for i in range(SETS) for kind in (RANDOM, RANDOM_NORM)]
    assert list(conditions) == [UNSTEERED, ALWAYS, GATED, NEGATIVE, *randoms]


def test_the_found_conditions(conditions: dict, steering: Steering) -> None:
    assert conditions[UNSTEERED].steering is None
    assert conditions[ALWAYS].steering is conditions[GATED].steering is steering
    assert [conditions[name].gate for name in (ALWAYS, GATED, NEGATIVE)] == ["on", "auto", "on"]
    negative = conditions[NEGATIVE].steering
    assert negative.strength == -steering.strength
    np.testing.assert_array_equal(negative.shift, steering.shift)


def test_random_sets_have_the_found_counts_strength_and_shifts(conditions: dict, steering: Steering) -> None:
    for i in range(SETS):
        condition = conditions[f"{RANDOM}-{i}"]
        drawn = condition.steering
        assert condition.gate == "on"
        assert (drawn.strength, drawn.scope) == (steering.strength, steering.scope)
        np.testing.assert_array_equal(np.bincount(drawn.layer), np.bincount(steering.layer))
        found = set(zip(steering.layer.tolist(), steering.index.tolist(), strict=True))
        assert not found & set(zip(drawn.layer.tolist(), drawn.index.tolist(), strict=True))
        for layer in np.unique(steering.layer):
            mine, theirs = (np.sort(np.abs(s.shift[s.layer == layer])) for s in (drawn, steering))
            np.testing.assert_array_equal(mine, theirs)
    assert len({conditions[f"{RANDOM}-{i}"].steering.digest for i in range(SETS)}) == SETS


def test_norm_matched_sets_push_the_residual_stream_as_far(conditions: dict, model: LanguageModel, steering: Steering) -> None:
    def push(side: Steering, layer: int) -> float:
        total = np.zeros(model.identity.d_model)
        weight = model.layout.down[layer].weight.double().numpy()
        for at, index, shift in zip(side.layer, side.index, side.shift, strict=True):
            if at == layer:
                total += weight[:, index] * float(shift)
        return float(np.linalg.norm(total))

    for i in range(SETS):
        plain, matched = conditions[f"{RANDOM}-{i}"].steering, conditions[f"{RANDOM_NORM}-{i}"].steering
        np.testing.assert_array_equal(plain.index, matched.index)
        for layer in np.unique(steering.layer).tolist():
            assert push(matched, layer) == pytest.approx(push(steering, layer), rel=1e-4)
            assert push(plain, layer) != pytest.approx(push(steering, layer), rel=1e-4)


def test_the_seed_decides(model: LanguageModel, steering: Steering) -> None:
    down = down_weights(model, np.unique(steering.layer).tolist())

    def digests(seed: int) -> list[str]:
        return [condition.steering.digest for condition in standard_conditions(steering, down, SETS, seed) if condition.steering]

    assert digests(0) == digests(0)
    assert digests(0)[:3] == digests(9)[:3]
    assert not set(digests(0)[3:]) & set(digests(9)[3:])


def test_down_weights_are_those_of_the_model(model: LanguageModel) -> None:
    weights = down_weights(model, [1])
    assert list(weights) == [1]
    assert weights[1].shape == (model.identity.d_model, model.identity.d_ff)
    np.testing.assert_array_equal(weights[1], model.hf_model.model.layers[1].mlp.down_proj.weight.numpy())
    assert replace(model).d_ff == model.identity.d_ff


def test_prompt_only_puts_the_instruction_into_the_tasks_template(model: LanguageModel) -> None:
    condition = prompt_only(Prompt(template="<{question}>", system="s"), "please {question}", model.tokenizer)
    assert condition == Condition("prompt-only", prompt=Prompt(template="<please {question}>", system="s"))
    with pytest.raises(InputError, match=r"does not know all words of the instruction 'ponder'; set evaluation\.instruction"):
        prompt_only(Prompt(), "ponder {question}", model.tokenizer)
