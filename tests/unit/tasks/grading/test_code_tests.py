"""The JSON of a code problem's tests."""

import doctest

import pytest
from pydantic import ValidationError

from trimtab.tasks.grading import code
from trimtab.tasks.grading.code import CodeTests, Suite

SUITE = Suite(name="base", asserts=("assert f(1) == 1",))


def test_it_survives_json() -> None:
    tests = CodeTests(entry_point="f", preamble="import math\n", suites=(SUITE, Suite(name="plus", setup="x = 1", source="f(x)")))
    assert CodeTests.model_validate_json(tests.model_dump_json()) == tests


def test_the_docstrings_are_true() -> None:
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder().find(CodeTests, globs=vars(code)):
        runner.run(example)
    assert runner.tries > 0
    assert runner.failures == 0


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
