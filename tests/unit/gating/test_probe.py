"""The gate's fit: signal found, no leakage, calibrated, folded exactly."""

import logging

import numpy as np
import pytest

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.gate import Gate
from trimtab.gating import fit_logistic
from trimtab.gating.probe import Calibration, calibrate, cross_validate, fit_linear
from trimtab.stats.auroc import auroc


def problems(seed: int, n: int, effect: float, width: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Features ``[n, 2, width]``; the first three of layer 1 carry the label. Means and scales differ wildly."""
    rng = np.random.default_rng(seed)
    failed = rng.random(n) < 0.4
    features = rng.normal(size=(n, 2, width))
    features[:, 1, :3] += effect * failed[:, None]
    scale = np.exp(np.linspace(-4, 4, 2 * width)).reshape(2, width)
    return (features * scale + 5 * scale).astype(np.float32), failed


def predict(gate: Gate, features: np.ndarray) -> np.ndarray:
    return gate.probability(features[:, gate.layer, gate.index])


def test_finds_the_signal_and_generalises():
    features, failed = problems(0, 300, 1.2)
    gate = fit_logistic(features, failed, n_features=20)
    held_out, truth = problems(1, 600, 1.2)
    assert auroc(truth, predict(gate, held_out)) > 0.85
    assert {(1, 0), (1, 1), (1, 2)} <= set(zip(gate.layer.tolist(), gate.index.tolist(), strict=True))
    assert (gate.kind, gate.threshold, len(gate.weight)) == ("logistic", None, 20)
    assert gate.weight.dtype == np.float32
    assert gate.facts["n_train"] == 300
    assert gate.facts["n_train_failed"] == failed.sum()


def test_probabilities_are_calibrated_on_new_problems():
    features, failed = problems(2, 400, 0.8)
    gate = fit_logistic(features, failed, n_features=40)
    held_out, truth = problems(3, 3000, 0.8)
    p = predict(gate, held_out)
    assert p.mean() == pytest.approx(truth.mean(), abs=0.04)
    for low, high in ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)):
        inside = (p >= low) & (p < high)
        assert inside.sum() > 100
        assert truth[inside].mean() == pytest.approx(p[inside].mean(), abs=0.09)


def test_shuffled_labels_give_nothing_on_held_out_problems():
    areas, pooled = [], []
    for seed in range(6):
        features, failed = problems(seed, 120, 1.2, width=150)
        shuffled = np.random.default_rng(seed).permutation(failed)
        gate = fit_logistic(features, shuffled, n_features=30, seed=seed)
        held_out, truth = problems(100 + seed, 300, 1.2, width=150)
        areas.append(auroc(np.random.default_rng(seed).permutation(truth), predict(gate, held_out)))
        pooled.append(gate.facts["held_out_auroc"])
    assert np.mean(areas) == pytest.approx(0.5, abs=0.05)
    # 30 of 300 noise features chosen on all rows would separate the folds' held-out rows at about 0.8
    assert np.mean(pooled) < 0.56


def test_choosing_features_outside_the_folds_would_have_shown():
    # the leak that the test above would catch: the same data, features chosen once on all rows
    leaky = []
    for seed in range(3):
        features, failed = problems(seed, 120, 1.2, width=150)
        shuffled = np.random.default_rng(seed).permutation(failed)
        gate = fit_logistic(features, shuffled, n_features=30, seed=seed)
        chosen = features[:, gate.layer, gate.index].astype(np.float64)
        chosen = (chosen - chosen.mean(axis=0)) / chosen.std(axis=0) / len(gate.weight) ** 0.5
        logit = cross_validate(lambda fold, x=chosen: (x[fold.rows], x[fold.held_out]), shuffled, seed).logit
        leaky.append(auroc(shuffled, logit))
    assert np.mean(leaky) > 0.7


def test_constant_features_are_dropped():
    features, failed = problems(4, 60, 1.0, width=5)
    features[:, 0] = 3.0
    gate = fit_logistic(features, failed)
    assert gate.layer.tolist() == [1] * 5
    assert gate.index.tolist() == list(range(5))


def test_scale_and_offset_of_a_feature_do_not_matter():
    features, failed = problems(5, 100, 1.0, width=6)
    moved = features * np.float32(4) + np.float32(64)
    p, q = (predict(fit_logistic(x, failed), x) for x in (features, moved))
    np.testing.assert_allclose(p, q, atol=5e-3)


def test_calibration_is_folded_into_weights_and_bias(monkeypatch):
    features, failed = problems(9, 80, 1.0, width=6)
    logits = []
    for calibration in (Calibration(1.0, 0.0), Calibration(2.0, 0.3)):
        monkeypatch.setattr("trimtab.gating.probe.calibrate", lambda *_, fixed=calibration: fixed)
        p = predict(fit_logistic(features, failed), features)
        logits.append(np.log(p / (1 - p)))
    np.testing.assert_allclose(logits[1], 2 * logits[0] + 0.3, atol=1e-4)


def test_the_same_seed_gives_the_same_gate():
    features, failed = problems(6, 80, 1.0, width=6)
    first, again = (fit_logistic(features, failed, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.weight, again.weight)
    assert first.bias == again.bias


@pytest.mark.parametrize(("n_failed", "kind"), [(9, "harder"), (111, "easier")])
def test_too_few_of_a_class_names_the_counts_and_the_fix(n_failed, kind):
    features, _ = problems(7, 120, 1.0, width=4)
    failed = np.arange(120) < n_failed
    with pytest.raises(
        NotEnoughDataError, match=f"got {n_failed} failed and {120 - n_failed} solved; add problems, choose {kind}"
    ):
        fit_logistic(features, failed)


def test_labels_must_be_bool():
    features, failed = problems(8, 40, 1.0, width=4)
    with pytest.raises(InputError, match="failed must be bool"):
        fit_logistic(features, failed.astype(np.int64))


def naive_platt_loss(slope: float, intercept: float, logit: np.ndarray, failed: np.ndarray) -> float:
    n_failed, n_solved = int(failed.sum()), int((~failed).sum())
    loss = 0.0
    for x, y in zip(logit.tolist(), failed.tolist(), strict=True):
        target = (n_failed + 1) / (n_failed + 2) if y else 1 / (n_solved + 2)
        p = 1 / (1 + np.exp(-(slope * x + intercept)))
        loss -= target * np.log(p) + (1 - target) * np.log(1 - p)
    return loss


def test_calibration_is_at_the_minimum_of_platts_loss():
    rng = np.random.default_rng(0)
    failed = rng.random(80) < 0.3
    logit = rng.normal(size=80) + failed
    slope, intercept = calibrate(logit, failed)
    best = naive_platt_loss(slope, intercept, logit, failed)
    for step in (-1e-2, 1e-2):
        assert naive_platt_loss(slope + step, intercept, logit, failed) > best
        assert naive_platt_loss(slope, intercept + step, logit, failed) > best


def test_calibration_of_a_perfect_separation_is_finite():
    failed = np.arange(40) < 20
    slope, intercept = calibrate(np.where(failed, 1.0, -1.0), failed)
    assert slope + intercept == pytest.approx(np.log(21))
    assert slope - intercept == pytest.approx(np.log(21))


def test_logits_against_the_labels_become_the_base_rate(caplog):
    failed = np.arange(40) < 10
    with caplog.at_level(logging.WARNING):
        slope, intercept = calibrate(np.where(failed, -1.0, 1.0) + np.linspace(0, 0.1, 40), failed)
    assert slope == 0
    # smoothed: 10 * 11/12 + 30 * 1/32 of 40
    share = (10 * 11 / 12 + 30 / 32) / 40
    assert intercept == pytest.approx(np.log(share / (1 - share)))
    assert "run against the labels" in caplog.text
    assert calibrate(np.zeros(40), failed) == (0.0, intercept)


def naive_l1_loss(weight: np.ndarray, bias: float, x: np.ndarray, failed: np.ndarray, c: float) -> float:
    loss = float(np.abs(weight).sum()) + abs(bias)
    for row, y in zip(x, failed.tolist(), strict=True):
        logit = float(row @ weight) + bias
        loss += c * np.log1p(np.exp(-logit if y else logit))
    return loss


def test_l1_is_at_the_minimum_of_its_loss():
    rng = np.random.default_rng(1)
    failed = rng.random(80) < 0.4
    x = rng.normal(size=(80, 6)) / 6**0.5
    x[:, 0] += 0.6 * failed
    weight, bias = fit_linear(x, failed, 1.0, "l1")
    best = naive_l1_loss(weight, bias, x, failed, 1.0)
    assert 0 < np.count_nonzero(weight) < 6
    for j in range(6):
        for step in (-0.05, 0.05):
            assert naive_l1_loss(weight + step * (np.arange(6) == j), bias, x, failed, 1.0) > best
    for step in (-0.05, 0.05):
        assert naive_l1_loss(weight, bias + step, x, failed, 1.0) > best


def test_l1_keeps_few_features_and_says_what_it_is():
    features, failed = problems(10, 300, 1.2)
    gate = fit_logistic(features, failed, n_features=60, penalty="l1", pooling="mean")
    held_out, truth = problems(11, 600, 1.2)
    assert auroc(truth, predict(gate, held_out)) > 0.85
    assert len(gate.layer) < 40
    assert np.count_nonzero(gate.weight) == len(gate.weight)
    assert (gate.pooling, gate.facts["penalty"], gate.facts["n_features"]) == ("mean", "l1", len(gate.layer))
    again = fit_logistic(features, failed, n_features=60, penalty="l1", pooling="mean")
    np.testing.assert_array_equal(gate.weight, again.weight)


def test_l1_without_any_weight_still_reads_a_feature(monkeypatch):
    features, failed = problems(12, 60, 0.0, width=4)
    monkeypatch.setattr("trimtab.gating.probe.calibrate", lambda *_: Calibration(0.0, -0.4))
    gate = fit_logistic(features, failed, penalty="l1")
    assert gate.weight.tolist() == [0.0]
    np.testing.assert_allclose(predict(gate, features), 1 / (1 + np.exp(0.4)))
