"""Norm over tokens times norm of the column."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest

from ranking_samples import contrast, recording
from trimtab.errors import InputError
from trimtab.ranking import class_moments, column_norms
from trimtab.ranking.criteria import wanda


def test_equals_loops_over_tokens_and_rows():
    rng = np.random.default_rng(0)
    data = recording(0)
    assert data.moments.square is not None
    down = {layer: rng.normal(size=(7, 6)).astype(np.float32) for layer in range(2)}
    down[1][:, 4] = 0
    scores = {}
    for layer in range(2):
        for index in range(6):
            tokens = sum(float(data.moments.square[i, layer, index]) for i in range(24) if data.correct[i])
            column = sum(float(down[layer][row, index]) ** 2 for row in range(7))
            if tokens * column > 0:
                scores[layer * 6 + index] = sqrt(tokens) * sqrt(column)
    ranking = wanda.score(contrast_of(data, down))
    assert ranking.order.tolist() == sorted(scores, key=lambda address: -scores[address])
    np.testing.assert_allclose(ranking.score, [scores[address] for address in ranking.order])


def contrast_of(data, down):
    return replace(class_moments([data]), column_norm=column_norms(down))


def test_missing_column_norms_say_where_they_come_from():
    with pytest.raises(InputError, match=r"reads 'column_norm'.*column_norms\(down_weights"):
        wanda.score(contrast([1.0], [0.0], correct_norm=[1.0]))
