"""Which part of a response is the answer, and what math-verify is given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.tasks.grading.math_notation import for_math_verify, pair_for_math_verify
from trimtab.tasks.grading.math_text import Stated, gold_text, stated_answer


@pytest.mark.parametrize(
    ("response", "text", "where"),
    [
        (r"so \boxed{18}.", "18", "box"),
        (r"\boxed{3} no </think> then \boxed{18}", "18", "box"),
        (r"\boxed{17}, wait: \boxed{\frac{1}{2}}", r"\frac{1}{2}", "box"),
        (r"put it in \boxed{}: \boxed{18} and again \boxed{}", "18", "box"),
        (r"$\boxed{3}$ and $\boxed{5}$", "3, 5", "box"),
        (r"\boxed{3} or \boxed{5}", "3, 5", "box"),
        (r"\boxed{5}, \boxed{5}", "5", "box"),
        (r"\fbox{7}", "7", "box"),
        ("2 + 2 = 4\n#### 4", "4", "####"),
        ("#### 3\n#### 1,000 ", "1,000", "####"),
        ("#### Step 2: add\nThe answer is 4.", "4", "statement"),
        ("The answer is 18. It was not 20.", "18", "statement"),
        (r"The length comes out as $2\sqrt{3}$ in all", r"2\sqrt{3}", "last number"),
        ("The final answer is **$1,018**.", "$1,018**", "statement"),
        ("Final Answer\n\n$$\n18\n$$", "18", "statement"),
        (r"The answer is $\frac{1}{2}$ of the cake.", r"\frac{1}{2}", "statement"),
        ("The answer is $5$ or $7$.", "$5$ or $7$", "statement"),
        ("Answer: John pays **\\$12,000** in taxes.", "12,000", "statement"),
        ("Answer: 3 apples and 5 pears.", "3 apples and 5 pears", "statement"),
        ("The answer is 3. No: the answer is 4, since 2 + 2 = 4.", "4", "statement"),
        ("hmm 3 </think>\n\n18\n", "18", "whole text"),
        ("x</think>18 dollars", "18 dollars", "whole text"),
        ("x</think>x = 5", "x = 5", "whole text"),
        ("Evelyn", "Evelyn", "whole text"),
        ("First 9 eggs.\nShe sells 9 for $2 each and makes $18.", "18", "last number"),
        ("So it is 3/4 of a mile", "3/4", "last number"),
        (r"That makes \frac{3}{4} of a mile", r"\frac{3}{4}", "last number"),
        ("It falls by -7 degrees", "-7", "last number"),
        ("That leaves 10-3 dollars, 7%.", "7%", "last number"),
    ],
)
def test_stated_answer(response: str, text: str, where: str) -> None:
    assert stated_answer(response) == Stated(text, where)


@pytest.mark.parametrize(
    "response",
    [
        "",
        " \n ",
        "</think>",
        r"\boxed{5} then \boxed{7",
        r"so \boxed{\frac{1}{2}",
        "I really do not know what the answer to this question would have been",
        "So it comes out as x^2 in the end",
        "It is one of the two, namely x = 5 or x = 7",
        "It takes 2 hours and 30 minutes",
        "That would be on the 18th",
        "The train leaves at 10:30",
        "18 </think> nothing here worth a reading whatsoever, sorry",
    ],
)
def test_no_answer(response: str) -> None:
    assert stated_answer(response) is None


@given(st.text(alphabet="\\boxed{}answer is:#$5 3.\n*</think>", max_size=60))
def test_an_answer_is_a_part_of_the_response(response: str) -> None:
    stated = stated_answer(response)
    assert stated is None or all(part in response for part in stated.text.split(", "))


@given(st.integers(0, 10**9), st.sampled_from(["{}", "{} ", "**{}**", "${}", "{} eggs", "${}$", "{}.0"]))
def test_a_statement_after_any_number_wins(number: int, form: str) -> None:
    stated = stated_answer(f"First there were 3, then 4 = 4.\nThe answer is {form.format(number)}.\nThat is more than 2 of them.")
    assert stated is not None
    assert stated.where == "statement"
    assert str(number) in stated.text


@pytest.mark.parametrize(
    ("answer", "written"),
    [
        ("18 dollars", "18"),
        ("$18.50 per hour", "18.50"),
        (r"70\text{ eggs}", "70"),
        (r"5\text{ cm}^2", "5"),
        (r"3\sqrt{2}\text{ cm}", r"3\sqrt{2}"),
        ("2.5 million people", "2500000"),
        ("54 thousand", "54000"),
        ("1 1/2", r"1\frac{1}{2}"),
        ("-1 1/2", r"-1\frac{1}{2}"),
        ("100 000", "100000"),
        (r"1\,000", "1000"),
        ("\u22125", "-5"),
        ("2e3", r"2\times10^{3}"),
        ("2e9999", "2e9999"),
        (r"0.\overline{3}", r"\frac{1}{3}"),
        (r"-1.2\overline{5}", r"-\frac{113}{90}"),
        ("east", r"\text{east}"),
        (r"\text{east}", r"\text{east}"),
        ("**5**.", "5"),
        (r"\(5\)", "5"),
        ("5!", "5!"),
        ("5x", "5x"),
        ("5 x", "5 x"),
        ("3 and a half", r"3\frac{1}{2}"),
        ("5 squared", "5 squared"),
        ("5 6", None),
        ("{" * 13 + "5" + "}" * 13, None),
        ("(" * 13, None),
        ("{5", None),
        ("5\x00", None),
        ("5\ud800", None),
        ("", None),
        ("9" * 1001, None),
    ],
)
def test_for_math_verify(answer: str, written: str | None) -> None:
    assert for_math_verify(answer) == written


def test_a_repeating_decimal_is_the_limit_of_its_digits() -> None:
    written = for_math_verify(r"0.1\overline{6}")
    assert written == r"\frac{1}{6}"
    assert abs(float("0.1" + "6" * 15) - 1 / 6) < 1e-15


@pytest.mark.parametrize(
    ("gold", "answer", "pair"),
    [
        ("107,112", "112, 107", ("107, 112", "112, 107")),
        ("112, 107", "107,112", ("112, 107", "107, 112")),
        ("107,112", "107112", ("107,112", "107112")),
        ("1,-2", "-2, 1", ("1,-2", "-2, 1")),
    ],
)
def test_groups_of_three_digits_are_a_list_beside_a_list(gold: str, answer: str, pair: tuple[str, str]) -> None:
    assert pair_for_math_verify(gold, answer) == pair


def test_a_gold_answer_may_be_a_whole_solution() -> None:
    assert gold_text("Tom has 5 and 4.\n#### 1,009") == "1,009"
    assert gold_text(r"Therefore $x = \boxed{\frac{3}{4}}$.") == r"\frac{3}{4}"
    assert gold_text("x = 5") == "x = 5"
    assert gold_text("The answer is 5") == "The answer is 5"
