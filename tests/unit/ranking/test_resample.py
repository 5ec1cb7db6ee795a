"""Class moments of chosen traces and labels against the streamed ones, which the loops of test_streamed hold."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking_samples import D_FF, FIELDS, LAYERS, NEURONS, Labelled, recording
from trimtab.errors import InputError, NotEnoughDataError
from trimtab.moments import Moments
from trimtab.ranking import Choice, ClassMoments, TraceMeans, class_moments, resample
from trimtab.tasks.contrast import ContrastRow

ALL = ("magnitude", "square", "difference", "auroc")
IDS = [f"t{i}" for i in range(24)]


def stream(data: Labelled, size: int = 5) -> Iterator[tuple[Sequence[str], Moments]]:
    for start in range(0, len(data.problems), size):
        rows = range(start, min(start + size, len(data.problems)))
        yield IDS[start : rows.stop], data.moments.take(rows)


def rows_of(data: Labelled) -> list[ContrastRow]:
    return [ContrastRow(*row) for row in zip(IDS, data.problems, data.correct, strict=True)]


def assert_same(result: ClassMoments, expected: ClassMoments) -> None:
    for name in FIELDS:
        mine, theirs = getattr(result, name), getattr(expected, name)
        assert (mine is None) is (theirs is None), name
        if mine is not None:
            np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-13, err_msg=name)
    assert (result.n_correct, result.n_incorrect, result.n_problems) == (
        expected.n_correct,
        expected.n_incorrect,
        expected.n_problems,
    )
    assert (result.counts is None) is (expected.counts is None)
    if result.counts is not None and expected.counts is not None:
        for mine, theirs in zip(result.counts, expected.counts, strict=True):
            assert (mine is None) is (theirs is None)
            if mine is not None:
                np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("statistics", [(), ("magnitude",), ("square", "difference"), ALL])
@pytest.mark.parametrize("mixture", [False, True])
def test_as_loaded_it_equals_the_streamed_moments(mixture, statistics):
    data = recording(1, mixture=mixture)
    means = TraceMeans.load(stream(data), rows_of(data), ALL)
    assert_same(means.class_moments(statistics=statistics), class_moments([data], statistics=statistics))
    assert (means.trace_ids, means.shape) == (tuple(IDS), (LAYERS, D_FF))


def expanded(data: Labelled, choice: Choice, means: TraceMeans) -> Labelled:
    """The choice written out: a trace for every time it is taken, a problem of its own for every copy."""
    problems, correct, rows = [], [], []
    for copy in range(4):
        for i in range(len(data.problems)):
            if choice.copies is None or choice.copies[means.problem[i]] > copy:
                if choice.copies is None and copy:
                    continue
                n = 1 if choice.times is None else int(choice.times[i])
                rows += [i] * n
                problems += [f"{data.problems[i]} {copy}"] * n
                correct += [bool((means.correct if choice.correct is None else choice.correct)[i])] * n
    return Labelled(data.moments.take(rows), problems, correct)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.booleans(), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_a_choice_equals_the_streamed_moments_of_the_same_traces_written_out(seed, mixture, parts):
    rng = np.random.default_rng(seed)
    data = recording(seed % 7, mixture=mixture)
    means = TraceMeans.load(stream(data), rows_of(data), ALL)
    choices = [
        Choice(
            correct=means.shuffled(rng) if parts[0] else None,
            times=rng.integers(0, 3, 24) if parts[1] else None,
            copies=rng.integers(0, 4, len(means.problems)) if parts[2] else None,
        )
        for _ in range(3)
    ]
    written = [expanded(data, choice, means) for choice in choices]
    if any(len(set(each.correct)) < 2 for each in written):
        with pytest.raises(NotEnoughDataError, match="a contrast needs correct and incorrect traces"):
            list(means.resampled(choices, ALL))
        return
    for result, each in zip(means.resampled(choices, ALL), written, strict=True):
        assert_same(result, class_moments([each], statistics=ALL))


def test_blocks_and_batches_change_nothing(monkeypatch):
    data = recording(2, mixture=True)
    means = TraceMeans.load(stream(data), rows_of(data), ALL)
    rng = np.random.default_rng(0)
    choices = [Choice(correct=means.shuffled(rng)) for _ in range(7)]
    whole = list(means.resampled(choices, ALL))
    monkeypatch.setattr("trimtab.ranking.resample._BLOCK_BYTES", 8 * 24 * 5)
    monkeypatch.setattr(resample, "_MOST_AT_ONCE", 3)
    for mine, theirs in zip(means.resampled(choices, ALL), whole, strict=True):
        assert_same(mine, theirs)


def test_labels_are_shuffled_within_problems_only():
    data = recording(3)
    means = TraceMeans.load(stream(data), rows_of(data), ())
    rng = np.random.default_rng(0)
    drawn = [means.shuffled(rng) for _ in range(50)]
    for labels in drawn:
        for problem in range(len(means.problems)):
            own = means.problem == problem
            assert labels[own].sum() == means.correct[own].sum()
    assert len({labels.tobytes() for labels in drawn}) > 10
    np.testing.assert_array_equal(means.shuffled(np.random.default_rng(0)), drawn[0])


def test_rows_decide_what_is_loaded_and_in_which_order():
    data = recording(4)
    chosen = [20, 3, 7, 11, 2, 14]
    means = TraceMeans.load(stream(data), [rows_of(data)[i] for i in chosen], ALL)
    assert means.trace_ids == tuple(IDS[i] for i in chosen)
    assert [means.problems[i] for i in means.problem] == [data.problems[i] for i in chosen]
    assert_same(means.class_moments(statistics=ALL), class_moments([data.take(chosen)], statistics=ALL))


def test_zero_variance_is_exact():
    sums = np.array([0.1, 0.3, 0.1, 0.3, 0.1, 0.3], np.float32).reshape(-1, 1, 1)
    data = Labelled(Moments(np.ones(6, np.int64), sums), ["a", "a", "b", "b", "c", "c"], [True, False] * 3)
    means = TraceMeans.load([(IDS[:6], data.moments)], [ContrastRow(*row) for row in zip(IDS, *data[1:], strict=False)])
    assert means.class_moments().difference_variance == 0


def test_the_memory_bound_is_held_and_named():
    data = recording(0)
    size = 4 * 24 * NEURONS * 4  # mean, magnitude, rms and square
    TraceMeans.load(stream(data), rows_of(data), max_bytes=size)
    with pytest.raises(InputError, match=f"24 traces of {NEURONS} neurons with mean, magnitude, rms, square take"):
        TraceMeans.load(stream(data), rows_of(data), max_bytes=size - 1)
    TraceMeans.load(stream(data), rows_of(data), (), max_bytes=size // 4)


def test_what_cannot_be_loaded():
    data = recording(0)
    assert data.moments.sum is not None
    with pytest.raises(NotEnoughDataError, match="0 correct and 0 incorrect"):
        TraceMeans.load(stream(data), [])
    with pytest.raises(InputError, match="not in the recording, such as gone"):
        TraceMeans.load(stream(data), [*rows_of(data), ContrastRow("gone", "p0", True)])
    data.moments.sum[3, 1, 0] = np.nan
    with pytest.raises(InputError, match="1 of 24 traces hold NaN"):
        TraceMeans.load(stream(data), rows_of(data))


@pytest.mark.parametrize(
    ("choice", "named"),
    [
        (Choice(correct=np.ones(23, np.bool_)), r"correct of bool \[23\]"),
        (Choice(correct=np.ones(24, np.int64)), r"correct of int64 \[24\]"),  # type: ignore[arg-type]
        (Choice(times=-np.ones(24, np.int64)), r"times of int64 \[24\], or below 0; give int64 \[24\]"),
        (Choice(copies=np.ones(5, np.int64)), r"copies of int64 \[5\], or below 0; give int64 \[4\]"),
    ],
)
def test_a_choice_that_does_not_fit(choice, named):
    data = recording(0)
    with pytest.raises(InputError, match=f"a choice has {named}"):
        TraceMeans.load(stream(data), rows_of(data), ()).class_moments(choice)
