"""Final answers, plain texts, and the check without computer algebra."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.tasks.grading.math_notation import ExactNumber, exact_number, same_text
from trimtab.tasks.grading.text import amount, final_answer, normalise, plain


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}", "5"),
        (r"\boxed {5} and then \boxed{ 6 }", "6"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\sqrt{\frac{a}{b}}} is it", r"\sqrt{\frac{a}{b}}"),
        (r"\boxed{5} </think> so the answer is 6", "so the answer is 6"),
        (r"<think>perhaps \boxed{5}", None),
        (r"\boxed{5} </think> so \boxed{6}", "6"),
        ("thinking </think> the rest\n#### 72", "72"),
        ("no tags #### 3\n#### 4 \n", "4"),
        ("#### 1 </think> 2", "2"),
        ("a 5 -9 gives 6 . </think> 6", "6"),
        ("x </think> y </think>  z ", "z"),
        ("never closed 5", None),
        ("</think>", None),
        ("</think>  \n ", None),
        ("", None),
    ],
)
def test_final_answer(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


def test_a_box_that_never_closes_is_no_answer() -> None:
    assert final_answer(r"so \boxed{5") is None
    assert final_answer(r"so \boxed{\frac{1}{2}") is None


@given(st.text(alphabet="ab{}\\", max_size=20).filter(lambda s: "\\boxed" not in s))
def test_a_balanced_box_is_read_whole(inner: str) -> None:
    depth, lowest = 0, 0
    for character in inner:
        depth += {"{": 1, "}": -1}.get(character, 0)
        lowest = min(lowest, depth)
    if depth == 0 and lowest == 0:
        assert final_answer(f"x \\boxed{{{inner}}} y") == inner.strip()


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("5", " 5. "),
        ("5", "5.0"),
        ("5", "5.00"),
        ("1,000", "1000"),
        ("$1,234.50$", "1234.5"),
        ("-7", "-7.0"),
        ("North", "north"),
        ("two  words", "Two words"),
        ("100", "100"),
    ],
)
def test_alike(left: str, right: str) -> None:
    assert normalise(left) == normalise(right)


@pytest.mark.parametrize(
    ("left", "right"), [("5", "50"), ("100", "1"), ("-7", "7"), ("0.5", "5"), ("1.5", "15"), ("a", "b"), ("10", "1.0")]
)
def test_unlike(left: str, right: str) -> None:
    assert normalise(left) != normalise(right)


@given(st.text(max_size=30))
def test_normalising_twice_changes_nothing_more_for_numbers(text: str) -> None:
    once = normalise(text)
    assert once == once.strip()
    assert normalise(normalise(once)) == normalise(once)


@given(st.integers(-(10**9), 10**9))
def test_every_way_to_write_a_whole_number(number: int) -> None:
    written = (str(number), f"{number:,}", f"{number}.0", f"${number}$", f" {number}. ")
    assert {normalise(text) for text in written} == {str(number)}


WHOLE = st.integers(-(10**9), 10**9)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", "18"),
        ("-5", "-5"),
        ("\u22125", "-5"),
        ("+5", "5"),
        ("1,000", "1000"),
        ("1 000 000", "1000000"),
        (r"1{,}000", "1000"),
        (r"1,\!000", "1000"),
        ("0.50", "1/2"),
        (".5", "1/2"),
        ("3/4", "3/4"),
        ("-3/4", "-3/4"),
        ("1 1/2", "3/2"),
        ("-1 1/2", "-3/2"),
        (r"\frac{1}{2}", "1/2"),
        (r"-\dfrac{1}{2}", "-1/2"),
        (r"\frac{-1}{2}", "-1/2"),
        (r"\frac12", "1/2"),
        (r"1\frac{1}{2}", "3/2"),
        ("\u00bd", "1/2"),
        ("2e3", "2000"),
        ("2.5e-1", "1/4"),
        (r"\$18.50", "37/2"),
        ("\u20ac7", "7"),
        ("18 dollars", "18"),
        (r"70\text{ eggs}", "70"),
        ("2 million", "2000000"),
        (r"90^\circ", "90"),
        ("**18**.", "18"),
    ],
)
def test_exact_number(text: str, value: str) -> None:
    assert exact_number(text) == ExactNumber(Fraction(value), percent=False)


@pytest.mark.parametrize(
    "text",
    ["", "x", "5x", "x=5", "1/0", "1,2", "12,34", "1.2.3", "5 6", "3 and 5", "(1,2)", r"\pi", "18th", "5 squared", "9" * 1001],
)
def test_no_exact_number(text: str) -> None:
    assert exact_number(text) is None


@given(WHOLE)
def test_every_way_to_write_a_whole_number_and_none_of_its_neighbour(number: int) -> None:
    forms = ["{n}", "{n:,}", "{n}.00", "{n}.", "${n}$", r"\({n}\)", "**{n}**", "{n} dollars", r"{n}\text{{ km}}", "{n}/1"]
    for form in forms:
        assert same_text(str(number), form.format(n=number)), form
        assert same_text(form.format(n=number), str(number)), form
        assert not same_text(str(number), form.format(n=number + 1)), form


@given(WHOLE, st.integers(1, 10**6), WHOLE, st.integers(1, 10**6))
def test_fractions_are_the_same_exactly_when_they_are_equal(a: int, b: int, c: int, d: int) -> None:
    assert same_text(f"{a}/{b}", rf"\frac{{{c}}}{{{d}}}") == (Fraction(a, b) == Fraction(c, d))
    assert same_text(f"{a}/{b}", f"{3 * a}/{3 * b}")


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("18", r"18\%"),
        (r"18\%", "0.18"),
        ("18%", "18 percent"),
        ("5", "x=5"),
        ("x = 5", "5"),
        ("x=5", "x = 5"),
        (r"\text{Evelyn}", "evelyn"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\dfrac{\pi}{2})"),
        (r"x \le 3", "x\u22643"),
    ],
)
def test_same(gold: str, answer: str) -> None:
    assert same_text(gold, answer)
    assert same_text(answer, gold)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("18%", "1800%"),
        ("18%", "1.8"),
        ("x=5", "y=5"),
        ("x", "X"),
        (r"\Delta", r"\delta"),
        ("56", "5 6"),
        ("11/2", "1 1/2"),
        ("x^2", "x2"),
        ("", ""),
        ("$", "$"),
        ("1,2", "12"),
    ],
)
def test_different(gold: str, answer: str) -> None:
    assert not same_text(gold, answer)
    assert not same_text(answer, gold)


@pytest.mark.parametrize(
    "text", ["5x", "5 x", "5 pi", "3 and 5", "7 or 8", "5 squared", "2 thirds", "3 quarters and 1", "18", "x 5"]
)
def test_no_units(text: str) -> None:
    assert amount(text) is None


def test_amounts_of_money_and_of_things() -> None:
    texts = ("18 dollars", "5 km/h", "3 quarters", "1,200 sq.ft", "-3.50 euros", "7 hundred")
    assert [*map(amount, texts)] == ["18", "5", "3", "1200", "-3.50", "700"]


@given(st.text(max_size=40))
def test_a_plain_text_has_no_space_around_it(text: str) -> None:
    assert plain(text) == plain(text).strip()
