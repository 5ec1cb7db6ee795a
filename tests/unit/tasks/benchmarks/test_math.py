"""Answers of competitions: numbers, boxes and levels."""

import pytest

from trimtab.errors import InputError
from trimtab.tasks.benchmarks.math import last_box, level, number_text


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("27.0", "27"),
        ("025", "25"),
        ("-4.0", "-4"),
        ("0", "0"),
        ("000", "0"),
        ("0.5", "0.5"),
        ("12.50", "12.50"),
        ("3/4", "3/4"),
        (" 7 ", "7"),
        ("12345678901234567890", "12345678901234567890"),
        ("nan", "nan"),
        ("", ""),
    ],
)
def test_number_text(answer: str, expected: str) -> None:
    assert number_text(answer) == expected


@pytest.mark.parametrize(
    ("solution", "expected"),
    [
        (r"$\boxed{2}$", "2"),
        (r"\boxed{1} then \boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"the answer is $\boxed 7$.", "7"),
        (r"\fbox{x}", "x"),
        (r"\boxed {5}", "5"),
        (r"so \boxed 9.", "9"),
    ],
)
def test_last_box(solution: str, expected: str) -> None:
    assert last_box(solution) == expected


@pytest.mark.parametrize(("solution", "message"), [("none", "has no"), (r"\boxed{1} and \boxed{2", "is not closed")])
def test_no_box(solution: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        last_box(solution)


@pytest.mark.parametrize(("value", "expected"), [("Level 5", 5), (3, 3), ("2", 2), ("Level ?", 0), (None, 0), ("", 0)])
def test_level(value: object, expected: int) -> None:
    assert level(value) == expected
