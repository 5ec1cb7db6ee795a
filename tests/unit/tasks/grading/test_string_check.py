"""The check without computer algebra, and the plain text that it compares."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.tasks.grading.plain import amount, plain
from trimtab.tasks.grading.string_check import ExactNumber, exact_number, same_text

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
