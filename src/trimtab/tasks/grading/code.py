"""The code grader: an answer is correct when its program passes every suite of the problem's tests.

Three processes take part. The grader's own runs nothing of a benchmark or an answer. The program runs in a sandbox, without its
tests. The tests run in a tester process, without the program: they call it through a channel that carries plain data alone.
"""

import logging
import os
import queue
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trimtab.errors import TrimtabError
from trimtab.tasks.grading.code_tester import BROKEN, DIED, FAILED, GONE, PASSED, ProgramRun
from trimtab.tasks.grading.grader import Judgement
from trimtab.tasks.sandbox import Sandbox, SandboxError
from trimtab.tasks.sandbox.channel import Channel, ChannelError
from trimtab.tasks.sandbox.codec import CodecError, decode, encode
from trimtab.tasks.sandbox.command import clean_environment, python_command
from trimtab.traces import Problem, Score


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


_MODULE = "trimtab.tasks.grading.code_tester"
_SPARE_SECONDS = 30.0


class TrustedTesterError(TrimtabError):
    """The tester itself failed: no verdict on a program follows from it."""

    kind = "grader"


class TrustedTester:
    """A tester process, started when it is first asked and again after it failed. Use it in a ``with`` statement."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._prepared: set[str] = set()

    def prepare(self, module: str) -> None:
        """Import a module once, for all later jobs."""
        if module not in self._prepared:
            self._send(("prepare", 0, ((), (module,))), None)
            self._prepared.add(module)

    def ask(self, verb: str, seconds: int, arguments: tuple, descriptor: int | None = None) -> tuple[str, str]:
        """Run one job in a fork that ends after ``seconds``.

        Returns:
            The job's status and its text; ``("died", signal name)`` when its fork did not live to answer.

        Raises:
            TrustedTesterError: the process failed or does not answer.
        """
        try:
            self._send((verb, seconds, arguments), descriptor)
            return decode(Channel(self._connected().fileno()).receive(seconds + _SPARE_SECONDS))  # type: ignore[return-value]
        except (EOFError, TimeoutError, OSError, ChannelError, CodecError) as error:
            self.close()
            raise TrustedTesterError(f"the tester failed: {type(error).__name__}: {error}", code="failed") from error

    def close(self) -> None:
        """End the process."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._control = None
        self._prepared.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _connected(self) -> socket.socket:
        if self._control is None:
            self._control, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    python_command(_MODULE),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=clean_environment("/"),
                    cwd="/",
                    start_new_session=True,
                )
            self._send(("prepare", 0, (tuple(path for path in sys.path if path), ())), None)
        return self._control

    def _send(self, message: tuple, descriptor: int | None) -> None:
        control = self._connected()
        control.setblocking(True)
        socket.send_fds(control, [b"j"], [] if descriptor is None else [descriptor])
        Channel(control.fileno()).send(encode(message), _SPARE_SECONDS)


_EXTRACT_SECONDS = 10
_EXIT_SECONDS = 3.0
_SIGNAL_BASE = 128
_ATTEMPTS = 2
_FROM_OUTSIDE = frozenset({"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"})
"""Signals that no computation raises by itself."""
KILLED = "killed"
"""Status of a suite whose program was killed."""

logger = logging.getLogger(__name__)


class CodeGrader:
    """Runs programs in a sandbox and their tests outside of it.

    Tests see what a program returns or raises; functions that it returns can be called. What it does to lists, dictionaries and
    sets that it is given is carried over where it returns nothing or one of them, as functions that work in place do.

    A program that ends by SIGKILL was killed from outside, by a person or a kernel short of memory: it is run once more, and
    unscored when it ends so again. The sandbox of Linux lets no program send SIGKILL to itself, which raises PermissionError
    there, so an answer that tries is incorrect. On macOS, which has no such filter, it is unscored, as if from outside.

    Args:
        sandbox: where programs run. None takes :class:`trimtab.tasks.sandbox.Sandbox` with its default limits.
        workers: how many programs run at a time. None takes the number of processors.

    Example:
        >>> tests = CodeTests(entry_point="add", suites=[Suite(name="base", asserts=["assert add(1, 2) == 3"])])
        >>> problem = Problem("p", "Add.", "", Split.TEST, kind=AnswerKind.CODE, tests=tests.model_dump_json())
        >>> CodeGrader().judge([(problem, "def add(a, b):\\n    return a + b")])[0].score
        <Score.CORRECT: 'correct'>
    """

    def __init__(self, sandbox: Sandbox | None = None, workers: int | None = None) -> None:
        self._sandbox = sandbox
        self._workers = workers or _processors()

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox in use; the default one is probed for when it is first needed."""
        if self._sandbox is None:
            self._sandbox = Sandbox()
            logger.info("untrusted programs run behind: %s", self._sandbox.describe())
        return self._sandbox

    def judge(self, answers: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """One judgement per (problem, response), in order; ``answer`` is the program.

        Raises:
            SandboxError: no sandbox works on this machine.
        """
        if not answers:
            return []
        sandbox = self.sandbox
        count = min(self._workers, len(answers))
        free: queue.SimpleQueue[TrustedTester] = queue.SimpleQueue()

        def judge_one(answer: tuple[Problem, str]) -> Judgement:
            tester = free.get()
            try:
                return _judge(sandbox, tester, *answer)
            finally:
                free.put(tester)

        with ExitStack() as stack, ThreadPoolExecutor(count) as pool:
            for _ in range(count):
                free.put(stack.enter_context(TrustedTester()))
            try:
                return list(pool.map(judge_one, answers))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _judge(sandbox: Sandbox, tester: TrustedTester, problem: Problem, response: str) -> Judgement:
    try:
        tests = CodeTests.model_validate_json(problem.tests)
    except ValidationError as error:
        return Judgement(Score.UNSCORED, f"problem {problem.id}: its tests cannot be read: {error.errors()[0]['msg']}")
    program = ""
    try:
        status, program = tester.ask("extract", _EXTRACT_SECONDS, (response, tests.entry_point, tests.preamble))
        if status == DIED:
            # no exception of ours, but a parser that the answer overran, or that took too long over it
            crashed = program in signal.Signals.__members__ and program not in _FROM_OUTSIDE
            verdict, who = (Score.INCORRECT, "the answer") if crashed else (Score.UNSCORED, "the grader")
            return Judgement(verdict, f"{who} failed while the program was looked for: {program}")
        if status == FAILED:
            return Judgement(Score.INCORRECT, program)
        outcomes = [(suite.name, _run(sandbox, tester, tests, suite, program)) for suite in tests.suites]
    except (SandboxError, TrustedTesterError, OSError) as error:
        return Judgement(Score.UNSCORED, f"the grader failed: {error}", program)
    return _sum_up(outcomes, program)


def _run(sandbox: Sandbox, tester: TrustedTester, tests: CodeTests, suite: Suite, program: str) -> ProgramRun:
    """One suite, and once more when the program's process was killed."""
    for _ in range(_ATTEMPTS - 1):
        outcome = _run_once(sandbox, tester, tests, suite, program)
        if outcome.status != KILLED:
            return outcome
    outcome = _run_once(sandbox, tester, tests, suite, program)
    return ProgramRun(BROKEN, outcome.reason) if outcome.status == KILLED else outcome


def _run_once(sandbox: Sandbox, tester: TrustedTester, tests: CodeTests, suite: Suite, program: str) -> ProgramRun:
    """One suite in a fresh process, so that neither its clock nor its state reaches into another suite."""
    if "numpy" in suite.setup + suite.source + tests.preamble:
        tester.prepare("numpy")
    seconds = sandbox.limits.seconds
    asked = (tests.entry_point, tests.preamble, suite.setup, suite.asserts, suite.source, seconds)
    with sandbox.start() as running:
        running.wait_ready()
        # the program's time and as much for the tests themselves
        status, reason = tester.ask("test", 2 * seconds + 1, (asked, program), running.channel.fileno())
        if status == GONE:
            code = running.exit_code(_EXIT_SECONDS)
            if code == _SIGNAL_BASE + signal.SIGKILL:
                return ProgramRun(KILLED, f"the program's process was killed {reason}, {_ATTEMPTS} times")
            return ProgramRun(FAILED, f"{_ending(code)} {reason}")
    if status == DIED and reason == signal.SIGALRM.name:
        return ProgramRun(FAILED, f"timed out after {2 * seconds + 1} s, in the tests of what the program returned")
    if status == DIED and reason in signal.Signals.__members__ and reason not in _FROM_OUTSIDE:
        return ProgramRun(FAILED, f"the tests crashed on what the program returned: {reason}")
    return ProgramRun(BROKEN, f"the tester ended by {reason}") if status == DIED else ProgramRun(status, reason)


def _ending(code: int | None) -> str:
    """How a program left that no longer answers."""
    if code is None:
        return "closed its channel"
    if code < _SIGNAL_BASE:
        return f"exited with status {code}"
    if code - _SIGNAL_BASE == signal.SIGXCPU:
        return "timed out by its processor time"
    return f"crashed: signal {code - _SIGNAL_BASE}"


def _sum_up(outcomes: Sequence[tuple[str, ProgramRun]], program: str) -> Judgement:
    statuses = {outcome.status for _, outcome in outcomes}
    if statuses == {PASSED}:
        return Judgement(Score.CORRECT, f"passed {' and '.join(name for name, _ in outcomes)} tests", program)
    said = [f"{name} tests: {outcome.reason or outcome.status}" for name, outcome in outcomes]
    reason = "; ".join(said) if len(said) > 1 else outcomes[0][1].reason
    return Judgement(Score.INCORRECT if FAILED in statuses else Score.UNSCORED, _printable(reason), program)


def _printable(text: str) -> str:
    """A reason quotes the program: without what a terminal would obey or a file cannot hold."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
