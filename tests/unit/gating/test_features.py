"""F scores against loops and scikit-learn."""

import numpy as np
import pytest
from sklearn.feature_selection import f_classif

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.gating.features import ArrayRows, choose_by_folds, f_scores_of


def data(seed: int = 0, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    failed = np.arange(n) % 3 == 0
    features = rng.normal(size=(n, 2, 6)).astype(np.float32)
    features[:, 1, 2] += 2 * failed
    return features, failed


def f_scores(features: np.ndarray, failed: np.ndarray) -> np.ndarray:
    return f_scores_of(ArrayRows(features), failed, np.zeros(len(failed), np.int64), [(0,)], (0, features.shape[1]))[0]


def choose_features(features: np.ndarray, failed: np.ndarray, n: int) -> np.ndarray:
    (chosen,) = choose_by_folds(features, failed, n, np.zeros(len(failed), np.int64), [(0,)])
    return chosen


def naive_f(values: list[float], failed: list[bool]) -> float:
    mean = sum(values) / len(values)
    between = within = 0.0
    for label in (True, False):
        own = [v for v, f in zip(values, failed, strict=True) if f == label]
        centre = sum(own) / len(own)
        between += len(own) * (centre - mean) ** 2
        within += sum((v - centre) ** 2 for v in own)
    return between / (within / (len(values) - 2))


def test_equals_loops_and_scikit_learn():
    features, failed = data()
    scores = f_scores(features, failed)
    for layer in range(2):
        for index in range(6):
            assert scores[layer, index] == pytest.approx(naive_f(features[:, layer, index].tolist(), failed.tolist()), rel=1e-6)
        np.testing.assert_allclose(scores[layer], f_classif(features[:, layer].astype(np.float64), failed)[0], rtol=1e-6)


def test_a_constant_feature_has_zero_and_a_perfect_one_infinity():
    features, failed = data()
    features[:, 0, 0] = 0.1
    features[:, 0, 1] = np.where(failed, 3.0, -1.0)
    scores = f_scores(features, failed)
    assert scores[0, 0] == 0
    assert np.isinf(scores[0, 1])


def test_a_large_mean_does_not_cancel():
    features, failed = data()
    shifted = features.copy()
    shifted[:, 0, 0] = np.float32(4096) + np.round(features[:, 0, 0] * 64) / 64
    exact = naive_f((shifted[:, 0, 0].astype(np.float64) - 4096).tolist(), failed.tolist())
    assert f_scores(shifted, failed)[0, 0] == pytest.approx(exact, rel=1e-9)


def test_the_best_are_chosen_sorted_by_address():
    features, failed = data()
    scores = f_scores(features, failed).ravel()
    assert choose_features(features, failed, 3).tolist() == sorted(sorted(range(12), key=lambda i: -scores[i])[:3])
    assert choose_features(features, failed, 1).tolist() == [8]
    assert choose_features(features, failed, 4096).tolist() == list(range(12))


def test_constant_features_are_never_chosen():
    features, failed = data()
    features[:, 0] = 1.5
    assert choose_features(features, failed, 12).tolist() == list(range(6, 12))
    with pytest.raises(NotEnoughDataError, match="no feature differs"):
        choose_features(np.ones((9, 1, 2), np.float32), np.arange(9) < 4, 2)


def test_refusals():
    features, failed = data()
    with pytest.raises(NotEnoughDataError, match="40 failed of 40"):
        choose_features(features, np.ones(40, np.bool_), 2)
    with pytest.raises(InputError, match="39 problems to match"):
        choose_features(features, failed[1:], 2)
    with pytest.raises(InputError, match="at least one feature"):
        choose_features(features, failed, 0)
    features[3, 1, 4] = np.inf
    with pytest.raises(InputError, match="layer 1 hold NaN or infinity"):
        choose_features(features, failed, 2)
