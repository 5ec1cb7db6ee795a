"""The tester: a trusted process that runs benchmark tests, apart from the grader's own. It serves many programs, one fork each.

A test may loop, or choke on a value that a program returned; the fork that runs it has a clock, a memory limit and an end.
"""

import os
import resource
import signal
import socket
import sys
from collections.abc import Callable

from trimtab.tasks.grading.code_extract import NoProgramError, extract_program
from trimtab.tasks.grading.code_remote import RemoteProgram
from trimtab.tasks.grading.code_suite import DIED, FAILED, PASSED, SuiteJob, run_suite
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
