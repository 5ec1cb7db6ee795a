"""Where a set sits, by hand."""

from math import comb

import numpy as np
import pytest

from trimtab.analysis import layer_histogram
from trimtab.analysis.sets import in_words
from trimtab.errors import InputError
from trimtab.neurons import ModelIdentity, NeuronList


def identity(n_layers: int = 3, d_ff: int = 8, n_experts: int = 1) -> ModelIdentity:
    return ModelIdentity("m", None, "qwen3", "f", n_layers, 4, d_ff, 9, n_experts)


def neurons(pairs: list[tuple[int, int]], model: ModelIdentity) -> NeuronList:
    layer, index = (np.array(column, np.int64) for column in zip(*pairs, strict=True)) if pairs else (np.zeros(0, np.int64),) * 2
    return NeuronList(layer, index, "by hand", model)


def test_counts_and_shares() -> None:
    histogram = layer_histogram(neurons([(2, 0), (0, 3), (2, 5), (2, 1)], identity()))
    assert [(row.layer, row.neurons, row.share_of_set, row.share_of_layer) for row in histogram.layers] == [
        (0, 1, 0.25, 0.125),
        (1, 0, 0.0, 0.0),
        (2, 3, 0.75, 0.375),
    ]
    assert histogram.expected == pytest.approx(4 / 3)
    assert histogram.experts == ()


def test_the_band_is_that_of_a_random_set() -> None:
    histogram = layer_histogram(neurons([(0, i) for i in range(6)], identity()))
    # of 24 neurons 8 are in a layer; 6 are drawn
    chances = [comb(8, hits) * comb(16, 6 - hits) / comb(24, 6) for hits in range(7)]
    below, up_to = np.cumsum(chances) - chances, np.cumsum(chances)
    assert below[histogram.low] < 0.025 <= up_to[histogram.low]
    assert below[histogram.high] < 0.975 <= up_to[histogram.high]


def test_experts_stand_side_by_side() -> None:
    model = identity(n_layers=2, d_ff=12, n_experts=3)
    histogram = layer_histogram(neurons([(0, 3), (0, 4), (0, 7), (1, 11)], model))
    assert [(row.layer, row.expert, row.neurons) for row in histogram.experts] == [(0, 0, 1), (0, 1, 2), (1, 2, 1)]
    assert histogram.to_json()["experts"][1] == {"layer": 0, "expert": 1, "neurons": 2}  # type: ignore[index]


def test_an_address_in_words_has_no_holes() -> None:
    assert in_words(identity(), 1, 3) == "layer 1 index 3"


def test_an_empty_set() -> None:
    with pytest.raises(InputError, match="no neurons"):
        layer_histogram(neurons([], identity()))
