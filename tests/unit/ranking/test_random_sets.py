"""Random controls: same layers, other neurons, shifts as large."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.directions import Directions
from trimtab.errors import InputError
from trimtab.neurons import ModelIdentity, Neurons
from trimtab.ranking import norm_matched, random_like
from trimtab.steering import Steering

MODEL = ModelIdentity("tiny", None, "qwen3", "f00", n_layers=3, d_model=4, d_ff=10, vocab_size=7)


def found(addresses: list[int], seed: int = 0) -> Steering:
    flat = np.array(addresses, np.int64)
    rng = np.random.default_rng(seed)
    correct_mean, incorrect_mean = rng.normal(size=(2, len(flat))).astype(np.float32)
    neurons = Neurons(
        flat // 10, flat % 10, np.arange(len(flat), 0, -1.0), correct_mean, incorrect_mean, "mean-difference", MODEL
    )
    return Steering.of(neurons, 10.0, facts={"criterion": "mean-difference"})


addresses = st.lists(st.integers(0, 29), min_size=1, max_size=24, unique=True)


@settings(deadline=None)
@given(addresses, st.integers(0, 1000))
def test_the_control_keeps_layers_and_sizes_and_avoids_found_neurons(chosen, seed):
    neurons = found(chosen)
    control = random_like(neurons, seed)
    assert control.layer.tolist() == neurons.layer.tolist()
    for layer in set(neurons.layer.tolist()):
        here = neurons.layer == layer
        old, new = set(neurons.index[here].tolist()), set(control.index[here].tolist())
        # as few found neurons as the layer's room allows
        assert len(old & new) == max(0, 2 * len(old) - 10)
        np.testing.assert_array_equal(np.sort(np.abs(control.shift[here])), np.sort(np.abs(neurons.shift[here])))
        np.testing.assert_array_equal(np.sort(np.abs(control.gain[here])), np.sort(np.abs(neurons.gain[here])))
    assert (control.strength, control.scope, control.gate) == (neurons.strength, neurons.scope, neurons.gate)
    assert control.facts == {"criterion": "random", "control_of": "mean-difference", "seed": seed}


def test_gain_and_shift_of_a_neuron_stay_together():
    neurons = found([1, 4, 12, 15, 23])
    neurons = replace(neurons, gain=2 * neurons.shift)
    control = random_like(neurons, 0)
    np.testing.assert_array_equal(control.gain, 2 * control.shift)
    assert control.gain.any()


def test_seeds_differ_and_repeat():
    neurons = found([1, 4, 12, 15, 23])
    first, again, other = (random_like(neurons, seed) for seed in (3, 3, 4))
    assert first.index.tolist() == again.index.tolist()
    assert first.shift.tolist() == again.shift.tolist()
    assert first.index.tolist() != other.index.tolist()


def test_signs_and_neurons_are_drawn_evenly():
    neurons = found([0, 1, 2])
    draws = [random_like(neurons, seed) for seed in range(400)]
    positive = np.mean([control.shift > 0 for control in draws])
    # 1200 fair signs: six standard deviations are 0.087
    assert abs(positive - 0.5) < 0.087
    counts = np.bincount(np.concatenate([control.index for control in draws]), minlength=10)
    assert counts[:3].sum() == 0
    assert counts[3:].min() > 110
    # every shift meets every rank: no rank keeps its own
    kept = np.mean([np.abs(control.shift) == np.abs(neurons.shift) for control in draws])
    assert 0.2 < kept < 0.47


def down() -> dict[int, np.ndarray]:
    rng = np.random.default_rng(9)
    return {layer: rng.normal(size=(4, 10)).astype(np.float32) for layer in range(3)}


def naive_norm(steering: Steering, layer: int, weight: np.ndarray) -> float:
    push = [0.0] * 4
    for site, index, shift in zip(steering.layer.tolist(), steering.index.tolist(), steering.shift.tolist(), strict=True):
        if site == layer:
            for i in range(4):
                push[i] += float(weight[i, index]) * shift
    return sum(value**2 for value in push) ** 0.5


def test_norms_match_in_every_layer():
    reference = found([1, 4, 12, 15, 23])
    control = random_like(found([1, 4, 12, 15, 23]), 0)
    weights = down()
    matched = norm_matched(control, reference, weights)
    for layer in range(3):
        assert naive_norm(matched, layer, weights[layer]) == pytest.approx(naive_norm(reference, layer, weights[layer]), rel=1e-5)
        here = control.layer == layer
        assert len(np.unique(np.round(matched.shift[here] / control.shift[here], 4))) == 1
    assert matched.strength == 10.0
    assert matched.facts["norm_matched"] is True
    assert naive_norm(control, 0, weights[0]) != pytest.approx(naive_norm(reference, 0, weights[0]), rel=1e-3)


def test_norm_matching_leaves_its_inputs_alone():
    reference = found([1, 12])
    control = random_like(found([1, 12]), 0)
    before = control.shift.copy()
    norm_matched(control, reference, down())
    np.testing.assert_array_equal(control.shift, before)


def test_norm_matching_leaves_gains_alone():
    reference = replace(found([1, 12]), gain=np.array([-1, 0], np.float32))
    control = random_like(reference, 0)
    np.testing.assert_array_equal(norm_matched(control, reference, down()).gain, control.gain)
    assert control.gain.any()


def test_norm_matching_refusals():
    reference = found([1, 12])
    control = random_like(found([1, 12]), 0)
    with pytest.raises(InputError, match=r"layers differ: \[0, 1\] and \[0, 2\]"):
        norm_matched(control, found([1, 22]), down())
    with pytest.raises(InputError, match=r"layer 1 needs a down projection of shape \[4, 10\], got none"):
        norm_matched(control, reference, {0: down()[0]})
    with pytest.raises(InputError, match=r"got shape \[10, 4\]"):
        norm_matched(control, reference, {layer: weight.T for layer, weight in down().items()})
    with pytest.raises(InputError, match="shifts of layer 0 move nothing"):
        norm_matched(replace(control, shift=np.zeros(2, np.float32)), reference, down())


def test_a_reference_that_moves_nothing_silences_the_layer():
    control = random_like(found([1, 12]), 0)
    still = replace(found([1, 12]), shift=np.zeros(2, np.float32))
    assert not norm_matched(control, still, down()).shift.any()
    assert not norm_matched(still, still, down()).shift.any()


def test_experts_are_layers_of_their_own():
    """How often tokens are routed to an expert decides how often its neurons act, so a control stays in it."""
    experts = replace(MODEL, d_ff=10, n_experts=2)
    neurons = replace(found([1, 4, 8, 12, 17, 19]), model=experts)
    for seed in range(30):
        control = random_like(neurons, seed)
        assert control.layer.tolist() == neurons.layer.tolist()
        assert (control.index // 5).tolist() == (neurons.index // 5).tolist()
        for expert in range(4):
            here = neurons.layer * 2 + neurons.index // 5 == expert
            assert not set(control.index[here]) & set(neurons.index[here])
            np.testing.assert_array_equal(np.sort(np.abs(control.shift[here])), np.sort(np.abs(neurons.shift[here])))


def test_random_directions_are_as_long_and_point_elsewhere():
    vectors = np.random.default_rng(5).normal(size=(2, 64)).astype(np.float32)
    wide = replace(MODEL, d_model=64)
    along = Directions(np.array([0, 2]), vectors, "mean-difference", wide).steering(3.0)
    permuted = [random_like(along, seed) for seed in range(20)]
    uniform = [norm_matched(one, along, {}) for one in permuted]
    norms = np.linalg.norm(vectors, axis=1)
    for control in (*permuted, *uniform):
        assert (control.strength, control.direction_layer.tolist()) == (3.0, [0, 2])
        np.testing.assert_allclose(np.linalg.norm(control.direction, axis=1), norms, rtol=1e-6)
    for one in permuted:
        np.testing.assert_array_equal(np.sort(np.abs(one.direction)), np.sort(np.abs(vectors)))
    cosines = [(one.direction * vectors).sum(1) / norms**2 for one in (*permuted, *uniform)]
    assert np.abs(np.mean(cosines)) < 0.1 < np.std(cosines) < 0.2  # 1 / sqrt(64) = 0.125
    assert len({one.digest for one in (*permuted, *uniform)}) == 40
    assert random_like(along, 3).digest == permuted[3].digest
