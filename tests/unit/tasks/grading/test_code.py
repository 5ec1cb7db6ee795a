"""The code grader: verdicts, reasons, and whose fault a failure is."""

import signal
import sys
import time

import pytest

from trimtab.tasks.grading.code import CodeGrader, CodeTests, Suite, TrustedTester, _sum_up
from trimtab.tasks.grading.code_tester import BROKEN, FAILED, PASSED, ProgramRun
from trimtab.tasks.grading.grader import Judgement
from trimtab.tasks.sandbox import Limits, Sandbox, SandboxError, program
from trimtab.traces import AnswerKind, Problem, Score, Split

PLUS_HEAD = """
import numpy as np
def is_floats(x):
    return isinstance(x, float) or (isinstance(x, (list, tuple)) and all(isinstance(i, float) for i in x))
def assertion(out, exp, atol):
    exact_match = out == exp
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if not exact_match and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert exact_match, f"out: {out}, exp: {exp}"
"""
HUMANEVAL_BASE = """
METADATA = {}

def check(candidate):
    assert candidate([1, 3]) == 2
    assert half(candidate([4])) == 2
"""
HUMANEVAL_PLUS = """
def check(candidate):
    inputs = [[[0.1] * 3], [[2, 2]]]
    results = [0.1, 2]
    for i, (inp, exp) in enumerate(zip(inputs, results)):
        assertion(candidate(*inp), exp, 0)
"""
HUMANEVAL = CodeTests(
    entry_point="mean",
    preamble="from typing import List\n\ndef half(x): return x / 2\n\ndef mean(xs: List[float]) -> float:\n    '''The mean.'''\n",
    suites=(Suite(name="base", source=HUMANEVAL_BASE), Suite(name="plus", source=PLUS_HEAD + HUMANEVAL_PLUS)),
)
MBPP_PLUS = """
inputs = [[3], [[1]]]
results = [6, [1, 1]]
for inp, exp in zip(inputs, results):
    assertion(double(*inp), exp, 0)
"""
MBPP_BASE = ("assert double(1) == 2", "assert math.isclose(double(2.0), four)")
MBPP = CodeTests(
    entry_point="double",
    suites=(
        Suite(name="base", setup="import math\nfour = 4", asserts=MBPP_BASE),
        Suite(name="plus", source=PLUS_HEAD + MBPP_PLUS),
    ),
)


def problem(tests: CodeTests | str) -> Problem:
    text = tests if isinstance(tests, str) else tests.model_dump_json()
    return Problem("p", "q", "", Split.TEST, kind=AnswerKind.CODE, tests=text)


def asserting(*asserts: str, setup: str = "", entry_point: str = "f") -> CodeTests:
    return CodeTests(entry_point=entry_point, suites=(Suite(name="base", setup=setup, asserts=asserts),))


@pytest.fixture(scope="module")
def grader() -> CodeGrader:
    return CodeGrader(Sandbox(Limits(seconds=5)), workers=2)


def judge(grader: CodeGrader, tests: CodeTests | str, response: str) -> Judgement:
    return grader.judge([(problem(tests), response)])[0]


@pytest.mark.parametrize(
    "response",
    [
        "    return sum(xs) / len(xs)\n",
        "```python\ndef mean(xs: List[float]) -> float:\n    return sum(xs) / len(xs)\n```",
        "hm</think>```python\nimport numpy\ndef mean(xs):\n    return numpy.mean(xs)\n```",
        "```python\ndef check(candidate):\n    pass\ndef mean(xs):\n    return sum(xs) / len(xs)\nprint(mean([1]))\n```",
    ],
)
def test_humaneval_passes(grader: CodeGrader, response: str) -> None:
    judgement = judge(grader, HUMANEVAL, response)
    assert (judgement.score, judgement.reason) == (Score.CORRECT, "passed base and plus tests")
    assert "def mean" in judgement.answer


def test_mbpp_passes(grader: CodeGrader) -> None:
    assert judge(grader, MBPP, "def double(x):\n    return x * 2").score is Score.CORRECT


WRONG = [
    (
        HUMANEVAL,
        "    return 2\n",
        "base tests: test 2 failed: assert half(candidate([4])) == 2 (got 2); "
        "plus tests: test 1 failed: mean([0.1, 0.1, 0.1]) (got 2)",
    ),
    (
        MBPP,
        "def double(x):\n    return x + x if x != [1] else 0",
        "base tests: passed; plus tests: test 2 failed: double([1]) (got 0)",
    ),
    (
        MBPP,
        "def double(x):\n    return 2 * x if isinstance(x, float) else 'no'",
        "base tests: test 1 of 2 failed: assert double(1) == 2 (got 'no'); plus tests: test 1 failed: double(3) (got 'no')",
    ),
    (
        asserting("assert f(0) == 1"),
        "def f(x):\n    return 1 / x",
        "test 1 of 1 failed: assert f(0) == 1 (raised ZeroDivisionError: division by zero)",
    ),
    (
        asserting("assert len(f(0)) == 1"),
        "def f(x):\n    return 5",
        "test 1 of 1 failed: assert len(f(0)) == 1 (got 5; then TypeError: object of type 'int' has no len())",
    ),
    (asserting("assert f(0)"), "f = 3", "does not define f"),
    (asserting("assert f(0)"), "1 / 0\ndef f(x): pass", "failed while loading: ZeroDivisionError: division by zero"),
    (asserting("assert f(0)"), "x = input()\ndef f(x): pass", "failed while loading: EOFError: EOF when reading a line"),
    (
        asserting("assert f(0)"),
        "import requests\ndef f(x): pass",
        "failed while loading: ModuleNotFoundError: No module named 'requests'",
    ),
    (asserting("assert f(0)"), "nothing to see", "no code found"),
]


@pytest.mark.parametrize(("tests", "response", "reason"), WRONG)
def test_a_wrong_program_is_told_why(grader: CodeGrader, tests: CodeTests, response: str, reason: str) -> None:
    assert judge(grader, tests, response)[:2] == (Score.INCORRECT, reason)


CATCHING = """
try:
    f(0)
except ValueError as error:
    assert "odd" in str(error)
else:
    assert False
"""


@pytest.mark.parametrize(
    ("asserts", "response"),
    [
        ((CATCHING,), "def f(x):\n    raise ValueError('odd')"),
        (("assert list(f(3)) == [0, 1, 2]", "assert f(3) != [0, 1, 2]"), "def f(x):\n    yield from range(x)"),
        (("assert f({1: 'a'}) == {1}",), "def f(x):\n    return x.keys()"),
        (("assert f(1j) == 2j", "assert f(b'a') == b'aa'", "assert f((1,)) == (1, 1)"), "def f(x):\n    return x + x"),
        (("assert type(f(2)) is int", "assert f(True) is True"), "def f(x):\n    return x"),
        (("assert f(2) is None",), "def f(x):\n    print('noise')"),
        (("assert math.isclose(f(1), re.match('x', 'x').end())",), "def f(x):\n    return 1.0"),
    ],
)  # fmt: skip
def test_values_and_exceptions_cross_as_they_are(grader: CodeGrader, asserts: tuple[str, ...], response: str) -> None:
    judgement = judge(grader, asserting(*asserts), response)
    assert judgement.score is Score.CORRECT, judgement.reason


def test_classes_of_the_program_can_be_built_by_its_tests(grader: CodeGrader) -> None:
    code = "class Node:\n    def __init__(self, v):\n        self.v, self.left = v, None\ndef f(n):\n    return n.v + n.left.v"
    tests = asserting("assert f(root) == 3", setup="root = Node(1)\nroot.left = Node(2)\n")
    assert judge(grader, tests, code).score is Score.CORRECT


def test_a_program_cannot_supply_its_own_judge(grader: CodeGrader) -> None:
    code = "def close(a, b):\n    return True\ndef f(x):\n    return 0"
    judgement = judge(grader, asserting("assert close(f(1), 1)"), code)
    assert (judgement.score, judgement.reason) == (
        Score.UNSCORED,
        "the tests failed by themselves: NameError: name 'close' is not defined",
    )


def test_a_bare_except_in_the_tests_cannot_hide_a_fault(grader: CodeGrader) -> None:
    tests = asserting("try:\n    f(1)\nexcept:\n    pass")
    judgement = judge(grader, tests, "import os\ndef f(x):\n    os._exit(0)")
    assert (judgement.score, judgement.reason) == (Score.INCORRECT, "exited with status 0 in test 1 of 1")


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ("{}", "problem p: its tests cannot be read"),
        ("", "problem p: its tests cannot be read"),
        (asserting("assert f(1) =="), "the tests are no Python"),
        (asserting("assert f(lambda x: x)"), "the tests pass what is no plain data"),
        (asserting("assert True"), "the tests never called f"),
        (asserting("assert f(1)", setup="import no_such_module"), "the tests failed by themselves: ModuleNotFoundError"),
        (asserting("assert f(1)", setup="assert 1 == 2"), "the tests failed by themselves: AssertionError"),
        (asserting("import os; os._exit(3)"), "the tester ended by status 3"),
    ],
)
def test_our_own_failures_are_unscored(grader: CodeGrader, tests: CodeTests | str, reason: str) -> None:
    judgement = judge(grader, tests, "def f(x):\n    return 1")
    assert judgement.score is Score.UNSCORED
    assert reason in judgement.reason


def test_a_sandbox_that_fails_is_unscored(grader: CodeGrader, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Sandbox) -> None:
        raise SandboxError("no process could be started")

    monkeypatch.setattr(Sandbox, "start", refuse)
    judgement = judge(grader, MBPP, "def double(x):\n    return 2 * x")
    assert judgement.score is Score.UNSCORED
    assert judgement.reason == "the grader failed: no process could be started"


def test_a_failure_of_the_program_outweighs_one_of_ours() -> None:
    outcomes = [("base", ProgramRun(FAILED, "x")), ("plus", ProgramRun(BROKEN, "y"))]
    assert _sum_up(outcomes, "code") == Judgement(Score.INCORRECT, "base tests: x; plus tests: y", "code")
    assert _sum_up([("base", ProgramRun(PASSED, "")), outcomes[1]], "code").score is Score.UNSCORED


def test_tests_that_loop_over_what_a_program_returned_are_ended() -> None:
    grader = CodeGrader(Sandbox(Limits(seconds=1)), workers=1)
    start = time.monotonic()
    judgement = judge(grader, asserting("assert sum(1 for _ in range(f(1))) == 3"), "def f(x):\n    return 10**18")
    assert judgement[:2] == (Score.INCORRECT, "timed out after 3 s, in the tests of what the program returned")
    assert time.monotonic() - start < 30


def test_answers_are_judged_in_order_and_one_bad_one_costs_only_itself(grader: CodeGrader) -> None:
    tests = problem(asserting("assert f(1) == 1"))
    codes = [f"def f(x):\n    return {n}" if n != 3 else "import os, signal\nos.kill(os.getpid(), 9)" for n in range(6)]
    verdicts = [judgement.score for judgement in grader.judge([(tests, code) for code in codes])]
    assert [verdict is Score.CORRECT for verdict in verdicts] == [n == 1 for n in range(6)]
    assert Score.UNSCORED not in verdicts


@pytest.mark.skipif(sys.platform != "linux", reason="the filter of system calls is Linux's")
@pytest.mark.parametrize(
    "code", ["import os\ndef f(x):\n    os.kill(os.getpid(), 9)", "import signal\ndef f(x):\n    signal.raise_signal(9)"]
)
def test_an_answer_that_kills_itself_is_incorrect_and_blocks_no_verdict(grader: CodeGrader, code: str) -> None:
    judgement = judge(grader, asserting("assert f(1) == 1"), code)
    assert judgement.score is Score.INCORRECT
    assert "raised PermissionError" in judgement.reason


@pytest.mark.parametrize("response", ["f = " + "-" * 300_000 + "1", "f = " + "1+" * 100_000 + "1", "(" * 100_000])
def test_an_answer_that_overruns_the_parser_is_incorrect(grader: CodeGrader, response: str) -> None:
    assert judge(grader, MBPP, f"```\n{response}\n```").score is Score.INCORRECT


def test_nothing_to_judge() -> None:
    assert CodeGrader().judge([]) == []


def test_suites_do_not_share_state_or_time(grader: CodeGrader) -> None:
    tests = CodeTests(entry_point="f", suites=tuple(Suite(name=name, asserts=("assert f() == 1",)) for name in ("base", "plus")))
    assert judge(grader, tests, "calls = []\ndef f():\n    calls.append(1)\n    return len(calls)").score is Score.CORRECT


def test_a_tester_that_was_killed_is_started_again() -> None:
    with TrustedTester() as tester:
        assert tester.ask("extract", 5, ("def f(): pass", "f", "")) == (PASSED, "def f(): pass")
        assert tester._process is not None
        tester._process.kill()
        tester._process.wait()
        with pytest.raises(Exception, match="the tester failed"):
            tester.ask("extract", 5, ("def f(): pass", "f", ""))
        assert tester.ask("extract", 5, ("def f(): pass", "f", ""))[0] == PASSED


def test_the_processor_time_is_a_time_out(grader: CodeGrader) -> None:
    code = f"import os\ndef f(x):\n    os.kill(os.getpid(), {int(signal.SIGXCPU)})"
    assert judge(grader, asserting("assert f(1)"), code).reason == "timed out by its processor time in test 1 of 1"


def test_the_sandbox_is_not_probed_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program.Program, "__init__", lambda *_: pytest.fail("started"))
    CodeGrader()


def test_a_program_without_the_class_that_the_tests_use_is_incorrect() -> None:
    tests = CodeTests(entry_point="longest", suites=(Suite(name="base", asserts=("assert longest([Pair(1, 2)], 1) == 1",)),))
    problem = Problem("p", "q", "", Split.TEST, kind=AnswerKind.CODE, tests=tests.model_dump_json())
    bare = "```python\ndef longest(pairs, n):\n    return 1\n```"
    pair = "class Pair:\n    def __init__(self, a, b):\n        self.a, self.b = a, b\n\n"
    whole = bare.replace("def", f"{pair}def", 1)
    missing, found = CodeGrader().judge([(problem, bare), (problem, whole)])
    assert (missing.score, found.score) == (Score.INCORRECT, Score.CORRECT)
    assert "does not define Pair, which the tests use" in missing.reason
