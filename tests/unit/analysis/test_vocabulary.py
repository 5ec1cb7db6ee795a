"""The vocabulary projection against the derivative of the logits by a neuron's activation."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analysis_samples import alone, model, trace
from tiny_models import FAMILIES, MIXTURES, N_LAYERS, VOCABULARY
from trimtab.analysis import NeuronVocabulary, project_vocabulary
from trimtab.errors import InputError
from trimtab.model import LanguageModel

IDS = alone(trace("a", 4, 6))
LAST = N_LAYERS - 1


def freeze(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """The norm's output, with its own factor held fixed in the derivative."""
    x, bias = inputs[0], 0.0
    if isinstance(norm, nn.LayerNorm):
        x, bias = x - x.mean(-1, keepdim=True), norm.bias
    return x * ((output - bias) / x).detach() + bias


def derivative(model: LanguageModel, index: int) -> np.ndarray:
    """``d logits / d activation`` of a last-layer neuron at the last token, before any cap, norms' factors held fixed."""
    step = torch.zeros((), requires_grad=True)
    ffn = model.layout.modules[LAST]

    def push_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        one = torch.zeros(model.d_ff)
        one[index] = 1.0
        return (inputs[0] + step * one, *inputs[1:])

    def push_experts(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        expert, within = divmod(index, model.identity.d_expert)
        return output + step * module.down_proj[expert, :, within]

    logits: list[Tensor] = []
    head = model.hf_model.get_output_embeddings()
    hooks = [head.register_forward_hook(lambda m, i, out: logits.append(out[0, -1]))]
    hooks += [m.register_forward_hook(freeze) for m in model.hf_model.modules() if "Norm" in type(m).__name__]
    hooks.append(ffn.register_forward_hook(push_experts) if model.layout.mixture else ffn.register_forward_pre_hook(push_input))
    try:
        with torch.enable_grad():
            model.hf_model(input_ids=IDS, use_cache=False)
            rows = [torch.autograd.grad(one, step, retain_graph=True)[0] for one in logits[0]]
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(rows).numpy()


def by_token(neuron: NeuronVocabulary, field: str = "logit") -> np.ndarray:
    found = {push.id: getattr(push, field) for push in neuron.promoted}
    return np.array([found[i] for i in range(len(found))])


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_derivative_up_to_a_positive_factor(family: str) -> None:
    lm = model(family)
    neurons = [5, 40]
    projection = project_vocabulary(lm, np.array([LAST] * 2), np.array(neurons), top=VOCABULARY)
    for index, neuron in zip(neurons, projection.neurons, strict=True):
        expected, actual = derivative(lm, index), by_token(neuron)
        factor = float(expected @ actual) / float(actual @ actual)
        assert factor > 0
        np.testing.assert_allclose(factor * actual, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_what_it_passed_through_is_stated() -> None:
    facts = {}
    for family in FAMILIES:
        projection = project_vocabulary(model(family), np.array([0]), np.array([1]), top=1)
        facts[family] = (projection.final_norm, projection.norm_after_ffn, projection.soft_cap)
    special = {
        "gemma2": ("rms", True, 9.0),
        "gemma3_text": ("rms", True, None),
        "olmo2": ("rms", True, None),
        "gpt2": ("layer", False, None),
        "gpt_neox": ("layer", False, None),
    }
    assert facts == {family: special.get(family, ("rms", False, None)) for family in FAMILIES}


def test_tied_embeddings_and_padding_rows() -> None:
    lm = model("llama", tied=True, words=90)
    assert lm.hf_model.get_output_embeddings().weight is lm.hf_model.get_input_embeddings().weight
    (neuron,) = project_vocabulary(lm, np.array([LAST]), np.array([7]), top=VOCABULARY).neurons
    expected, actual = derivative(lm, 7)[:90], by_token(neuron)
    np.testing.assert_allclose(actual / np.linalg.norm(actual), expected / np.linalg.norm(expected), atol=1e-4)


def test_the_top_of_each_side() -> None:
    lm = model("qwen3")
    (whole,) = project_vocabulary(lm, np.array([1]), np.array([3]), top=VOCABULARY).neurons
    (neuron,) = project_vocabulary(lm, np.array([1]), np.array([3]), top=3).neurons
    logits = by_token(whole)
    assert [push.id for push in neuron.promoted] == sorted(range(VOCABULARY), key=lambda i: -logits[i])[:3]
    assert [push.id for push in neuron.demoted] == sorted(range(VOCABULARY), key=lambda i: logits[i])[:3]
    np.testing.assert_allclose(by_token(whole, "z"), (logits - logits.mean()) / logits.std(), rtol=1e-9)
    assert neuron.promoted[0].token == f"w{neuron.promoted[0].id}"
    assert neuron.address == "layer 1 index 3"


def test_rows_of_the_unembedding_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    address = np.array([0, 2]), np.array([3, 9])
    whole = project_vocabulary(model("qwen3"), *address)
    monkeypatch.setattr("trimtab.analysis.vocabulary.ROWS", 10)
    for one, other in zip(whole.neurons, project_vocabulary(model("qwen3"), *address).neurons, strict=True):
        assert [push.id for push in one.promoted] == [push.id for push in other.promoted]


def test_experts_are_named() -> None:
    lm = model(MIXTURES[0])
    (neuron,) = project_vocabulary(lm, np.array([0]), np.array([lm.identity.d_expert + 2]), top=1).neurons
    assert neuron.address == "layer 0 expert 1 index 2"


def test_refusals() -> None:
    with pytest.raises(InputError, match="outside"):
        project_vocabulary(model("qwen3"), np.array([9]), np.array([0]))
    with pytest.raises(InputError, match="got 1 neurons and top 0"):
        project_vocabulary(model("qwen3"), np.array([0]), np.array([0]), top=0)
