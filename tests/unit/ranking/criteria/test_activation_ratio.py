"""The activation ratio against loops in plain Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ranking_samples import contrast
from trimtab.errors import InputError
from trimtab.ranking.criteria import activation_ratio

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


def naive(
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
def test_equals_loops(pair, threshold, share, per_layer):
    ranking = activation_ratio.score(of(pair[0], pair[1]), threshold=threshold, share=share, per_layer=per_layer)
    assert ranking.order.tolist() == naive(pair[0].tolist(), pair[1].tolist(), threshold, share, per_layer)
    assert ranking.facts["zero_denominator"] == int((pair[1] == 0).sum())


def test_by_hand():
    # 20 neurons, so the top 10 % are two: q = 3 and 2; the third, 1.5, is above the threshold and too late
    correct_mean = np.full(20, 1.0)
    correct_mean[[4, 9, 17]] = 2.0, 3.0, 1.5
    ranking = activation_ratio.score(of(correct_mean, np.ones(20)))
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
    assert activation_ratio.score(of(correct_mean, np.ones(20)), threshold=2.0).order.tolist() == [9]


def test_the_threshold_itself_is_not_above_it():
    assert activation_ratio.score(of([1.5, 2.0], [1.0, 1.0]), threshold=1.5, share=1.0).order.tolist() == [1]


def test_rms_is_compared_when_asked_for():
    moments = of([1.0, 9.0], [1.0, 1.0], correct_rms=[4.0, 1.0], incorrect_rms=[2.0, 1.0])
    ranking = activation_ratio.score(moments, moment="rms", share=1.0)
    assert ranking.order.tolist() == [0]
    assert ranking.facts["moment"] == "rms"
    with pytest.raises(InputError, match="criterion 'activation-ratio' reads 'square'"):
        activation_ratio.score(of([1.0], [1.0]), moment="rms")


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
def test_bad_parameters(parameters, message):
    with pytest.raises(InputError, match=message):
        activation_ratio.score(of([1.0], [1.0]), **parameters)
