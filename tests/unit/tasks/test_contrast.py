"""Which traces are compared."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import NotEnoughDataError
from trimtab.tasks.contrast import ContrastSettings, choose_contrast
from trimtab.traces import Score, ScoredTrace, Trace

RIGHT, WRONG, UNSCORED = Score.CORRECT, Score.INCORRECT, Score.UNSCORED


def _graded(*rows: tuple[str, Score] | tuple[str, Score, str] | tuple[str, Score, str, bool | None]):
    """Traces and grades from (problem, verdict, finish, quality)."""
    traces, grades, counter = [], [], Counter()
    for problem, verdict, *rest in rows:
        name = f"{problem}/{counter[problem]}"
        counter[problem] += 1
        traces.append(Trace(name, problem, 0, (1,), (2, 3), "", rest[0] if rest else "stop"))
        grades.append(ScoredTrace(name, problem, verdict, "", "", rest[1] if len(rest) > 1 else None))
    return traces, grades


def test_only_problems_with_both_verdicts_and_equal_numbers() -> None:
    traces, grades = _graded(
        *[("a", RIGHT)] * 3, *[("a", WRONG)] * 2, *[("b", RIGHT)] * 4, *[("c", WRONG)] * 4, ("d", RIGHT), *[("d", WRONG)] * 5
    )
    rows, counts = choose_contrast(traces, grades, ContrastSettings())
    per = Counter((row.problem_id, row.correct) for row in rows)
    assert per == {("a", True): 2, ("a", False): 2, ("d", True): 1, ("d", False): 1}
    assert counts.to_json() == {
        "traces": 19,
        "unscored": 0,
        "truncated_left_out": 0,
        "empty_left_out": 0,
        "quality_left_out": 0,
        "problems_one_sided": 2,
        "problems": 2,
        "correct": 3,
        "incorrect": 3,
    }
    verdicts = {grade.trace_id: grade.score for grade in grades}
    assert all(row.correct == (verdicts[row.trace_id] is RIGHT) for row in rows)


def test_unbalanced_and_per_class() -> None:
    traces, grades = _graded(*[("a", RIGHT)] * 5, *[("a", WRONG)] * 2)
    both = Counter(row.correct for row in choose_contrast(traces, grades, ContrastSettings(balanced=False))[0])
    assert both == {True: 5, False: 2}
    bounded = choose_contrast(traces, grades, ContrastSettings(balanced=False, per_class=3))[0]
    assert Counter(row.correct for row in bounded) == {True: 3, False: 2}
    one = choose_contrast(traces, grades, ContrastSettings(per_class=1))[0]
    assert Counter(row.correct for row in one) == {True: 1, False: 1}


def test_truncated_and_unscored_traces_stay_out_and_are_counted() -> None:
    traces, grades = _graded(
        ("a", RIGHT), ("a", WRONG), ("a", WRONG, "length"), ("a", UNSCORED), ("b", RIGHT), ("b", WRONG, "length")
    )
    rows, counts = choose_contrast(traces, grades, ContrastSettings())
    assert {row.trace_id for row in rows} == {"a/0", "a/1"}
    assert (counts.truncated_left_out, counts.unscored, counts.problems_one_sided) == (2, 1, 1)
    rows, counts = choose_contrast(traces, grades, ContrastSettings(truncated=True))
    assert {row.problem_id for row in rows} == {"a", "b"}
    assert counts.truncated_left_out == 0


def test_required_quality_leaves_out_right_answers_with_wrong_or_unknown_steps() -> None:
    traces, grades = _graded(
        ("a", RIGHT, "stop", True), ("a", RIGHT, "stop", False), ("a", RIGHT), ("a", WRONG, "stop", False), ("a", WRONG)
    )
    rows, counts = choose_contrast(traces, grades, ContrastSettings(require_quality=True))
    assert [row.trace_id for row in rows if row.correct] == ["a/0"]
    assert (counts.quality_left_out, counts.correct, counts.incorrect) == (2, 1, 1)
    assert choose_contrast(traces, grades, ContrastSettings())[1].quality_left_out == 0


def test_responses_of_one_token_stay_out_and_are_counted() -> None:
    """Their one token was never forwarded, so nothing could be recorded."""
    traces, grades = _graded(("a", RIGHT), ("a", WRONG), ("a", WRONG))
    traces[2] = replace(traces[2], response_ids=(2,))
    rows, counts = choose_contrast(traces, grades, ContrastSettings(balanced=False))
    assert {row.trace_id for row in rows} == {"a/0", "a/1"}
    assert counts.empty_left_out == 1


@pytest.mark.parametrize("only", [RIGHT, WRONG])
def test_an_empty_class_says_what_there_was(only: Score) -> None:
    traces, grades = _graded(("a", only), ("b", only), ("b", WRONG, "length"), ("c", UNSCORED))
    numbers = r"2 correct, 0 incorrect" if only is RIGHT else r"0 correct, 2 incorrect"
    with pytest.raises(
        NotEnoughDataError,
        match=rf"no problem has both .* \({numbers} over 2 problems, 1 truncated, 0 empty and 1 unscored left out\); sample more",
    ):
        choose_contrast(traces, grades, ContrastSettings())


def test_classes_in_different_problems_make_no_contrast() -> None:
    traces, grades = _graded(("a", RIGHT), ("b", WRONG))
    with pytest.raises(NotEnoughDataError, match="1 correct, 1 incorrect over 2 problems"):
        choose_contrast(traces, grades, ContrastSettings())


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(list(Score))), min_size=1, max_size=40), st.integers(0, 3))
def test_laws(rows: list[tuple[str, Score]], per_class: int) -> None:
    traces, grades = _graded(*rows)
    settings = ContrastSettings(per_class=per_class, seed=1)
    try:
        chosen, counts = choose_contrast(traces, grades, settings)
    except NotEnoughDataError:
        per = {problem: {v for p, v in rows if p == problem} for problem in "abcd"}
        assert not any({RIGHT, WRONG} <= verdicts for verdicts in per.values())
        return
    assert len({row.trace_id for row in chosen}) == len(chosen)
    for problem in {row.problem_id for row in chosen}:
        sizes = [sum(row.correct is side for row in chosen if row.problem_id == problem) for side in (True, False)]
        assert sizes[0] == sizes[1] > 0
        assert not per_class or sizes[0] <= per_class
    assert counts.correct == counts.incorrect == len(chosen) / 2
    assert (chosen, counts) == choose_contrast(traces[::-1], grades, settings)
