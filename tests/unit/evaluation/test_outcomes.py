"""Responses by problem."""

import pytest

from outcome_samples import outcomes
from trimtab.errors import InputError
from trimtab.evaluation.outcomes import Outcome, by_problem, first_responses
from trimtab.store import read_table, write_table


def test_responses_are_filed_by_problem_and_key() -> None:
    rows = outcomes("a", "10", "01", seed=3)
    table = by_problem(rows)
    assert list(table) == ["p0", "p1"]
    assert list(table["p0"]) == [(3, 0), (3, 1)]
    assert [response.correct for response in table["p1"].values()] == [False, True]
    assert table["p0"][3, 1] is rows[1]


def test_first_responses_take_the_lowest_seed_and_sample() -> None:
    rows = [*outcomes("a", "10", "01", seed=3), *outcomes("a", "11", "00", seed=2)]
    assert [(row.problem_id, row.key) for row in first_responses(rows)] == [("p0", (2, 0)), ("p1", (2, 0))]


def test_a_response_twice_is_refused() -> None:
    with pytest.raises(InputError, match="condition 'a' holds two responses to 'p1' with seed 0 and sample 0"):
        by_problem([*outcomes("a", "10"), *outcomes("a", "1", start=1)])


def test_problems_with_other_responses_are_refused() -> None:
    rows = outcomes("a", "100", "010")
    with pytest.raises(InputError, match=r"'p2' has 1 \(seed, sample\) \[\(0, 0\)\], most have 2: \[\(0, 0\), \(0, 1\)\]"):
        by_problem(rows[:-1])


def test_one_response_has_number_zero_and_a_table_holds_the_numbers(tmp_path) -> None:
    rows = outcomes("a", "1u", "0t", seed=7)
    assert {(row.seed, row.sample) for row in outcomes("a", "1")} == {(0, 0)}
    write_table(tmp_path / "outcomes.parquet", rows)
    assert read_table(tmp_path / "outcomes.parquet", Outcome) == rows
    assert [row.unscored for row in rows] == [False, False, True, False]
