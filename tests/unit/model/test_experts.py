"""Neurons inside experts: read and pushed beside whatever the library runs, and nothing where a token is not routed."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import expert_oracle
from expert_oracle import D_EXPERT
from steering_oracle import naive_steering, prompts, steering_for, stepwise_logits, whole_logits
from tiny_models import D_FF, D_MODEL, MIXTURES, N_EXPERTS, N_LAYERS, TOP_K, tiny
from trimtab.errors import ModelError
from trimtab.gate import ALWAYS
from trimtab.model import LanguageModel, attach, check_model, down_weights, find_ffn, identify
from trimtab.model.experts import ExpertNeurons, Routed, each_expert, experts_shape, read_routing, recompute
from trimtab.model.hook_points import hook_neurons, watch_neurons
from trimtab.steering import Steering

IMPLEMENTATIONS = ("grouped_mm", "batched_mm", "eager")
LENGTHS, EXTRA = (6, 3, 5), 2
WIDTH = max(LENGTHS)


@pytest.fixture(params=MIXTURES)
def mixture(request):
    return tiny(request.param)


@pytest.fixture
def mixtral():
    return tiny("mixtral")


def _call(model, layer: int = 1) -> tuple[nn.Module, Routed, torch.Tensor]:
    """A layer's experts, what they were given in a forward of 18 tokens, and what they returned."""
    experts, seen = find_ffn(model).modules[layer], []
    handle = experts.register_forward_hook(lambda module, args, output: seen.append((read_routing(module, args), output)))
    whole_logits(model, prompts((6, 6, 6))[0])
    handle.remove()
    return experts, *seen[0]


def test_reading_some_neurons_equals_the_naive_loop(mixture):
    experts, routed, _ = _call(mixture)
    index = torch.tensor([0, 5, 11, 12, 30, 47])
    expected = np.nan_to_num(expert_oracle.side_by_side(experts, routed)[:, index].numpy())
    actual = ExpertNeurons(experts, index).read(routed)
    assert_close(actual, torch.from_numpy(expected))
    assert ((actual == 0) == (torch.from_numpy(expected) == 0)).all()
    assert 0.2 < (actual == 0).float().mean() < 0.8, "the fixture should route tokens past some of these neurons"


def test_pushing_some_neurons_equals_the_naive_loop(mixture):
    experts, routed, output = _call(mixture)
    index, change = torch.tensor([3, 14, 15, 47]), torch.randn(18, 4, generator=torch.Generator().manual_seed(0))

    def edited(visit):
        after = visit.activation.clone()
        for k, neuron in enumerate(index.tolist()):
            if neuron // D_EXPERT == visit.expert:
                after[neuron % D_EXPERT] += change[visit.token, k]
        return after

    expected = expert_oracle.output(experts, routed, edited)
    assert_close(output + ExpertNeurons(experts, index).push(routed, change), expected, rtol=1e-5, atol=1e-5)


def test_each_expert_yields_every_activation_once(mixture):
    experts, routed, output = _call(mixture)
    wide = torch.full((18, D_FF), torch.nan)
    for expert, token, slot, activation in each_expert(experts, routed):
        assert (routed.expert[token, slot] == expert).all()
        wide[token, expert * D_EXPERT : (expert + 1) * D_EXPERT] = activation
    assert_close(wide, expert_oracle.side_by_side(experts, routed), equal_nan=True)
    assert (~wide.isnan()).sum() == 18 * TOP_K * D_EXPERT
    assert_close(recompute(experts, routed, lambda a: a), output, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_every_implementation_is_left_alone_and_steered_alike(mixture, implementation):
    mixture.set_experts_implementation(implementation)
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    steering, real = steering_for(mixture, scope="all"), mask.bool()
    plain = stepwise_logits(mixture, ids, mask, WIDTH)
    for nothing in ({"strength": 0.0}, {"gate": "off"}):
        with attach(mixture, steering, **nothing):
            assert torch.equal(stepwise_logits(mixture, ids, mask, WIDTH), plain)
    with naive_steering(mixture, steering, [1.5] * 3, real):
        expected = whole_logits(mixture, ids, mask)
    with attach(mixture, steering):
        actual = stepwise_logits(mixture, ids, mask, WIDTH)
    assert_close(actual[real], expected[real], rtol=1e-4, atol=1e-4)
    assert torch.equal(stepwise_logits(mixture, ids, mask, WIDTH), plain)
    assert mixture.config._experts_implementation == implementation


def test_rows_with_a_closed_gate_keep_every_bit_where_the_library_computes_tokens_apart(mixture):
    mixture.set_experts_implementation("batched_mm")
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    plain = stepwise_logits(mixture, ids, mask, WIDTH)
    with attach(mixture, steering_for(mixture), strength=torch.tensor([0.0, 1.5, 0.0])):
        steered = stepwise_logits(mixture, ids, mask, WIDTH)
    assert [torch.equal(a, b) for a, b in zip(steered, plain, strict=True)] == [True, False, True]


def test_a_neuron_acts_only_on_tokens_that_are_routed_to_its_expert(mixtral):
    """Layer 2 is the last one, so what is steered there reaches the logits of the same position only."""
    identity = identify(mixtral, "tiny", None)
    ids, _ = prompts((6, 6, 6))
    _, routed, _ = _call(mixtral, layer=2)
    plain = whole_logits(mixtral, ids)
    for expert in range(N_EXPERTS):
        with attach(mixtral, _one_neuron(identity, expert)):
            changed = (whole_logits(mixtral, ids) != plain).any(-1).flatten()
        assert changed.tolist() == (routed.expert == expert).any(1).tolist()


def _one_neuron(identity, expert):
    column = np.array([expert * D_EXPERT + 4])
    return Steering(np.array([2]), column, np.zeros(1, np.float32), np.array([9.0], np.float32), 1.0, "all", ALWAYS, identity)


def test_watching_keeps_the_order_asked_for(mixture):
    layout, seen = find_ffn(mixture), []
    index = torch.tensor([30, 2, 47, 12])
    experts, routed, _ = _call(mixture)
    handle = watch_neurons(layout, 1, index, seen.append)
    whole_logits(mixture, prompts((6, 6, 6))[0])
    handle.remove()
    assert_close(seen[0], expert_oracle.side_by_side(experts, routed)[:, index].nan_to_num())
    assert not experts._forward_hooks


def test_watching_a_dense_layer(qwen3):
    whole, some = [], []
    layout, index = find_ffn(qwen3), torch.tensor([30, 2, 47, 12])
    handles = [
        watch_neurons(layout, 1, index, some.append),
        hook_neurons(layout, 1, lambda activation: whole.append(activation), index.sort().values),
    ]
    whole_logits(qwen3, prompts((6, 6, 6))[0])
    for handle in handles:
        handle.remove()
    assert whole[0].shape == (3, 6, D_FF)
    assert torch.equal(some[0], whole[0][..., index])


def test_down_weights_stand_side_by_side(mixture):
    layout = find_ffn(mixture)
    model = LanguageModel(mixture, None, layout, identify(mixture, "tiny", None, layout=layout))
    weight = down_weights(model, [2])[2]
    assert weight.shape == (D_MODEL, D_FF)
    for neuron in (0, 11, 12, 47):
        column = layout.modules[2].down_proj[neuron // D_EXPERT][:, neuron % D_EXPERT]
        np.testing.assert_array_equal(weight[:, neuron], column.numpy())


def test_identity_counts_experts(mixture):
    identity = identify(mixture, "tiny", None)
    assert (identity.n_experts, identity.d_expert, identity.d_ff) == (N_EXPERTS, D_EXPERT, D_FF)
    assert identity.n_neurons == N_LAYERS * D_FF
    assert experts_shape(find_ffn(mixture).modules[0]) == (N_EXPERTS, D_EXPERT, D_MODEL)


def test_the_doctor_sees_activations_that_are_not_the_experts(mixtral):
    layout = find_ffn(mixtral)
    model = LanguageModel(mixtral, None, layout, identify(mixtral, "tiny", None, layout=layout))
    # the library computes something else than act(gate) * up, as an architecture of the same shapes might
    layout.modules[1]._apply_gate = lambda gate_up: torch.tanh(gate_up[..., :D_EXPERT])
    diagnosis = check_model(model)
    assert [finding.ok for finding in diagnosis.layers] == [True, False, True]
    assert "layer 1: the experts' output is not what their activations give: it differs by" in diagnosis.summary()


def test_bypassed_experts_are_an_error(mixtral, monkeypatch):
    block = mixtral.model.layers[1].mlp
    monkeypatch.setattr(block, "forward", lambda hidden: hidden)
    with attach(mixtral, steering_for(mixtral, scope="all")), pytest.raises(ModelError, match=r"layers \[1\] did not run"):
        whole_logits(mixtral, torch.ones(1, 4, dtype=torch.int64))


def test_experts_that_are_called_in_another_way_are_an_error(mixtral, monkeypatch):
    block = mixtral.model.layers[0].mlp
    monkeypatch.setattr(block, "forward", lambda hidden: block.experts(hidden[0], top_k_index=None, top_k_weights=None))
    monkeypatch.setattr(block.experts, "forward", lambda hidden, **_: hidden[None])
    with (
        attach(mixtral, steering_for(mixtral, scope="all")),
        pytest.raises(ModelError, match=r"called with \['Tensor'\] instead"),
    ):
        whole_logits(mixtral, torch.ones(1, 4, dtype=torch.int64))


def test_half_precision_keeps_the_effect(mixtral):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    steering, half, real = steering_for(mixtral), tiny("mixtral").to(torch.bfloat16), mask.bool()
    half.set_experts_implementation("batched_mm")  # the grouped kernel wants wider experts in this dtype
    plain, plain_half = stepwise_logits(mixtral, ids, mask, WIDTH), stepwise_logits(half, ids, mask, WIDTH)
    with attach(mixtral, steering):
        effect = (stepwise_logits(mixtral, ids, mask, WIDTH) - plain)[real]
    with attach(half, steering, identity=steering.model):
        steered = stepwise_logits(half, ids, mask, WIDTH)
    assert steered.dtype == torch.bfloat16
    assert torch.linalg.norm((steered - plain_half)[real].float() - effect) <= 0.05 * torch.linalg.norm(effect)


def test_gradients_flow_past_the_hooks(mixtral):
    ids, mask = prompts(LENGTHS, extra=EXTRA)
    mixtral.requires_grad_(True)
    with attach(mixtral, steering_for(mixtral), prompt_lengths=LENGTHS):
        mixtral(input_ids=ids, attention_mask=mask, use_cache=False).logits[mask.bool()].square().mean().backward()
    gradient = mixtral.model.layers[0].mlp.experts.gate_up_proj.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.any()
