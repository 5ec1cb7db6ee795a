"""Final answers and their comparable form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.tasks.grading.answers import final_answer, normalise


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}", "5"),
        (r"\boxed {5} and then \boxed{ 6 }", "6"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\sqrt{\frac{a}{b}}} is it", r"\sqrt{\frac{a}{b}}"),
        (r"\boxed{5} </think> so the answer is 6", "5"),
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
