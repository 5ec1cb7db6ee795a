"""Class moments against loops over traces in plain Python, dense and with experts."""

import numpy as np
import pytest

from ranking_samples import D_EXPERT, D_FF, FIELDS, LAYERS, Labelled, naive_class_moments, recording
from trimtab.errors import InputError, NotEnoughDataError
from trimtab.moments import Moments
from trimtab.ranking import ClassMoments, class_moments, labelled
from trimtab.tasks.contrast import ContrastRow

ALL = ("magnitude", "square", "difference", "auroc")


def assert_equals_loops(result: ClassMoments, data: Labelled) -> None:
    expected = naive_class_moments(data)
    for name in FIELDS:
        # the trace means are float32
        np.testing.assert_allclose(getattr(result, name), expected[name], rtol=1e-5, atol=1e-7, err_msg=name)
    if result.counts is not None:
        assert result.counts.problems is not None
        np.testing.assert_array_equal(result.counts.correct, expected["n_correct"])
        np.testing.assert_array_equal(result.counts.incorrect, expected["n_incorrect"])
        np.testing.assert_array_equal(result.counts.problems, expected["n_problems"])


@pytest.mark.parametrize("mixture", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_equals_loops_over_traces(seed, mixture):
    data = recording(seed, mixture=mixture)
    labels = set(zip(data.problems, data.correct, strict=True))
    result = class_moments([data], statistics=ALL)
    assert_equals_loops(result, data)
    assert (result.n_correct, result.n_incorrect) == (sum(data.correct), len(data.correct) - sum(data.correct))
    assert result.n_problems == sum(len({c for q, c in labels if q == p}) == 2 for p in set(data.problems))
    assert (result.counts is not None) is mixture


@pytest.mark.parametrize("mixture", [False, True])
def test_traces_of_a_problem_may_be_spread_over_parts_and_problems_closed_early(mixture):
    data = recording(3, mixture=mixture)
    groups = [5, 1, 9], [], [0, 2, 3, 4, *range(10, 24)], [6, 7, 8]
    counts = {name: data.problems.count(name) for name in data.problems}
    for announced in (None, counts):
        assert_equals_loops(class_moments(data.parts(*groups), announced, ALL), data)


def test_an_expert_without_a_routed_token_has_no_mean_and_no_count():
    data = recording(0, mixture=True)
    result = class_moments([data], statistics=ALL)
    never = (slice(1, 2), slice(2 * D_EXPERT, 3 * D_EXPERT))
    assert np.isnan(result.correct_mean[never]).all()
    assert not result.comparable[never].any()
    assert result.comparable[0, :D_EXPERT].all()
    assert result.counts is not None
    assert not result.counts.correct[never].any()
    assert result.correct_norm is not None
    assert not result.correct_norm[never].any()


def test_a_trace_without_routed_tokens_does_not_pull_the_mean():
    # by hand: two correct traces of sum 6 over 2 and 3 tokens and one that is routed elsewhere
    count = np.array([[[2, 1]], [[3, 1]], [[0, 4]], [[1, 1]]])
    sums = np.array([[[6, 1.0]], [[6, 1]], [[0, 1]], [[1, 1]]], np.float32)
    moments = Moments(count, sums, tokens=np.array([3, 4, 4, 2]))
    result = class_moments([(moments, ["a"] * 4, [True, True, True, False])])
    assert result.correct_mean.tolist() == [[2.5, 0.75]]
    assert result.n_correct == 3
    assert result.counts is not None
    assert result.counts.correct.tolist() == [[2, 3]]


def test_nan_in_a_routed_token_of_an_expert_is_an_error():
    data = recording(1, mixture=True)
    assert data.moments.sum is not None
    row, layer, expert = np.argwhere(data.moments.count > 0)[0]
    data.moments.sum[row, layer, expert * D_EXPERT] = np.nan
    with pytest.raises(InputError, match=f"1 of 24 traces hold NaN or infinite activations, first in layer {layer}"):
        class_moments([data])


def test_statistics_that_are_not_asked_for_are_not_there():
    data = recording(2)
    bare = class_moments([data], statistics=())
    full = class_moments([data])
    np.testing.assert_array_equal(bare.correct_mean, full.correct_mean)
    assert bare.n_problems == full.n_problems == 3
    for name in FIELDS:
        assert (getattr(bare, name) is None) is (name not in ("correct_mean", "incorrect_mean"))
        assert (getattr(full, name) is None) is (name == "auroc")


@pytest.mark.parametrize("statistics", [["sqaure"], "auroc"])
def test_an_unknown_statistic_is_an_error(statistics):
    with pytest.raises(InputError, match="accepted: magnitude, square, difference, auroc"):
        class_moments([recording(2)], statistics=statistics)


def test_every_trace_weighs_the_same_however_long():
    sums = np.array([[[10.0]], [[2.0]], [[1.0]]], np.float32)
    result = class_moments([(Moments(np.array([10, 1, 1]), sums), ["a", "a", "a"], [True, True, False])])
    assert result.correct_mean[0, 0] == 1.5
    assert result.mean_difference[0, 0] == 0.5


def test_more_traces_than_announced_are_an_error():
    data = recording(5)
    counts = {name: data.problems.count(name) for name in data.problems}
    with pytest.raises(InputError, match="more traces than the 0 announced"):
        class_moments([data], traces_per_problem={**counts, data.problems[0]: 0})
    with pytest.raises(InputError, match="more traces"):
        class_moments([data], traces_per_problem={**counts, data.problems[0]: 1}, statistics=())


def test_problems_with_one_verdict_count_in_the_means_only():
    sums = np.array([[[4.0]], [[1.0]], [[7.0]]], np.float32)
    result = class_moments([(Moments(np.array([1, 1, 1]), sums), ["a", "a", "b"], [True, False, True])], statistics=ALL)
    assert result.n_problems == 1
    assert result.correct_mean[0, 0] == 5.5
    assert result.difference_mean == 3.0
    assert result.auroc == 1.0
    assert result.difference_variance is not None
    assert np.isnan(result.difference_variance).all()


def test_no_problem_with_both_verdicts_has_no_difference():
    sums = np.ones((2, 1, 1), np.float32)
    result = class_moments([(Moments(np.array([1, 1]), sums), ["a", "b"], [True, False])], statistics=ALL)
    assert result.n_problems == 0
    for values in (result.difference_mean, result.difference_variance, result.auroc):
        assert values is not None
        assert np.isnan(values).all()


def test_the_same_difference_in_every_problem_has_variance_zero_exactly():
    sums = np.array([0.1, 0.3, 0.1, 0.3, 0.1, 0.3], np.float32).reshape(-1, 1, 1)
    result = class_moments([(Moments(np.ones(6, np.int64), sums), ["a", "a", "b", "b", "c", "c"], [True, False] * 3)])
    assert result.difference_variance == 0


def test_non_finite_activations_name_all_traces_and_the_first_layer():
    data = recording(6)
    assert data.moments.sum is not None
    assert data.moments.magnitude is not None
    data.moments.sum[3, 1, 0] = np.nan
    data.moments.sum[20, 1, 2] = -np.inf
    data.moments.magnitude[20, 1, 2] = np.inf
    with pytest.raises(InputError, match="2 of 24 traces hold NaN or infinite activations, first in layer 1"):
        class_moments(data.parts(range(12), range(12, 24)))


@pytest.mark.parametrize("flag", [True, False])
def test_an_empty_class_names_both_counts(flag):
    data = recording(7)
    counts = "24 correct and 0 incorrect" if flag else "0 correct and 24 incorrect"
    with pytest.raises(NotEnoughDataError, match=counts):
        class_moments([data._replace(correct=[flag] * 24)])


def test_no_part_at_all():
    with pytest.raises(NotEnoughDataError, match="0 correct and 0 incorrect"):
        class_moments([])


def test_parts_that_do_not_fit_together():
    data = recording(8)
    wide = np.ones((1, LAYERS, D_FF + 1), np.float32)
    with pytest.raises(InputError, match=rf"parts of one recording differ: \[layer, d_ff\] \[2, {D_FF}\] and \[2, {D_FF + 1}\]"):
        class_moments([data, (Moments(np.array([1]), wide, wide, wide), ["p0"], [True])])
    bare = data._replace(moments=Moments(data.moments.count, data.moments.sum))
    with pytest.raises(InputError, match="values mean, magnitude, rms, square and mean;"):
        class_moments([data, bare])
    with pytest.raises(InputError, match="give one each"):
        class_moments([data._replace(problems=data.problems[1:])])


def test_labels_by_trace_id_leave_out_traces_without_a_row():
    data = recording(9)
    ids = [f"t{i}" for i in range(24)]
    rows = [ContrastRow(ids[i], data.problems[i], data.correct[i]) for i in range(23, 4, -1)]
    stream = [(ids[start : start + 4], data.moments.take(range(start, start + 4))) for start in range(0, 24, 4)]
    result = class_moments(labelled(stream, rows), statistics=ALL)
    assert_equals_loops(result, data.take(range(5, 24)))


def test_a_row_without_a_trace_or_given_twice_is_an_error():
    data = recording(9)
    rows = [ContrastRow("t1", "p1", True), ContrastRow("gone", "p1", False)]
    with pytest.raises(InputError, match="1 traces of the contrast are not in the recording, such as gone"):
        list(labelled([(["t0", "t1"], data.moments.take([0, 1]))], rows))
    with pytest.raises(InputError, match="2 rows name 1 different traces"):
        list(labelled([], [rows[0], rows[0]]))
