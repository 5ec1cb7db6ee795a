"""Overlaps against enumeration of all sets."""

from itertools import combinations, product

import numpy as np
import pytest

from trimtab.analysis import set_overlaps, top_overlap
from trimtab.errors import InputError, MismatchError
from trimtab.neurons import ModelIdentity, NeuronList

MODEL = ModelIdentity("m", None, "qwen3", "f", 2, 4, 6, 9)


def neurons(*flat: int, model: ModelIdentity = MODEL) -> NeuronList:
    numbers = np.array(flat, np.int64)
    return NeuronList(numbers // model.d_ff, numbers % model.d_ff, "by hand", model)


def test_top_overlap_is_that_of_a_loop() -> None:
    magnitude = np.random.default_rng(0).random((2, 6))
    chosen = neurons(0, 1, 4, 7, 8)
    found = top_overlap(chosen, magnitude, shares=(0.34, 0.5, 1.0))
    assert found.top == (2, 3, 6)
    for i, size in enumerate(found.top):
        by_layer = []
        for layer in range(2):
            best = sorted(range(6), key=lambda index, layer=layer: -magnitude[layer, index])[:size]
            by_layer.append(sum(index in best for at, index in zip(chosen.layer, chosen.index, strict=True) if at == layer))
        assert [layer.shared[i] for layer in found.layers] == by_layer
        assert found.shared[i] == sum(by_layer)
        # every set with three neurons in layer 0 and two in layer 1 is as likely; the top may be the first `size` of each
        hits = [sum(index < size for index in (*a, *b)) for a, b in product(combinations(range(6), 3), combinations(range(6), 2))]
        assert found.p[i] == pytest.approx(np.mean([hit >= found.shared[i] for hit in hits]))
    assert [layer.neurons for layer in found.layers] == [3, 2]
    assert found.p[-1] == 1.0


def test_equal_magnitudes_rank_by_index_and_unknown_ones_last() -> None:
    magnitude = np.array([[1.0, 1.0, 1.0, 1.0, np.nan, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]])
    assert top_overlap(neurons(0, 3, 4), magnitude, shares=(0.5, 5 / 6)).shared == (1, 2)


def test_pairs_against_every_set() -> None:
    (pair,) = set_overlaps({"a": neurons(0, 1, 2, 6), "b": neurons(1, 2, 7)})
    assert (pair.shared, pair.n_first, pair.n_second) == (2, 4, 3)
    assert pair.jaccard == 2 / 5
    fixed = {0, 1, 2, 6}
    anywhere = [len(fixed & set(other)) for other in combinations(range(12), 3)]
    assert pair.expected == pytest.approx(np.mean(anywhere)) == 1.0
    assert pair.p == pytest.approx(np.mean([hit >= 2 for hit in anywhere]))
    same_layers = [len(fixed & {*a, *b}) for a, b in product(combinations(range(6), 2), combinations(range(6, 12), 1))]
    assert pair.expected_in_layers == pytest.approx(np.mean(same_layers))
    assert pair.p_in_layers == pytest.approx(np.mean([hit >= 2 for hit in same_layers]))


def test_every_two_of_three_sets() -> None:
    pairs = set_overlaps({"a": neurons(0), "b": neurons(0, 3), "c": neurons(5)})
    assert [(pair.first, pair.second, pair.shared) for pair in pairs] == [("a", "b", 1), ("a", "c", 0), ("b", "c", 0)]
    assert [pair.p for pair in pairs[1:]] == [1.0, 1.0]


def test_refusals() -> None:
    other = ModelIdentity("n", None, "qwen3", "f", 2, 4, 7, 9)
    with pytest.raises(InputError, match="two sets or more"):
        set_overlaps({"a": neurons(0)})
    with pytest.raises(MismatchError, match="different sizes"):
        set_overlaps({"a": neurons(0), "b": neurons(0, model=other)})
    with pytest.raises(MismatchError, match="magnitudes"):
        top_overlap(neurons(0), np.ones((2, 7)))
    with pytest.raises(InputError, match="shares above 0"):
        top_overlap(neurons(0), np.ones((2, 6)), shares=(0.0,))
