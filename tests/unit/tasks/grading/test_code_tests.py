"""The JSON of a code problem's tests."""

import doctest

import pytest
from pydantic import ValidationError

from trimtab.errors import InputError
from trimtab.tasks.grading import code_tests
from trimtab.tasks.grading.code_tests import CodeTests, Suite, entry_point_of

SUITE = Suite(name="base", asserts=("assert f(1) == 1",))


def test_it_survives_json() -> None:
    tests = CodeTests(entry_point="f", preamble="import math\n", suites=(SUITE, Suite(name="plus", setup="x = 1", source="f(x)")))
    assert CodeTests.model_validate_json(tests.model_dump_json()) == tests


def test_the_docstrings_are_true() -> None:
    assert doctest.testmod(code_tests).failed == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entry_point": "not a name"}, "entry_point"),
        ({"entry_point": ""}, "entry_point"),
        ({"suites": ()}, "suites"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_bad_tests_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CodeTests.model_validate({"entry_point": "f", "suites": (SUITE,)} | change)


def test_a_suite_has_one_style() -> None:
    with pytest.raises(ValidationError, match="suite 'base' needs either asserts or source, got neither"):
        Suite(name="base")
    with pytest.raises(ValidationError, match="needs either asserts or source, got both"):
        Suite(name="base", asserts=("assert f()",), source="f()")


@pytest.mark.parametrize(
    ("asserts", "code", "name"),
    [
        (["assert f(1) == 2", "assert f(2) == 3"], "", "f"),
        (["assert set(f((1, 2))) == set((2,))"], "", "f"),
        (["assert math.isclose(area(4), 2.0, rel_tol=0.001)"], "", "area"),
        (["assert longest([Pair(1, 2)], 1) == 1"], "class Pair: pass\ndef longest(p, n): return n", "longest"),
        (["assert g(f(1)) == 1", "assert f(2) == 2"], "", "f"),
    ],
)
def test_the_function_that_asserts_have_in_common(asserts: list[str], code: str, name: str) -> None:
    assert entry_point_of(asserts, code) == name


@pytest.mark.parametrize("asserts", [[], ["assert True"], ["assert f(g(1)) == 1"], ["assert f(1)", "assert g(1)"]])
def test_an_unclear_function_is_asked_for(asserts: list[str]) -> None:
    with pytest.raises(InputError, match="give entry_point in the file"):
        entry_point_of(asserts)


def test_an_assert_that_is_no_python_is_named() -> None:
    with pytest.raises(InputError, match="'assert f\\(' is no Python"):
        entry_point_of(["assert f("])
