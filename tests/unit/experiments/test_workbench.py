"""Answers are run once, and only for splits that may be read; moments come from the recording."""

import numpy as np
import pytest

from bench_samples import changed
from trimtab.errors import InputError
from trimtab.experiments import Workbench
from trimtab.experiments import workbench as module
from trimtab.ranking import class_moments, labelled
from trimtab.traces import Split


def test_the_same_steering_is_answered_once(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = bench.split(Split.VALIDATION)[:6]
    first = bench.answers(Split.VALIDATION, bench.steering, "on", problems)
    assert [outcome.problem_id for outcome in first] == [problem.id for problem in problems]

    def forbidden(*args: object, **options: object) -> None:
        raise AssertionError("a forward ran")

    monkeypatch.setattr("trimtab.sampling.generator.generate_batch", forbidden)
    assert bench.answers(Split.VALIDATION, bench.steering, "on", problems) == first


def test_a_split_that_was_kept_from_it_is_refused(bench: Workbench) -> None:
    kept = changed(bench, problems={Split.VALIDATION: bench.split(Split.VALIDATION)})
    with pytest.raises(InputError, match="must not read the test split"):
        kept.answers(Split.TEST, None)
    with pytest.raises(InputError, match="outside the validation split"):
        kept.answers(Split.VALIDATION, None, problems=bench.split(Split.TEST)[:2])


def test_moments_of_some_rows_are_those_of_their_traces(bench: Workbench) -> None:
    problems = {row.problem_id for row in bench.contrast[: len(bench.contrast) // 2]}
    rows = [row for row in bench.contrast if row.problem_id in problems]
    expected = class_moments(labelled(bench.recording.stream(bench.scope), rows))
    found = bench.moments_of(rows)
    np.testing.assert_allclose(found.mean_difference, expected.mean_difference, rtol=1e-12)
    assert (found.n_correct, found.n_incorrect) == (expected.n_correct, expected.n_incorrect)


def test_a_criterion_that_was_not_recorded_for_has_no_ranking(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench.ranking("wanda") is not None
    poor = changed(bench)
    monkeypatch.setattr(module, "STATISTICS", frozenset(("difference",)))
    assert poor.ranking("wanda") is None
    assert poor.ranking("mean-difference") is not None
