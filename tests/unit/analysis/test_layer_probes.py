"""Probes find the layer that knows, and only there."""

import numpy as np
import pytest

from trimtab.analysis import layer_probes
from trimtab.errors import InputError, NotEnoughDataError
from trimtab.gating import fit_logistic
from trimtab.stats.auroc import auroc

RNG = np.random.default_rng(0)


def split(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Three layers of six neurons; layer 1 knows."""
    failed = RNG.random(n) < 0.4
    features = RNG.normal(size=(n, 3, 6)).astype(np.float32)
    features[:, 1, 2] += 2.5 * failed
    return features, failed


FIND, TUNE = split(120), split(80)


def test_the_layer_that_knows_stands_out() -> None:
    probes = layer_probes(*FIND, *TUNE)
    held_out = [probe.held_out.value for probe in probes.layers]
    assert held_out[1] > 0.9
    assert max(held_out[0], held_out[2]) < 0.7
    for probe in probes.layers:
        assert probe.held_out.low <= probe.held_out.value <= probe.held_out.high
    assert (probes.n_fit, probes.n_fit_failed) == (120, int(FIND[1].sum()))
    assert (probes.n_held_out, probes.n_held_out_failed) == (80, int(TUNE[1].sum()))


def test_a_probe_is_a_gate_on_one_layer() -> None:
    probes = layer_probes(*FIND, *TUNE, n_features=3, seed=2)
    gate = fit_logistic(FIND[0][:, 1:2], FIND[1], n_features=3, seed=2)
    score = gate.probability(TUNE[0][:, 1, gate.index])
    assert probes.layers[1].features == 3
    assert probes.layers[1].held_out.value == pytest.approx(auroc(TUNE[1], score))
    assert probes.layers[1].cross_validated == gate.facts["held_out_auroc"]


def test_what_is_held_out_is_not_fitted_on() -> None:
    turned = layer_probes(*FIND, TUNE[0], ~TUNE[1])
    for probe, before in zip(turned.layers, layer_probes(*FIND, *TUNE).layers, strict=True):
        assert probe.cross_validated == before.cross_validated
        assert probe.held_out.value == pytest.approx(1 - before.held_out.value)


def test_refusals() -> None:
    with pytest.raises(InputError, match="the splits' features differ"):
        layer_probes(*FIND, TUNE[0][:, :2], TUNE[1])
    with pytest.raises(NotEnoughDataError, match="need at least 2 of each class"):
        layer_probes(*FIND, TUNE[0], np.zeros(80, np.bool_))
