"""Criteria that read magnitudes, against loops in plain Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ranking_samples import contrast
from trimtab.errors import InputError
from trimtab.ranking.criteria import activation_ratio, mathneuro, share_for, top_activation

# exact quarters, so that equal ratios are equal and ties and zeros are real
magnitudes = hnp.arrays(np.float64, (2, 3, 10), elements=st.integers(0, 8).map(lambda i: i / 4))


def of(correct_mean, incorrect_mean, **fields):
    return contrast(
        np.ones_like(correct_mean),
        np.zeros_like(correct_mean),
        correct_magnitude=correct_mean,
        incorrect_magnitude=incorrect_mean,
        **fields,
    )


def naive_ratio(
    correct_mean: list[list[float]], incorrect_mean: list[list[float]], threshold: float, share: float, per_layer: bool
) -> list[int]:
    d_ff = len(correct_mean[0])
    ratios = [
        (-g / b, layer * d_ff + index)
        for layer, (row_good, row_bad) in enumerate(zip(correct_mean, incorrect_mean, strict=True))
        for index, (g, b) in enumerate(zip(row_good, row_bad, strict=True))
        if b != 0
    ]
    kept = []
    for group in [[layer] for layer in range(len(correct_mean))] if per_layer else [list(range(len(correct_mean)))]:
        own = sorted(ratio for ratio in ratios if ratio[1] // d_ff in group)
        kept += own[: max(1, round(share * len(group) * d_ff))]
    return [address for q, address in sorted(kept) if -q > threshold]


@settings(deadline=None)
@given(magnitudes, st.sampled_from([0.5, 1.0, 1.15]), st.sampled_from([0.01, 0.1, 0.33, 1.0]), st.booleans())
def test_ratio_equals_loops(pair, threshold, share, per_layer):
    ranking = activation_ratio(of(pair[0], pair[1]), threshold=threshold, share=share, per_layer=per_layer)
    assert ranking.order.tolist() == naive_ratio(pair[0].tolist(), pair[1].tolist(), threshold, share, per_layer)
    assert ranking.facts["zero_denominator"] == int((pair[1] == 0).sum())


def test_ratio_by_hand():
    # 20 neurons, so the top 10 % are two: q = 3 and 2; the third, 1.5, is above the threshold and too late
    correct_mean = np.full(20, 1.0)
    correct_mean[[4, 9, 17]] = 2.0, 3.0, 1.5
    ranking = activation_ratio(of(correct_mean, np.ones(20)))
    assert ranking.order.tolist() == [9, 4]
    assert ranking.score.tolist() == [3.0, 2.0]
    assert ranking.facts == {
        "moment": "magnitude",
        "threshold": 1.15,
        "top_share": 0.1,
        "per_layer": False,
        "zero_denominator": 0,
        "in_top_share": 2,
    }
    assert activation_ratio(of(correct_mean, np.ones(20)), threshold=2.0).order.tolist() == [9]


def test_the_threshold_itself_is_not_above_it():
    assert activation_ratio(of([1.5, 2.0], [1.0, 1.0]), threshold=1.5, share=1.0).order.tolist() == [1]


def test_rms_is_compared_when_asked_for():
    moments = of([1.0, 9.0], [1.0, 1.0], correct_rms=[4.0, 1.0], incorrect_rms=[2.0, 1.0])
    ranking = activation_ratio(moments, moment="rms", share=1.0)
    assert ranking.order.tolist() == [0]
    assert ranking.facts["moment"] == "rms"
    with pytest.raises(InputError, match="criterion 'activation-ratio' reads 'square'"):
        activation_ratio(of([1.0], [1.0]), moment="rms")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"share": 0.0}, r"top share of neurons is 0\.0"),
        ({"share": 1.5}, r"top share of neurons is 1\.5"),
        ({"threshold": -1.0}, "a ratio of magnitudes is 0 or more"),
        ({"threshold": float("nan")}, "threshold nan"),
        ({"moment": "mean"}, "got the moment 'mean'; accepted: magnitude, rms"),
    ],
)
def test_ratio_bad_parameters(parameters, message):
    with pytest.raises(InputError, match=message):
        activation_ratio(of([1.0], [1.0]), **parameters)


few_magnitudes = hnp.arrays(np.float64, (2, 2, 10), elements=st.integers(0, 6).map(lambda i: i / 4))


def naive_mathneuro(correct_mean: list[float], incorrect_mean: list[float], share: float) -> list[int]:
    def top(values: list[float]) -> list[int]:
        active = sorted((i for i in range(len(values)) if values[i] > 0), key=lambda i: (-values[i], i))
        return active[: max(1, round(share * len(values)))]

    return [i for i in top(correct_mean) if i not in top(incorrect_mean)]


@settings(deadline=None)
@given(few_magnitudes, st.sampled_from([0.05, 0.25, 0.5, 1.0]))
def test_mathneuro_equals_loops(pair, share):
    ranking = mathneuro(of(pair[0], pair[1]), share=share)
    assert ranking.order.tolist() == naive_mathneuro(pair[0].ravel().tolist(), pair[1].ravel().tolist(), share)
    assert ranking.facts["top_share"] == share


@settings(deadline=None)
@given(few_magnitudes, st.integers(1, 8))
def test_the_smallest_share_that_leaves_k(pair, k):
    moments = of(pair[0], pair[1])
    left = [len(naive_mathneuro(pair[0].ravel().tolist(), pair[1].ravel().tolist(), n / 20)) for n in range(1, 21)]
    if max(left) < k:
        with pytest.raises(InputError, match=f"leaves at most {max(left)} neurons at any share, not {k}"):
            share_for(moments, k)
    else:
        share = share_for(moments, k)
        assert share == next(n for n in range(1, 21) if left[n - 1] >= k) / 20
        assert len(mathneuro(moments, share=share).order) >= k


def test_mathneuro_by_hand():
    # the top halves are {0, 2} and {2, 3}
    ranking = mathneuro(of([5.0, 1.0, 3.0, 2.0], [1.0, 2.0, 9.0, 8.0]), share=0.5)
    assert ranking.order.tolist() == [0]
    assert ranking.score.tolist() == [5.0]
    assert ranking.facts == {"top_share": 0.5, "in_both_tops": 1}


def test_top_activation_equals_sorting_by_magnitude_in_correct_traces():
    rng = np.random.default_rng(0)
    magnitude = rng.integers(0, 6, (3, 20)) / 2
    ranking = top_activation(contrast(rng.normal(size=(3, 20)), np.zeros((3, 20)), correct_magnitude=magnitude))
    flat = magnitude.ravel().tolist()
    assert ranking.order.tolist() == sorted((i for i in range(60) if flat[i] > 0), key=lambda i: (-flat[i], i))
    assert ranking.score.tolist() == [flat[i] for i in ranking.order]
