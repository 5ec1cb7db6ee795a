"""Class moments against loops over traces in plain Python."""

import numpy as np
import pytest

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.moments import Moments
from trimtab.ranking import ClassMoments, class_moments

LAYERS, D_FF = 2, 5


def recording(seed: int, n: int = 24, problems: int = 4) -> tuple[Moments, list[str], list[bool]]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, LAYERS, D_FF)).astype(np.float32)
    moments = Moments(rng.integers(1, 9, n), values, np.abs(values) + 1)
    names = [f"p{i}" for i in rng.integers(0, problems, n)]
    return moments, names, [bool(flag) for flag in rng.random(n) < 0.5]


def rows(moments: Moments, chosen: list[int]) -> Moments:
    assert moments.sum is not None
    magnitude = None if moments.magnitude is None else moments.magnitude[chosen]
    return Moments(moments.count[chosen], moments.sum[chosen], magnitude)


def split(moments: Moments, names: list[str], correct: list[bool], parts: list[list[int]]):
    for chosen in parts:
        yield rows(moments, chosen), [names[i] for i in chosen], [correct[i] for i in chosen]


def naive(moments: Moments, names: list[str], correct: list[bool], layer: int, index: int) -> tuple[float, ...]:
    assert moments.sum is not None
    assert moments.magnitude is not None
    means = [float(moments.sum[i, layer, index]) / int(moments.count[i]) for i in range(len(names))]
    sizes = [float(moments.magnitude[i, layer, index]) / int(moments.count[i]) for i in range(len(names))]

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    differences = []
    for name in sorted(set(names)):
        good = [m for m, n, c in zip(means, names, correct, strict=True) if n == name and c]
        bad = [m for m, n, c in zip(means, names, correct, strict=True) if n == name and not c]
        if good and bad:
            differences.append(mean(good) - mean(bad))
    centre = mean(differences)
    variance = sum((d - centre) ** 2 for d in differences) / (len(differences) - 1)
    by_class = [
        mean([v for v, c in zip(values, correct, strict=True) if c == k]) for values in (means, sizes) for k in (True, False)
    ]
    return *by_class, centre, variance


def columns(moments: ClassMoments, layer: int, index: int) -> list[float]:
    arrays = (
        moments.good_mean,
        moments.bad_mean,
        moments.good_magnitude,
        moments.bad_magnitude,
        moments.difference_mean,
        moments.difference_variance,
    )
    return [float(array[layer, index]) for array in arrays if array is not None]


@pytest.mark.parametrize("seed", range(3))
def test_equals_loops_over_traces(seed):
    moments, names, correct = recording(seed)
    result = class_moments([(moments, names, correct)])
    assert (result.n_good, result.n_bad) == (sum(correct), len(correct) - sum(correct))
    for layer in range(LAYERS):
        for index in range(D_FF):
            np.testing.assert_allclose(columns(result, layer, index), naive(moments, names, correct, layer, index), rtol=1e-5)


def test_every_trace_weighs_the_same_however_long():
    sums = np.array([[[10.0]], [[2.0]], [[1.0]]], np.float32)
    result = class_moments([(Moments(np.array([10, 1, 1]), sums), ["a", "a", "a"], [True, True, False])])
    assert result.good_mean[0, 0] == 1.5
    assert result.delta[0, 0] == 0.5


def test_traces_of_a_problem_may_be_spread_over_parts():
    moments, names, correct = recording(3)
    whole = class_moments([(moments, names, correct)])
    apart = class_moments(split(moments, names, correct, [[5, 1, 9], [], [0, 2, 3, 4, *range(10, 24)], [6, 7, 8]]))
    for name in ("good_mean", "bad_mean", "good_magnitude", "difference_mean", "difference_variance"):
        np.testing.assert_allclose(getattr(apart, name), getattr(whole, name), rtol=1e-12, atol=1e-15)
    assert apart.n_problems == whole.n_problems


def test_announced_counts_close_problems_early_and_change_nothing():
    moments, names, correct = recording(4)
    counts = {name: names.count(name) for name in names}
    whole = class_moments([(moments, names, correct)])
    closed = class_moments(split(moments, names, correct, [list(range(12)), list(range(12, 24))]), traces_per_problem=counts)
    np.testing.assert_allclose(closed.difference_mean, whole.difference_mean, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(closed.difference_variance, whole.difference_variance, rtol=1e-12)


def test_more_traces_than_announced_are_an_error():
    moments, names, correct = recording(5)
    counts = {name: names.count(name) for name in names}
    with pytest.raises(InputError, match="more traces than the 0 announced"):
        class_moments([(moments, names, correct)], traces_per_problem={**counts, names[0]: 0})
    with pytest.raises(InputError, match="more traces"):
        class_moments([(moments, names, correct)], traces_per_problem={**counts, names[0]: 1})


def test_problems_with_one_verdict_count_in_the_means_only():
    sums = np.array([[[4.0]], [[1.0]], [[7.0]]], np.float32)
    result = class_moments([(Moments(np.array([1, 1, 1]), sums), ["a", "a", "b"], [True, False, True])])
    assert result.n_problems == 1
    assert result.good_mean[0, 0] == 5.5
    assert result.difference_mean[0, 0] == 3.0
    assert np.isnan(result.difference_variance).all()


def test_no_problem_with_both_verdicts_has_no_difference():
    sums = np.ones((2, 1, 1), np.float32)
    result = class_moments([(Moments(np.array([1, 1]), sums), ["a", "b"], [True, False])])
    assert result.n_problems == 0
    assert np.isnan(result.difference_mean).all()


def test_non_finite_activations_name_all_traces_and_the_first_layer():
    moments, names, correct = recording(6)
    assert moments.sum is not None
    assert moments.magnitude is not None
    moments.sum[3, 1, 0] = np.nan
    moments.sum[20, 1, 2] = -np.inf
    moments.magnitude[20, 1, 2] = np.inf
    with pytest.raises(InputError, match="2 of 24 traces hold NaN or infinite activations, first in layer 1"):
        class_moments(split(moments, names, correct, [list(range(12)), list(range(12, 24))]))


@pytest.mark.parametrize("flag", [True, False])
def test_an_empty_class_names_both_counts(flag):
    moments, names, _ = recording(7)
    counts = "24 correct and 0 incorrect" if flag else "0 correct and 24 incorrect"
    with pytest.raises(NotEnoughDataError, match=counts):
        class_moments([(moments, names, [flag] * 24)])


def test_no_part_at_all():
    with pytest.raises(NotEnoughDataError, match="0 correct and 0 incorrect"):
        class_moments([])


def test_parts_that_do_not_fit_together():
    moments, names, correct = recording(8)
    other = Moments(np.array([1]), np.ones((1, LAYERS, D_FF + 1), np.float32), np.ones((1, LAYERS, D_FF + 1), np.float32))
    with pytest.raises(InputError, match="parts of one recording differ"):
        class_moments([(moments, names, correct), (other, ["p0"], [True])])
    bare = Moments(moments.count, moments.sum)
    with pytest.raises(InputError, match="magnitude recorded True and False"):
        class_moments([(moments, names, correct), (bare, names, correct)])
    with pytest.raises(InputError, match="give one each"):
        class_moments([(moments, names[1:], correct)])


def test_without_magnitudes():
    moments, names, correct = recording(9)
    result = class_moments([(Moments(moments.count, moments.sum), names, correct)])
    assert result.good_magnitude is None
    assert result.bad_magnitude is None
