"""What a code problem's answer is tested with: the JSON in ``Problem.tests``."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


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
