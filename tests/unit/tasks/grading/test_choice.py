"""Letters, options, yes and no: what a response claims last."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.tasks.grading.choice import ChoiceGrader, YesNoGrader
from trimtab.traces import AnswerKind, Problem, Split

OPTIONS = ("bank", "the library", "a mall", "New York")


def _problem(answer: str = "C", choices: tuple[str, ...] = OPTIONS) -> Problem:
    return Problem("p", "where?", answer, Split.TEST, kind=AnswerKind.CHOICE, choices=choices)


def _judge(response: str, answer: str = "C", choices: tuple[str, ...] = OPTIONS) -> tuple[str, str]:
    judgement = ChoiceGrader().judge([(_problem(answer, choices), response)])[0]
    return judgement.reason, judgement.answer


@pytest.mark.parametrize(
    "response",
    [
        "The answer is (C)",
        "C",
        "C.",
        "(C)",
        "**C**",
        "c",
        r"\boxed{C}",
        r"\boxed{\text{C}}",
        r"\boxed{\text{(C) a mall}}",
        "Answer: C",
        "answer: c",
        'The answer is "C".',
        "Answer: `C`",
        "The answer is option (C).",
        "The correct option is C: a mall",
        "I choose C, since it is large.",
        "The answer is C because a bank is small.",
        "The answer is C (a mall).",
        "The answer is C, not A.",
        "The answer is I think C",
        "C. a mall",
        "C\n\nBecause a bank is small and A is out.",
        "A mall",
        "The answer is a mall.",
        r"\boxed{a mall}",
        "### Answer\n\nC) a mall",
        "The answer is A.\n</think>\nThe answer is C.",
        "The answer is A. No, wait. The answer is C.",
        r"\boxed{A}? The best choice is C",
        "A or B? Neither.\nSo the answer is C",
    ],
)
def test_the_gold_choice(response: str) -> None:
    assert _judge(response) == ("names the gold choice", "C")


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("The answer is A.", "A"),
        ("The answer is A bank", "A"),
        ("The answer is A because of the money.", "A"),
        ("The answer is C. Sorry, the answer is B.", "B"),
        ("The answer is New York.", "D"),
        (r"C is near, but \boxed{D}", "D"),
    ],
)
def test_another_choice(response: str, letter: str) -> None:
    assert _judge(response) == ("differs from the gold choice C", letter)


@pytest.mark.parametrize(
    "response",
    [
        "The answer is A or C",
        "The answer is A, B and C.",
        r"\boxed{A, C}",
        "The answer is both A and C.",
        "C/D",
        "The answer is (C) or (D).",
    ],
)
def test_a_hedge(response: str) -> None:
    assert _judge(response) == ("no single answer found", "")


@pytest.mark.parametrize(
    "response",
    [
        "",
        "The answer is C</think>",
        "A dog barks here.",
        "C vitamins are good.",
        "The answer is a bank account",
        "The answer is not C.",
        "The answer is E",
        "So it must be that C is near the others",
        "Could it be a mall? I cannot say.",
    ],
)
def test_no_claim(response: str) -> None:
    assert _judge(response) == ("no answer found", "")


def test_gold_answers() -> None:
    response = "The answer is C"
    assert {_judge(response, gold) for gold in ("C", "c", " C ", "2", "a mall", "A Mall")} == {("names the gold choice", "C")}
    for gold in ("E", "4", "a shop", ""):
        judgement = ChoiceGrader().judge([(_problem(gold), response)])[0]
        assert (judgement.score, judgement.reason) == ("unscored", f"the gold answer {gold!r} names none of the 4 choices")


def test_without_choices_the_letters_go_to_j() -> None:
    assert _judge("The answer is J", "J", ()) == ("names the gold choice", "J")
    assert _judge("The answer is K", "J", ()) == ("no answer found", "")
    assert _judge("The answer is 2", "C", ()) == ("no answer found", "")


def test_an_option_that_stands_twice_names_nothing() -> None:
    assert _judge("The answer is two", "A", ("two", "two", "three")) == ("no answer found", "")
    assert _judge("The answer is 3", "A", ("3", "5")) == ("names the gold choice", "A")


@given(st.sampled_from("ABCD"), st.sampled_from("ABCD"), st.text(max_size=40))
def test_a_stated_letter_after_the_chain_decides(gold: str, said: str, chain: str) -> None:
    reason, letter = _judge(f"{chain}\n</think>\nThe answer is ({said}).", gold)
    assert (letter, reason.startswith("names")) == (said, said == gold)


def _judge_yes_no(response: str, answer: str = "yes") -> tuple[str, str]:
    problem = Problem("p", "can they?", answer, Split.TEST, kind=AnswerKind.YES_NO)
    judgement = YesNoGrader().judge([(problem, response)])[0]
    return judgement.score.value, judgement.reason


@pytest.mark.parametrize(
    ("response", "word"),
    [
        ("The answer is yes", "yes"),
        ("They cannot fly, so the answer is no.", "no"),
        ("Yes", "yes"),
        ("**No**", "no"),
        ("No, penguins cannot.", "no"),
        ("Yes.\n\nBecause birds have wings.", "yes"),
        (r"\boxed{\text{Yes}}", "yes"),
        (r"\boxed{no}", "no"),
        ("Answer: False", "no"),
        ("So the answer is true.", "yes"),
        ("True", "yes"),
        ("There is no way to do it. Therefore, no.", "no"),
        ("The answer is probably yes", "yes"),
        ("Yes or no? The answer is no.", "no"),
        ("The answer is yes.</think>The answer is no.", "no"),
        ("The answer is no. Wait, the answer is yes.", "yes"),
        ("The answer is no, yes would be wrong", "no"),
    ],
)
def test_the_last_claim(response: str, word: str) -> None:
    other = {"yes": "no", "no": "yes"}[word]
    assert _judge_yes_no(response, word) == ("correct", "equals the gold answer")
    assert _judge_yes_no(response, other) == ("incorrect", f"differs from the gold answer {other}")


@pytest.mark.parametrize(
    "response", ["The answer is yes and no", "The answer is yes or no.", "Answer: yes/no", r"\boxed{yes, no}"]
)
def test_a_hedge_between_yes_and_no(response: str) -> None:
    assert _judge_yes_no(response) == ("incorrect", "no single answer found")


@pytest.mark.parametrize(
    "response",
    [
        "",
        "The answer is yes</think>",
        "No one knows.",
        "Nobody",
        "No evidence was ever found",
        "The answer is not yes",
        "The answer is no longer known",
        "It may be true that they do",
        "yesterday",
    ],
)
def test_no_claim_of_yes_or_no(response: str) -> None:
    assert _judge_yes_no(response) == ("incorrect", "no answer found")


def test_gold_answers_of_yes_and_no() -> None:
    golds = ("yes", "Yes", "true", "True", " yes ")
    assert {_judge_yes_no("Yes", gold) for gold in golds} == {("correct", "equals the gold answer")}
    assert _judge_yes_no("Yes", "maybe") == ("unscored", "the gold answer 'maybe' is neither yes nor no")
