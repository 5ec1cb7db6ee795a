"""Ablating, amplifying, and random sets that are as large in every layer."""

from importlib import import_module

import numpy as np
import pytest

from trimtab.experiments import Search
from trimtab.experiments.causal import _steerings, causal
from trimtab.traces import Split


def test_random_sets_have_as_many_neurons_a_layer_and_the_same_gains(search: Search) -> None:
    made = _steerings(search)
    found = made[f"{search.criterion}, ablated"][0]
    assert (found.gain == -1).all()
    assert not found.shift.any()
    drawn = made[f"random, ablated (for {search.criterion})"]
    assert len(drawn) == search.settings.random_sets
    for steering in drawn:
        assert (steering.gain == -1).all()
        assert np.array_equal(np.bincount(steering.layer), np.bincount(found.layer))
        assert not set(zip(steering.layer, steering.index, strict=True)) & set(zip(found.layer, found.index, strict=True))
    amplified = made[f"random, amplified by 1.1 (for {search.criterion})"][0]
    np.testing.assert_allclose(amplified.gain, 0.1, rtol=1e-6)


def test_the_neurons_of_cett_are_scaled_as_its_source_does(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("trimtab.experiments.causal")  # the package's attribute of this name is the function
    monkeypatch.setattr(module, "_criteria", lambda _: [search.criterion, "cett"])
    real = search.neurons(search.criterion, search.k)
    monkeypatch.setattr(Search, "neurons", lambda *_, **__: real)
    made = _steerings(search)
    for factor in (0.5, 2.0, 3.0):
        (found,) = made[f"cett, scaled by {factor:g}"]
        np.testing.assert_allclose(1 + found.strength * found.gain, factor)
        drawn = made[f"random, scaled by {factor:g} (for cett)"]
        assert [(one.strength, one.gain.tolist()) for one in drawn] == [(found.strength, found.gain.tolist())] * len(drawn)
    assert f"{search.criterion}, scaled by 2" not in made


def test_accuracy_and_perplexity_of_every_condition(search: Search) -> None:
    found = causal(search)
    gains = found["causal"].rows
    assert all(row["n"] == len(search.split(Split.TEST)) for row in gains)
    assert gains[1]["label"] == f"{search.criterion}, ablated"
    conditions = list(dict.fromkeys(row["label"] for row in gains))
    for frame in found.frames[1:]:
        assert [row["label"] for row in frame.rows] == conditions
        assert [row["value"] is None for row in frame.rows] == [True] + [False] * (len(conditions) - 1)
    single = [row for row in gains if row["series"] == "one random set"]
    assert len(single) == search.settings.random_sets * sum(str(label).startswith("random") for label in conditions)
    assert all(search.criterion in words or "activation-ratio" in words or "too few" in words for words in found.sentences)
