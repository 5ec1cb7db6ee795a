"""Yes and no: what a response claims last."""

import pytest

from trimtab.tasks.grading.yes_no import YesNoGrader
from trimtab.traces import AnswerKind, Problem, Split


def _judge(response: str, answer: str = "yes") -> tuple[str, str]:
    problem = Problem("p", "can they?", answer, Split.TEST, kind=AnswerKind.YES_NO)
    judgement = YesNoGrader().judge([(problem, response)])[0]
    return judgement.verdict.value, judgement.reason


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
    assert _judge(response, word) == ("correct", "equals the gold answer")
    assert _judge(response, other) == ("incorrect", f"differs from the gold answer {other}")


@pytest.mark.parametrize(
    "response", ["The answer is yes and no", "The answer is yes or no.", "Answer: yes/no", r"\boxed{yes, no}"]
)
def test_a_hedge(response: str) -> None:
    assert _judge(response) == ("incorrect", "no single answer found")


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
def test_no_claim(response: str) -> None:
    assert _judge(response) == ("incorrect", "no answer found")


def test_gold_answers() -> None:
    assert {_judge("Yes", gold) for gold in ("yes", "Yes", "true", "True", " yes ")} == {("correct", "equals the gold answer")}
    assert _judge("Yes", "maybe") == ("unscored", "the gold answer 'maybe' is neither yes nor no")
