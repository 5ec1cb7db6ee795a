"""The running probe against naive sums, warnings worked out by hand, and the whole experiment on a small run."""

import numpy as np
import pytest

from trimtab.errors import NotEnoughDataError
from trimtab.experiments import Search
from trimtab.experiments.monitor import monitor
from trimtab.gating.running import PREFIXES, Readings, RunningProbe, _prefix_means, fit_running_probe
from trimtab.recording.features import batch_features

LAYER, INDEX = np.array([0, 1]), np.array([3, 4])


def test_a_running_score_is_the_score_of_the_running_mean() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(7, 2)).astype(np.float32)
    probe = RunningProbe(LAYER, INDEX, np.array([0.5, -2.0]), 0.25)
    expected = [probe.bias + float(features[: t + 1].astype(np.float64).mean(axis=0) @ probe.weight) for t in range(7)]
    np.testing.assert_allclose(probe.scores(features), expected, rtol=1e-12)


def test_prefix_means_of_a_short_chain_hold_one_token_or_more() -> None:
    features = np.array([[1.0], [3.0]], np.float32)
    assert _prefix_means(features).ravel().tolist() == [1.0, 1.0, 2.0, 2.0]
    assert len(PREFIXES) == 4


def test_reading_chains_equals_their_features(search: Search) -> None:
    chains = list(search.traces[:5])
    probe = RunningProbe(LAYER, INDEX, np.array([1.0, 1.0]), 0.0)
    for chain, scores in zip(chains, probe.read(search.model, chains), strict=True):
        (features,) = batch_features(search.model, [chain], LAYER, INDEX, "response")
        np.testing.assert_allclose(scores, probe.scores(features), rtol=1e-4, atol=1e-5)


def test_a_probe_needs_both_verdicts(search: Search) -> None:
    chains = list(search.traces[:20])
    with pytest.raises(NotEnoughDataError, match="both scores"):
        fit_running_probe(search.model, chains, np.zeros(20, np.bool_), LAYER, INDEX)


def test_warnings_by_hand() -> None:
    readings = Readings((np.array([0.9, 0.1, 0.6, 0.7]), np.array([0.2, 0.3])), np.array([True, False]))
    assert readings.warned_at(0.5, after=1).tolist() == [1.0, np.inf]
    assert readings.warned_at(0.5, after=2).tolist() == [3.0, np.inf]
    assert readings.warned_at(0.3, after=9).tolist() == [4.0, 2.0]  # the last token, where a response is shorter
    assert readings.highest(2).tolist() == [0.7, 0.3]
    assert readings.at(3).tolist() == [0.6, 0.3]
    assert readings.at_share(0.5).tolist() == [0.1, 0.2]


def test_the_experiment_counts_every_test_chain(search: Search) -> None:
    found = monitor(search)
    warnings, warned = found["warnings"].rows, found["warned"].rows
    assert sum(row["n"] for row in warnings) == 40
    for row in warnings:  # at the end of the response all warnings have been given
        assert [one["value"] for one in warned if one["series"] == row["label"]][-1] == row["value"]
    assert all(0 <= row["low"] <= row["value"] <= row["high"] <= 1 for row in found["auroc"].rows)
