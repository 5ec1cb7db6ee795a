"""The most active neurons."""

import numpy as np

from ranking_samples import contrast
from trimtab.ranking.criteria import top_activation


def test_equals_sorting_by_magnitude_in_correct_traces():
    rng = np.random.default_rng(0)
    magnitude = rng.integers(0, 6, (3, 20)) / 2
    ranking = top_activation.score(contrast(rng.normal(size=(3, 20)), np.zeros((3, 20)), correct_magnitude=magnitude))
    flat = magnitude.ravel().tolist()
    assert ranking.order.tolist() == sorted((i for i in range(60) if flat[i] > 0), key=lambda i: (-flat[i], i))
    assert ranking.score.tolist() == [flat[i] for i in ranking.order]
