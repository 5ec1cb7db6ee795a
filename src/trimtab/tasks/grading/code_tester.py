"""The tester: a trusted process that runs benchmark tests, apart from the grader's own. It serves many programs, one fork each.

A test may loop, or choke on a value that a program returned; the fork that runs it has a clock, a memory limit and an end.
"""

import ast
import builtins
import importlib
import os
import reprlib
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from types import FunctionType
from typing import NamedTuple

from trimtab.tasks.grading.code_extract import NoProgramError, extract_program
from trimtab.tasks.grading.code_remote import BrokenTestsError, FaultError, GoneError, HungError, RaisedError, RemoteProgram
from trimtab.tasks.sandbox.channel import Channel
from trimtab.tasks.sandbox.codec import decode, encode

_CONTROL = 0
_MEMORY_BYTES = 2 * 2**30


def main() -> None:
    """Serve ``(verb, seconds, arguments)`` on the standard input, a socket, until it closes. A test's channel comes beside it."""
    if sys.platform == "linux":
        from trimtab.tasks.sandbox.inside.kernel import not_dumpable

        not_dumpable()
    control = socket.socket(fileno=os.dup(_CONTROL))
    channel = Channel(control.fileno())
    jobs: dict[str, Callable[..., tuple[str, str]]] = {"extract": _extract, "test": _test}
    while True:
        control.setblocking(True)
        sign, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not sign:
            return
        verb, seconds, arguments = decode(channel.receive())  # type: ignore[misc]
        if verb == "prepare":
            _prepare(*arguments)
            continue
        child = os.fork()
        if child == 0:
            _answer(channel, seconds, lambda run=jobs[verb], given=(*descriptors, *arguments): run(*given))
        for descriptor in descriptors:
            os.close(descriptor)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != 0:
            channel.send(encode((DIED, signal.Signals(-status).name if status < 0 else f"status {status}")))


def _prepare(search: list[str], modules: list[str]) -> None:
    """Import what tests need before the forks, which then share it."""
    sys.path += [folder for folder in search if folder not in sys.path]
    for name in modules:
        __import__(name)


def _answer(channel: Channel, seconds: int, job: Callable[[], tuple[str, str]]) -> None:
    """Run one job in this fork, within its limits, and end."""
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux":  # macOS refuses an address-space limit
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        signal.setitimer(signal.ITIMER_REAL, seconds)  # its default action ends the fork
        result = encode(tuple(job()))
        signal.setitimer(signal.ITIMER_REAL, 0)
        channel.send(result)
        code = 0
    finally:
        os._exit(code)


def _extract(response: str, entry_point: str, preamble: str) -> tuple[str, str]:
    try:
        return PASSED, extract_program(response, entry_point, preamble)
    except NoProgramError as error:
        return FAILED, str(error)


def _test(descriptor: int, tests: tuple, program: str) -> tuple[str, str]:
    asked = SuiteJob(*tests)
    return run_suite(asked, program, RemoteProgram(descriptor, asked.seconds))


_TESTS = "<tests>"
_SHOWN = 200
# asserts of MBPP use these without importing them: the programs that they were written for did
_MODULES = (
    "cmath",
    "collections",
    "copy",
    "datetime",
    "functools",
    "heapq",
    "itertools",
    "math",
    "random",
    "re",
    "string",
    "sys",
)

PASSED, FAILED, GONE, BROKEN, DIED = "passed", "failed", "gone", "broken", "died"


class ProgramRun(NamedTuple):
    """``passed``, ``failed``, ``gone`` (the program ended, its owner knows how) or ``broken`` (the tests fail by themselves)."""

    status: str
    reason: str


class SuiteJob(NamedTuple):
    """One suite and what it needs of its problem (:class:`trimtab.tasks.grading.code.CodeTests`)."""

    entry_point: str
    preamble: str
    setup: str
    asserts: tuple[str, ...]
    source: str
    seconds: int


class _Place:
    """Which test is running, for the reason."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.text = ""


def run_suite(tests: SuiteJob, program: str, remote: RemoteProgram) -> ProgramRun:
    """Load a program and run a suite against it, up to the first failure."""
    place = _Place()
    try:
        _run(tests, program, remote, place)
    except FaultError:
        pass  # kept in remote.fault, where a test's own bare except cannot lose it
    except BrokenTestsError as error:
        return ProgramRun(BROKEN, str(error))
    except Exception as error:  # noqa: BLE001 - a failing test may raise anything
        if remote.fault is None:
            return _failure(error, tests, remote, place)
    if remote.fault is not None:
        return _fault(remote.fault, tests, remote, place)
    if remote.calls == 0:
        return ProgramRun(BROKEN, f"the tests never called {tests.entry_point}")
    return ProgramRun(PASSED, "")


def _run(tests: SuiteJob, program: str, remote: RemoteProgram, place: _Place) -> None:
    namespace: dict[str, object] = {"__name__": "tests"}
    preamble, setup, source = (_parse(text) for text in (tests.preamble, tests.setup, tests.source))
    asserts = [_parse(text) for text in tests.asserts]
    _execute(preamble, namespace)
    defined = remote.load(tests.preamble, program, tests.entry_point)
    if tests.entry_point not in defined:
        raise _MissingError(f"does not define {tests.entry_point}")
    function = remote.function(tests.entry_point)
    _provide(namespace, [setup, source, *asserts], defined, remote)
    namespace |= {tests.entry_point: function, "candidate": function}
    _execute(setup, namespace)
    for number, tree in enumerate(asserts, start=1):
        place.number, place.text = number, " ".join(tests.asserts[number - 1].split())[:_SHOWN]
        _execute(tree, namespace)
    _execute(source, namespace)
    check = namespace.get("check")
    if isinstance(check, FunctionType) and check.__code__.co_filename == _TESTS:
        check(function)


class _MissingError(Exception):
    """The program does not define its entry point, or a class that the tests build their arguments with."""


def _parse(source: str) -> ast.Module:
    try:
        return ast.parse(source, _TESTS)
    except (SyntaxError, ValueError) as error:
        raise BrokenTestsError(f"the tests are no Python: {error}") from error


def _execute(tree: ast.Module, namespace: dict[str, object]) -> None:
    # optimize=0: asserts stay, however this interpreter was started
    exec(compile(tree, _TESTS, "exec", dont_inherit=True, optimize=0), namespace)


def _provide(namespace: dict[str, object], trees: list[ast.Module], defined: list[str], remote: RemoteProgram) -> None:
    """Bind the names that the tests use and do not define: modules, and classes of the program (MBPP's ``Pair``).

    Only capitalised names come from the program. It must not supply, say, the ``isclose`` that judges it.
    """
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {node.id for node in names if not isinstance(node.ctx, ast.Load)} | namespace.keys() | set(dir(builtins))
    bound |= {name for node in nodes for name in _binds(node)}
    for name in {node.id for node in names} - bound:
        if name in _MODULES:
            namespace[name] = importlib.import_module(name)
        elif name[0].isupper() and name in defined:
            namespace[name] = remote.function(name)
        elif name[0].isupper():
            raise _MissingError(f"does not define {name}, which the tests use")


def _binds(node: ast.AST) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
            return [name]
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return [(alias.asname or alias.name).partition(".")[0] for alias in aliases]
        case _:
            return []


def _failure(error: Exception, tests: SuiteJob, remote: RemoteProgram, place: _Place) -> ProgramRun:
    if isinstance(error, _MissingError):
        return ProgramRun(FAILED, str(error))
    by_program = error is remote.raised
    if not by_program and (remote.calls == 0 or isinstance(error, NameError | ImportError | SyntaxError)):
        return ProgramRun(BROKEN, f"the tests failed by themselves: {_name(error)}")
    if remote.calls == 0:
        return ProgramRun(FAILED, _loading_failure(error))
    where = _where(tests, remote, place)
    if by_program and isinstance(error, MemoryError):
        return ProgramRun(FAILED, f"{where} failed: memory limit")
    kind, value = remote.last
    last = f"got {_shown(value)}" if kind == "gave" else f"raised {_name(remote.raised)}" if remote.raised else ""
    if not by_program and not isinstance(error, AssertionError):
        last += f"; then {_name(error)}"
    return ProgramRun(FAILED, f"{where} failed: {place.text or _line(error, tests, remote)} ({last})"[: 3 * _SHOWN])


def _loading_failure(error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"syntax error: {error}"[:_SHOWN]
    if isinstance(error, MemoryError):
        return "memory limit while loading"
    return f"failed while loading: {_name(error)}"


def _fault(fault: FaultError, tests: SuiteJob, remote: RemoteProgram, place: _Place) -> ProgramRun:
    where = f"in {_where(tests, remote, place)}" if remote.calls else "while loading"
    if isinstance(fault, HungError):
        return ProgramRun(FAILED, f"timed out after {tests.seconds} s {where}")
    if isinstance(fault, GoneError):
        return ProgramRun(GONE, where)
    return ProgramRun(FAILED, f"{fault} {where}")


def _where(tests: SuiteJob, remote: RemoteProgram, place: _Place) -> str:
    number = remote.calls if place.number is None else place.number
    return f"test {number} of {len(tests.asserts)}" if tests.asserts else f"test {number}"


def _line(error: Exception, tests: SuiteJob, remote: RemoteProgram) -> str:
    """The assert that failed; where it stands in a loop or a helper, the call that it judged."""
    lines = tests.source.splitlines()
    numbers = [number for frame, number in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == _TESTS]
    found = [lines[number - 1].strip() for number in numbers if number <= len(lines)]
    naming = [line for line in found if "candidate(" in line or f"{tests.entry_point}(" in line]
    line = (naming or found or [""])[-1]
    if line.startswith("assert") and naming and "*" not in line:
        return line[:_SHOWN]
    return f"{tests.entry_point}({', '.join(_shown(argument) for argument in remote.arguments)})"  # a loop over inputs


def _name(error: BaseException | None) -> str:
    kind = "" if isinstance(error, RaisedError) else type(error).__name__
    return ": ".join(part for part in (kind, " ".join(f"{error}".split())[:_SHOWN]) if part)


class _Short(reprlib.Repr):
    """A repr whose length and cost do not grow with a hostile value."""

    def repr_int(self, x: int, level: int) -> str:
        return f"an integer of {x.bit_length()} bits" if x.bit_length() > _SHOWN else super().repr_int(x, level)


def _shown(value: object) -> str:
    short = _Short()
    short.maxstring = short.maxother = 80
    return short.repr(value)
