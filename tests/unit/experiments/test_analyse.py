"""The analysis of a small run: every piece is there, and the numbers are those of the analysis functions."""

from dataclasses import replace

import numpy as np
import pytest

from search_samples import changed
from trimtab.analysis import layer_histogram, perplexity_effect
from trimtab.errors import InputError
from trimtab.experiments import Search
from trimtab.experiments.analyse import analyse
from trimtab.experiments.responses import greedy_responses
from trimtab.traces import Split


@pytest.fixture
def closed(search: Search) -> Search:
    """As the command gives it: without the test problems."""
    return changed(search, problems={split: search.problems[split] for split in (Split.TRAIN, Split.VALIDATION)})


def test_every_piece_is_shown(closed: Search) -> None:
    found = analyse(closed)
    drawn = {frame.name for frame in found.frames if frame.plot}
    assert {"layers", "ratios", "top-activated", "criteria", "layer-probes", "drift-distance", "drift-cosine"} < drawn
    assert {"vocabulary", "top-tokens", "effect", "magnitudes"} <= {frame.name for frame in found.frames}
    layers = [row["value"] for row in found["layers"].rows if row["series"] == "found"]
    assert layers == [row.neurons for row in layer_histogram(closed.steering).layers]
    pair = {"mean-difference", "adaras"}
    (shared,) = [row["value"] for row in found["criteria"].rows if {row["row"], row["column"]} == pair]
    sets = [closed.neurons(name, closed.k) for name in pair]
    addresses = [set(zip(one.layer.tolist(), one.index.tolist(), strict=True)) for one in sets]
    assert shared == len(addresses[0] & addresses[1])
    held_out = [row for row in found["layer-probes"].rows if row["low"] is not None]
    assert [row["x"] for row in held_out] == list(range(closed.model.n_layers))
    expected = perplexity_effect(closed.model, greedy_responses(closed, closed.split(Split.VALIDATION)), closed.steering)
    effect = {row["label"]: row["value"] for row in found["effect"].rows}
    assert effect["perplexity, ratio"] == pytest.approx(expected.change.ratio.value)


def test_magnitudes_are_needed(closed: Search) -> None:
    moments = replace(closed.class_moments, correct_magnitude=None, incorrect_magnitude=None)
    poor = changed(closed, class_moments=moments)
    with pytest.raises(InputError, match=r"add 'magnitude' to recording\.moments"):
        analyse(poor)
    assert np.isfinite(closed.class_moments.mean_difference).all()
