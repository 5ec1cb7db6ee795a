"""Answers are run once, and only for splits that may be read; moments come from the recording."""

import numpy as np
import pytest

from search_samples import changed
from trimtab.errors import InputError
from trimtab.experiments import Search
from trimtab.experiments import search as module
from trimtab.ranking import class_moments, labelled
from trimtab.traces import Split


def test_the_same_steering_is_answered_once(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = search.split(Split.VALIDATION)[:6]
    first = search.answers(Split.VALIDATION, search.steering, "on", problems)
    assert [outcome.problem_id for outcome in first] == [problem.id for problem in problems]

    def forbidden(*args: object, **options: object) -> None:
        raise AssertionError("a forward ran")

    monkeypatch.setattr("trimtab.sampling.generator.generate_batch", forbidden)
    assert search.answers(Split.VALIDATION, search.steering, "on", problems) == first


def test_a_split_that_was_kept_from_it_is_refused(search: Search) -> None:
    kept = changed(search, problems={Split.VALIDATION: search.split(Split.VALIDATION)})
    with pytest.raises(InputError, match="must not read the test split"):
        kept.answers(Split.TEST, None)
    with pytest.raises(InputError, match="outside the validation split"):
        kept.answers(Split.VALIDATION, None, problems=search.split(Split.TEST)[:2])


def test_moments_of_some_rows_are_those_of_their_traces(search: Search) -> None:
    problems = {row.problem_id for row in search.contrast[: len(search.contrast) // 2]}
    rows = [row for row in search.contrast if row.problem_id in problems]
    expected = class_moments(labelled(search.recording.stream(search.scope), rows))
    found = search.moments_of(rows)
    np.testing.assert_allclose(found.mean_difference, expected.mean_difference, rtol=1e-12)
    assert (found.n_correct, found.n_incorrect) == (expected.n_correct, expected.n_incorrect)


def test_a_criterion_that_was_not_recorded_for_has_no_ranking(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    assert search.ranking("wanda") is not None
    poor = changed(search)
    monkeypatch.setattr(module, "STATISTICS", frozenset(("difference",)))
    assert poor.ranking("wanda") is None
    assert poor.ranking("mean-difference") is not None
