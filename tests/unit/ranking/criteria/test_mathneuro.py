"""Active in correct and not in incorrect reasoning, against loops in plain Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ranking_samples import contrast
from trimtab.errors import InputError
from trimtab.ranking.criteria import mathneuro

magnitudes = hnp.arrays(np.float64, (2, 2, 10), elements=st.integers(0, 6).map(lambda i: i / 4))


def of(correct_mean, incorrect_mean):
    return contrast(
        np.ones_like(correct_mean),
        np.zeros_like(correct_mean),
        correct_magnitude=correct_mean,
        incorrect_magnitude=incorrect_mean,
    )


def naive(correct_mean: list[float], incorrect_mean: list[float], share: float) -> list[int]:
    def top(values: list[float]) -> list[int]:
        active = sorted((i for i in range(len(values)) if values[i] > 0), key=lambda i: (-values[i], i))
        return active[: max(1, round(share * len(values)))]

    return [i for i in top(correct_mean) if i not in top(incorrect_mean)]


@settings(deadline=None)
@given(magnitudes, st.sampled_from([0.05, 0.25, 0.5, 1.0]))
def test_equals_loops(pair, share):
    ranking = mathneuro.score(of(pair[0], pair[1]), share=share)
    assert ranking.order.tolist() == naive(pair[0].ravel().tolist(), pair[1].ravel().tolist(), share)
    assert ranking.facts["top_share"] == share


@settings(deadline=None)
@given(magnitudes, st.integers(1, 8))
def test_the_smallest_share_that_leaves_k(pair, k):
    moments = of(pair[0], pair[1])
    left = [len(naive(pair[0].ravel().tolist(), pair[1].ravel().tolist(), n / 20)) for n in range(1, 21)]
    if max(left) < k:
        with pytest.raises(InputError, match=f"leaves at most {max(left)} neurons at any share, not {k}"):
            mathneuro.share_for(moments, k)
    else:
        share = mathneuro.share_for(moments, k)
        assert share == next(n for n in range(1, 21) if left[n - 1] >= k) / 20
        assert len(mathneuro.score(moments, share=share).order) >= k


def test_by_hand():
    # the top halves are {0, 2} and {2, 3}
    ranking = mathneuro.score(of([5.0, 1.0, 3.0, 2.0], [1.0, 2.0, 9.0, 8.0]), share=0.5)
    assert ranking.order.tolist() == [0]
    assert ranking.score.tolist() == [5.0]
    assert ranking.facts == {"top_share": 0.5, "in_both_tops": 1}
