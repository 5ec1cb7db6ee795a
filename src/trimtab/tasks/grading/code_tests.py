"""What a code problem's answer is tested with: the JSON in ``Problem.tests``."""

import ast
import builtins
from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trimtab.errors import InputError


class Suite(BaseModel):
    """One set of tests with an outcome of its own, for example a benchmark's base or plus tests.

    ``setup`` runs first. Then either each of ``asserts`` (MBPP), or ``source``: a module whose ``check(candidate)`` is called if
    it defines one (HumanEval, HumanEval+), and whose loops call the entry point by name otherwise (MBPP+).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    setup: str = ""
    asserts: tuple[str, ...] = ()
    source: str = ""

    @model_validator(mode="after")
    def _one_style(self) -> Self:
        if bool(self.asserts) == bool(self.source):
            raise ValueError(f"suite {self.name!r} needs either asserts or source, got {'both' if self.source else 'neither'}")
        return self


class CodeTests(BaseModel):
    """The tests of one code problem.

    Args:
        entry_point: the function that an answer must define.
        preamble: the benchmark's own code before the answer, for example HumanEval's prompt: helpers and imports, trusted.
            An answer that is a bare function body continues it.
        suites: every one must pass.

    Example:
        >>> CodeTests(entry_point="add", suites=(Suite(name="base", asserts=("assert add(1, 2) == 3",)),)).suites[0].asserts
        ('assert add(1, 2) == 3',)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    entry_point: str = Field(pattern=r"^[^\W\d]\w*$")
    preamble: str = ""
    suites: tuple[Suite, ...] = Field(min_length=1)


def entry_point_of(asserts: Sequence[str], code: str = "") -> str:
    """The function that MBPP's asserts test: the one called in all of them that is no builtin.

    Args:
        asserts: the test list.
        code: the benchmark's reference solution; where it is given, the function must be one that it defines.

    Raises:
        InputError: no function, or more than one, is called in every assert.

    Example:
        >>> entry_point_of(["assert set(similar((1, 2), (2, 3))) == set((2,))"])
        'similar'
    """
    called = [_called(text) - set(dir(builtins)) for text in asserts]
    common = set.intersection(*called) if called else set()
    if code:
        common &= {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
    if len(common) != 1:
        found = ", ".join(sorted(common)) or "none"
        raise InputError(f"the asserts should call one function in common, found {found}; give entry_point in the file")
    return common.pop()


def _called(text: str) -> set[str]:
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise InputError(f"the assert {text!r} is no Python: {error}") from error
    return {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
