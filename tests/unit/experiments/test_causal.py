"""Suppressing, amplifying, and random sets that are as large in every layer."""

import numpy as np

from trimtab.experiments import Workbench
from trimtab.experiments.causal import _steerings, causal
from trimtab.traces import Split


def test_random_sets_have_as_many_neurons_a_layer_and_the_same_gains(bench: Workbench) -> None:
    made = _steerings(bench)
    found = made[f"{bench.criterion}, suppressed"][0]
    assert (found.gain == -1).all()
    assert not found.shift.any()
    drawn = made[f"random, suppressed (for {bench.criterion})"]
    assert len(drawn) == bench.settings.random_sets
    for steering in drawn:
        assert (steering.gain == -1).all()
        assert np.array_equal(np.bincount(steering.layer), np.bincount(found.layer))
        assert not set(zip(steering.layer, steering.index, strict=True)) & set(zip(found.layer, found.index, strict=True))
    amplified = made[f"random, amplified by 1.1 (for {bench.criterion})"][0]
    np.testing.assert_allclose(amplified.gain, 0.1, rtol=1e-6)


def test_accuracy_and_perplexity_of_every_condition(bench: Workbench) -> None:
    result = causal(bench)
    accuracy = result.tables[0]
    assert all(row[1] == len(bench.split(Split.TEST)) for row in accuracy.rows)
    assert str(accuracy.rows[1][0]) == f"{bench.criterion}, suppressed"
    perplexity = {table.name: table for table in result.tables}.get("causal-perplexity")
    assert perplexity is None or [row[0] for row in perplexity.rows] == [row[0] for row in accuracy.rows]
    assert all(bench.criterion in finding or "activation-ratio" in finding or "too few" in finding for finding in result.findings)
