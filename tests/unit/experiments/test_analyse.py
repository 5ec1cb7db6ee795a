"""The analysis of a small run: every piece is there, and the numbers are those of the analysis functions."""

from dataclasses import replace

import numpy as np
import pytest

from trimtab.analysis import layer_histogram, perplexity_effect
from trimtab.errors import InputError
from trimtab.experiments import Workbench
from trimtab.experiments.analyse import analyse
from trimtab.experiments.responses import greedy_chains
from trimtab.results import Bars, Matrix
from trimtab.traces import Split


@pytest.fixture
def closed(bench: Workbench) -> Workbench:
    """As the command gives it: without the test problems."""
    return replace(bench, problems={split: bench.problems[split] for split in (Split.TRAIN, Split.VALIDATION)})


def test_every_piece_is_shown(closed: Workbench) -> None:
    result = analyse(closed)
    figures = {figure.name: figure for figure in result.figures}
    assert {"layers", "ratios", "top-activated", "criteria", "layer-probes", "drift-distance", "drift-cosine"} == set(figures)
    assert {table.name for table in result.tables} == {"vocabulary", "top-tokens", "effect", "magnitudes"}
    layers = figures["layers"]
    assert isinstance(layers, Bars)
    assert [bar.value for bar in layers.series[0].bars] == [row.neurons for row in layer_histogram(closed.steering).layers]
    shared = figures["criteria"]
    assert isinstance(shared, Matrix)
    place = shared.rows.index("mean-difference"), shared.columns.index("adaras")
    sets = [closed.neurons(name, closed.k) for name in ("mean-difference", "adaras")]
    addresses = [set(zip(one.layer.tolist(), one.index.tolist(), strict=True)) for one in sets]
    assert shared.cells[place[0]][place[1]].value == len(addresses[0] & addresses[1])  # type: ignore[union-attr]
    effect = next(table for table in result.tables if table.name == "effect")
    expected = perplexity_effect(closed.model, greedy_chains(closed, closed.split(Split.VALIDATION)), closed.steering)
    assert {row[0]: row[1] for row in effect.rows}["perplexity, ratio"] == pytest.approx(expected.change.ratio.value)


def test_magnitudes_are_needed(closed: Workbench) -> None:
    poor = replace(closed)
    object.__setattr__(poor, "class_moments", replace(closed.class_moments, correct_magnitude=None, incorrect_magnitude=None))
    with pytest.raises(InputError, match=r"add 'magnitude' to recording\.moments"):
        analyse(poor)
    assert np.isfinite(closed.class_moments.mean_difference).all()
