"""Step checkers: is the response right, not only its answer? The testbed has one; other tasks bring a column."""

from collections.abc import Callable

from trimtab.testbed.chains import check_steps
from trimtab.testbed.problems import parse
from trimtab.traces import Problem

StepChecker = Callable[[Problem, str], bool]


def testbed_steps(problem: Problem, chain: str) -> bool:
    """True when every step of a testbed chain is right and none is missing."""
    return check_steps(parse(problem.question), chain).all_right
