"""Which function the tests of a code problem call."""

import pytest

from trimtab.errors import InputError
from trimtab.tasks.benchmarks.code import entry_point_of, unix_lines


@pytest.mark.parametrize(
    ("code", "asserts", "expected"),
    [
        ("def f(x): ...", ["assert f(1) == 2"], "f"),
        ("def f(x): ...", ["assert set(f(1)) == set((2,))"], "f"),
        ("def f(x): ...", ["assert not f(0)"], "f"),
        ("import math\ndef f(x): ...", ["assert math.isclose(f(1), 2.0, rel_tol=0.01)"], "f"),
        ("class Pair: ...\ndef f(pairs): ...", ["assert f([Pair(1, 2)]) == 1"], "f"),
        ("def helper(x): ...\ndef f(x): ...", ["assert f(2) == 1", "assert helper(1) == 1"], "f"),
        ("def f(x): ...", ["assert (f(1)) == (2)"], "f"),
        ("def sum(a, b): ...", ["assert sum(10, 15) == 6"], "sum"),
        ("f = lambda x: x", ["assert f(1) == 1"], "f"),
        ("def f(x): ...", ["assert True", "assert f(1)"], "f"),
        ("class Box: ...", ["assert Box(1).size == 1"], "Box"),
    ],
)
def test_entry_point(code: str, asserts: list[str], expected: str) -> None:
    assert entry_point_of(code, asserts) == expected


@pytest.mark.parametrize(
    ("code", "asserts", "message"),
    [
        ("def g(x): ...", ["assert f(1) == 2"], r"no test calls what the reference solution defines \(g\)"),
        ("def f(:", ["assert f(1)"], "not Python"),
        ("def f(x): ...", ["assert f("], "not Python"),
        ("def f(x): ...", [], "no test calls"),
    ],
)
def test_no_entry_point(code: str, asserts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        entry_point_of(code, asserts)


def test_unix_lines() -> None:
    assert unix_lines("a\r\nb\n") == "a\nb\n"
