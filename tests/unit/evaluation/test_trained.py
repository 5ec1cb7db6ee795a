"""The baseline trained: its loss is that of the attached result, its gradient a difference quotient, and nothing else moves."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from steering_samples import neuron_set
from tiny_models import FAMILIES, tiny, word_tokenizer
from trimtab.directions import Directions
from trimtab.errors import InputError, NotEnoughDataError
from trimtab.evaluation.finetune_training import TrainedSettings, TrainingSettings, response_loss
from trimtab.evaluation.trained import Trained, load_trained, save_trained, train_values, trained_steering
from trimtab.model import LanguageModel, attach, find_ffn, identify
from trimtab.steering import Steering
from trimtab.traces import Trace

QUICK = TrainingSettings(learning_rate=0.05, epochs=2, batch_traces=2)
SCOPES = ("generated", "last-and-generated", "all")


def opened(model: PreTrainedModel) -> LanguageModel:
    layout = find_ffn(model)
    return LanguageModel(model, word_tokenizer(pad_token="w0"), layout, identify(model, "tiny", None, layout=layout))


def some_traces() -> list[Trace]:
    rng = random.Random(0)
    ids = [
        tuple(tuple(rng.randrange(5, 90) for _ in range(n)) for n in pair) for pair in ((4, 6), (2, 9), (7, 1), (3, 3), (5, 5))
    ]
    return [Trace(f"p{i // 2}/{i % 2}", f"p{i // 2}", i % 2, *pair, "", "stop") for i, pair in enumerate(ids)]


TRACES = some_traces()


def start(model: LanguageModel, scope: str = "generated", k: int = 6) -> Steering:
    return Steering.of(neuron_set(model.identity, k), 3.0, scope)  # type: ignore[arg-type]


@torch.no_grad()
def attached_loss(model: LanguageModel, steering: Steering) -> float:
    """Nats per response token with the steering attached, one trace at a time."""
    total = 0.0
    for trace in TRACES:
        with attach(model, steering, prompt_lengths=[len(trace.prompt_ids)]):
            total += float(response_loss(model.hf_model, [trace]))
    return total / sum(len(trace.response_ids) for trace in TRACES)


@pytest.mark.parametrize(
    ("family", "scope"), [*((family, "generated") for family in FAMILIES), *(("qwen3", scope) for scope in SCOPES[1:])]
)
def test_the_trained_loss_is_the_loss_of_the_attached_steering(family: str, scope: str) -> None:
    model = opened(tiny(family))
    before = start(model, scope)
    trained = train_values(model, before, TRACES, QUICK)
    after = trained_steering(before, trained)
    record = trained.record
    assert (record.steps, record.parameters_trained, record.traces) == (6, 12, 5)
    assert record.loss_before == pytest.approx(attached_loss(model, before.with_strength(0.0)), rel=1e-4)
    assert record.loss_after == pytest.approx(attached_loss(model, after), rel=1e-4)
    assert record.loss_after < record.loss_before


def test_a_first_step_goes_down_the_difference_quotient(qwen3: PreTrainedModel) -> None:
    model = opened(qwen3)
    before = start(model, "all", k=4)
    trained = train_values(model, before, TRACES, QUICK.model_copy(update={"epochs": 1, "max_steps": 1, "batch_traces": 5}))
    for name in ("gain", "shift"):
        for neuron in range(4):

            def loss(value: float, name: str = name, neuron: int = neuron) -> float:
                values = {"gain": np.zeros(4, np.float32), "shift": np.zeros(4, np.float32)}
                values[name][neuron] = value
                return attached_loss(model, replace(before, strength=1.0, **values))

            slope = loss(0.02) - loss(-0.02)
            # the first step of Adam is one learning rate against the sign of the gradient
            assert getattr(trained, name)[neuron] == pytest.approx(-0.05 * np.sign(slope), rel=1e-3)


def test_only_the_values_move(qwen3: PreTrainedModel) -> None:
    model = opened(qwen3)
    qwen3.model.layers[0].mlp.up_proj.weight.requires_grad_(True)
    asked = {name for name, parameter in qwen3.named_parameters() if parameter.requires_grad}
    weights = {name: parameter.detach().clone() for name, parameter in qwen3.named_parameters()}
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in qwen3.modules()]
    train_values(model, start(model), TRACES, QUICK)
    for name, parameter in qwen3.named_parameters():
        assert torch.equal(parameter, weights[name])
        assert parameter.grad is None
        assert parameter.requires_grad == (name in asked)
    assert hooks == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in qwen3.modules()]
    with pytest.raises(InputError, match="no prompt or no response"):
        train_values(model, start(model), [replace(TRACES[0], response_ids=())], QUICK)


def test_the_same_call_gives_the_same_bits_whatever_the_order(qwen3: PreTrainedModel) -> None:
    model = opened(qwen3)
    first = train_values(model, start(model), TRACES, QUICK)
    torch.manual_seed(7)
    again = train_values(model, start(model), TRACES[::-1], QUICK)
    other = train_values(model, start(model), TRACES, QUICK.model_copy(update={"seed": 1}))
    assert np.array_equal(first.gain, again.gain)
    assert np.array_equal(first.shift, again.shift)
    assert first.record == again.record
    assert not np.array_equal(first.shift, other.shift)


@pytest.mark.parametrize("change", [{"batch_tokens": 1}, {"gradient_checkpointing": True}])
def test_what_spares_memory_changes_nothing_else(qwen3: PreTrainedModel, change: dict[str, object]) -> None:
    model = opened(qwen3)
    plain, sparing = (train_values(model, start(model), TRACES, QUICK.model_copy(update=some)) for some in ({}, change))
    np.testing.assert_allclose(plain.shift, sparing.shift, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(plain.gain, sparing.gain, rtol=1e-3, atol=1e-4)


def test_shifts_alone_leave_every_gain_at_zero(qwen3: PreTrainedModel) -> None:
    model = opened(qwen3)
    trained = train_values(model, start(model), TRACES, QUICK, gains=False)
    assert not trained.gain.any()
    assert trained.shift.all()
    assert trained.record.parameters_trained == 6


def test_the_result_is_an_ordinary_steering(qwen3: PreTrainedModel, tmp_path) -> None:
    model = opened(qwen3)
    before = replace(start(model), facts={"criterion": "mine", "tune": {"n": 3}, "metrics": {}})
    trained = train_values(model, before, TRACES, QUICK)
    save_trained(trained, tmp_path)
    read = load_trained(tmp_path)
    assert isinstance(read, Trained)
    assert np.array_equal(read.gain, trained.gain)
    assert np.array_equal(read.shift, trained.shift)
    assert read.record == trained.record
    after = trained_steering(before, read, learning_rate=0.05)
    assert (after.strength, after.scope, after.gate, after.model) == (1.0, before.scope, before.gate, before.model)
    assert after.layer.tolist() == before.layer.tolist()
    assert after.facts["criterion"] == "mine"
    assert after.facts["intervention"] == "trained"
    assert set(after.facts) == {"criterion", "intervention", "trained"}
    kept = Steering.from_pretrained(after.save_pretrained(tmp_path / "steering"))
    assert kept.digest == after.digest
    assert kept.facts["trained"]["learning_rate"] == 0.05  # type: ignore[index]


def test_what_cannot_be_trained_is_refused(qwen3: PreTrainedModel) -> None:
    model = opened(qwen3)
    with pytest.raises(NotEnoughDataError, match="learns from correct traces of the train split, and there is none"):
        train_values(model, start(model), [], QUICK)
    along = Directions(np.array([1]), np.ones((1, 32), np.float32), "mean-difference", model.identity).steering()
    with pytest.raises(InputError, match="trained are the gains and shifts of neurons, and this steering adds to the residual"):
        train_values(model, along, TRACES, QUICK)
    with pytest.raises(ValueError, match="at least 1 item"):
        TrainedSettings(learning_rates=())
