"""Votes counted by hand."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InputError
from trimtab.evaluation.majority import majority, majority_at_cost
from trimtab.evaluation.outcomes import Outcome
from trimtab.traces import Score

GOLD = "7"


def response(
    answer: str, sample: int, *, problem: str = "p0", score: Score | None = None, tokens: int = 10, seed: int = 0
) -> Outcome:
    """A sampled response; ``?`` is one that the grader could not read, ``!x`` one whose answer x it could not judge."""
    unscored = answer.startswith(("?", "!"))
    text = answer.lstrip("?!")
    judged = Score.UNSCORED if unscored else Score.CORRECT if text == GOLD else Score.INCORRECT
    reason = {"": "no answer found", GOLD: "equals the gold answer"}.get(text, "differs from the gold answer 7")
    return Outcome(
        condition="sampled",
        problem_id=problem,
        domain="d",
        difficulty=3,
        score=score or judged,
        reason="the grader failed" if unscored else reason,
        answer=text,
        response=f"response {sample} says {text}",
        tokens=tokens,
        truncated=text == "",
        steps_right=sample == 0,
        p_fail=0.5,
        fired=True,
        sample=sample,
        seed=seed,
    )


def vote(*answers: str) -> Outcome:
    (outcome,) = majority([response(answer, sample) for sample, answer in enumerate(answers)])
    return outcome


def test_the_commonest_answer_wins_with_its_verdict() -> None:
    won = vote("3", "7", "7", "4", "7")
    assert (won.score, won.answer, won.response, won.tokens) == (Score.CORRECT, "7", "response 1 says 7", 50)
    assert won.reason == "3 of 5 responses say 7, 1 say 3: equals the gold answer"
    assert (won.condition, won.problem_id, won.domain, won.difficulty) == ("majority", "p0", "d", 3)
    assert (won.sample, won.seed, won.p_fail, won.fired, won.truncated) == (0, 0, None, None, False)
    lost = vote("7", "3", "3")
    assert (lost.score, lost.answer) == (Score.INCORRECT, "3")
    assert lost.reason == "2 of 3 responses say 3, 1 say 7: differs from the gold answer 7"


def test_answers_are_compared_normalised() -> None:
    assert vote("3", "1,000.0", " $1000 ", "3", "1000.").answer == "1,000.0"


def test_a_tie_goes_to_the_answer_that_came_first() -> None:
    assert vote("3", "7", "7", "3").answer == "3"
    assert vote("7", "3", "3", "7").answer == "7"
    assert vote("3", "7").score is Score.INCORRECT


def test_the_order_is_that_of_seed_and_sample_not_of_the_rows() -> None:
    rows = [response("7", 0, seed=1), response("3", 1), response("4", 0)]
    assert majority(rows)[0].answer == majority(rows[::-1])[0].answer == "4"


def test_an_empty_answer_wins_only_where_there_is_no_other() -> None:
    assert vote("", "", "", "7").answer == "7"
    none = vote("", "", "")
    assert (none.score, none.answer, none.truncated) == (Score.INCORRECT, "", True)
    assert none.reason == "none of 3 responses gives an answer: no answer found"


def test_unscored_responses_vote_where_their_answer_is_known() -> None:
    won = vote("!7", "7", "3")
    assert (won.score, won.response) == (Score.CORRECT, "response 1 says 7")
    alone = vote("!7", "!7", "3")
    assert (alone.score, alone.reason) == (Score.UNSCORED, "2 of 3 responses say 7, 1 say 3: the grader failed")


def test_responses_that_could_turn_the_vote_leave_it_unscored() -> None:
    turned = vote("7", "7", "3", "?")
    assert turned.score is Score.UNSCORED
    assert turned.reason == "2 of 4 responses say 7, 1 say 3: 1 responses that the grader could not read might turn the vote"
    assert vote("7", "7", "7", "3", "?").score is Score.CORRECT
    assert vote("?", "", "").score is Score.UNSCORED
    assert vote("7", "?").score is Score.UNSCORED


def test_verdicts_have_no_vote() -> None:
    """An answer that is judged in two ways has the verdict of its first response: more needs the gold answer."""
    rows = [response("7", 0, score=Score.INCORRECT), response("7", 1), response("7", 2)]
    assert majority(rows)[0].score is Score.INCORRECT
    programs = [response("", sample, score=score) for sample, score in enumerate([Score.INCORRECT, *[Score.CORRECT] * 4])]
    assert majority(programs)[0].score is Score.INCORRECT


def test_problems_keep_their_order_and_their_chains() -> None:
    rows = [response(answer, sample, problem=problem) for sample, answer in enumerate("773") for problem in ("b", "a")]
    votes = majority(rows)
    assert [row.problem_id for row in votes] == ["b", "a"]
    assert {row.tokens for row in votes} == {30}


@given(st.lists(st.sampled_from(["7", "3", "", "5"]), min_size=1, max_size=9))
def test_a_vote_equals_counting(answers: list[str]) -> None:
    named = [answer for answer in answers if answer]
    best = max(Counter(named).values(), default=0)
    expected = next((answer for answer in named if named.count(answer) == best), "")
    assert vote(*answers).answer == expected


def test_equal_cost_takes_responses_in_order_while_they_fit() -> None:
    rows = [response("3", 0, tokens=10), response("7", 1, tokens=20), response("7", 2, tokens=5), response("7", 3, tokens=1)]
    for budget, answer, tokens in (
        (10, "3", 10),
        (29, "3", 10),
        (30, "3", 30),
        (34, "3", 30),
        (35, "7", 35),
        (36, "7", 36),
        (99, "7", 36),
    ):
        (won,) = majority_at_cost(rows, budget)
        assert (won.answer, won.tokens) == (answer, tokens), budget
    assert won.condition == "majority-equal-cost"
    # the first alone costs more, and a later one that would fit is not taken in place of a longer one before it
    assert majority_at_cost(rows, 1)[0].tokens == 10
    assert majority_at_cost(rows, 12)[0].tokens == 10


def test_equal_cost_by_problem() -> None:
    rows = [response("3", sample, problem=problem) for problem in ("a", "b") for sample in range(3)]
    votes = majority_at_cost(rows, {"a": 20, "b": 5})
    assert [row.tokens for row in votes] == [20, 10]
    with pytest.raises(InputError, match="problem 'b' has no token budget"):
        majority_at_cost(rows, {"a": 20})
