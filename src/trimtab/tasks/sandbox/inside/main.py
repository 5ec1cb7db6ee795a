"""The sandbox's process from its start to its end: read the plan, isolate, fork the program, supervise it, answer its tests.

Nothing on the program's side of the channel is trusted by the other side. The program shares this interpreter and can find, patch
or imitate all of it; what it gains is to choose its own return values, which is what it was asked for.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from trimtab.tasks.sandbox.channel import Channel
from trimtab.tasks.sandbox.codec import REQUEST_DEPTH, CodecError, decode, encode
from trimtab.tasks.sandbox.inside.confine import enter_new_root, give_up, keep_only, leave_namespaces

TYPE_CHECKING = False  # typing would cost the program's process a tenth of its start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from trimtab.tasks.sandbox.command import Plan

MODULE = "program"
_MAX_TEXT = 1_000
_POLL_SECONDS = 0.02
_SIGNAL_BASE = 128
_LIFELINE = 0
_OWNER_FACTOR, _OWNER_SECONDS = 3, 10
"""The supervisor bounds its owner too, generously: tests may take their own time between the program's calls."""


def main() -> None:
    """Run one sandboxed process, as the plan on the standard input says; the input stays open as the lifeline."""
    plan: Plan = decode(Channel(_LIFELINE).receive())  # type: ignore[assignment]
    run = {"bwrap": _in_bwrap, "namespaces": _in_namespaces, "limits": _in_limits}[plan["backend"]]
    sys.exit(run(plan))


def _in_bwrap(plan: Plan) -> int:
    """bwrap has made the namespaces and the root; this is the first process in them, and what is left ends with it."""
    return _supervised(plan, ("bwrap (mount, pid, network, ipc, uts)", "own root (size limited)"))


def _in_namespaces(plan: Plan) -> int:
    """This process stays outside the pid namespace and waits; the first process inside supervises the program."""
    entered = leave_namespaces()
    enter_new_root(plan)
    first = os.fork()
    if first == 0:
        # when this first process ends, the kernel kills every process of the namespace
        _exit_with(lambda: _supervised(plan, (entered, "own root (size and number of files limited)")))
    os.close(plan["channel"])
    return os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])


def _in_limits(plan: Plan) -> int:
    """No namespaces: the system call filter, which starts no process, is all that keeps others from being left behind."""
    os.chdir(plan["folder"])
    if plan["user"] is not None:
        os.chown(".", plan["user"], plan["user"])
    return _supervised(plan, ())


def _supervised(plan: Plan, layers: tuple[str, ...]) -> int:
    program = os.fork()
    if program == 0:
        if sys.platform != "linux":
            os.setpgid(0, 0)  # all that the supervisor can end there
        _exit_with(lambda: _run_program(plan, layers))
    os.close(plan["channel"])
    return supervise(program, _LIFELINE, _OWNER_FACTOR * plan["seconds"] + _OWNER_SECONDS)


def _exit_with(run: Callable[[], int]) -> NoReturn:
    """End a forked process without returning into its parent's code."""
    code = 1
    try:
        code = run()
    finally:
        os._exit(code)


def _run_program(plan: Plan, layers: tuple[str, ...]) -> int:
    """Become the program's process. The first message, sent before any of the program runs, says what holds it."""
    channel = Channel(keep_only(plan["channel"]))
    try:
        layers += give_up(plan)
    except OSError as error:
        channel.send(encode((False, str(error))))
        return 1
    sys.path += plan["search"]
    sys.argv = [""]
    for name in [name for name in sys.modules if name.partition(".")[0] == "trimtab"]:
        del sys.modules[name]
    channel.send(encode((True, layers)))
    serve(channel)
    return 0


def supervise(child: int, lifeline: int, seconds: float) -> int:
    """Wait until the child ends, the lifeline closes or the time is over, then kill the child.

    Args:
        child: the program's process.
        lifeline: the read end of a pipe whose write end the owner holds: it closes when the owner wants the end, or ends itself.
        seconds: a bound of our own, for an owner that is stuck.

    Returns:
        The child's exit status, or 128 plus the signal that ended it, as a shell reports it.
    """
    watched = [lifeline]
    interval = _POLL_SECONDS
    if sys.platform == "linux":
        try:
            watched.append(os.pidfd_open(child))
            interval = seconds
        except OSError:  # before Linux 5.3; look at short intervals, as on macOS
            pass
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            ready, _, _ = select.select(watched, [], [], max(0.0, min(interval, deadline - time.monotonic())))
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return _exit_code(status)
            if lifeline in ready:
                break
        os.kill(child, signal.SIGKILL)
        return _exit_code(os.waitpid(child, 0)[1])
    finally:
        if sys.platform != "linux":
            _kill_group(child)


def _kill_group(leader: int) -> None:
    """What is left of the program's process group; a process that left the group is not found (macOS)."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # nobody is left, which macOS reports as either
        return


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return _SIGNAL_BASE - code if code < 0 else code


class _Program:
    """The program's module, and its objects that the tests hold references to."""

    def __init__(self) -> None:
        # a real module, under a name that is not __main__: dataclasses look their module up, and demonstrations stay asleep
        self.module = type(sys)(MODULE)
        self.objects: list[object] = []
        self.last: tuple[tuple, object] = ((), None)

    def refer(self, value: object) -> tuple[int, str]:
        self.objects.append(value)
        return len(self.objects) - 1, type(value).__qualname__

    def resolve(self, number: int, _: str) -> object:
        return self.objects[number]

    def load(self, preamble: str, source: str, entry_point: str) -> object:
        """Run the preamble, then the program, and name what it defines. A preamble's own entry point is forgotten."""
        namespace = self.module.__dict__
        sys.modules[MODULE] = self.module
        exec(compile(preamble, "<preamble>", "exec", dont_inherit=True), namespace)
        namespace.pop(entry_point, None)
        exec(compile(source, "<program>", "exec", dont_inherit=True), namespace)
        return [name for name, value in namespace.items() if callable(value)]

    def call(self, function: object, positional: tuple, named: dict) -> object:
        """Call a function by its name, or one that a call returned."""
        found = self.module.__dict__[function] if type(function) is str else function
        self.last = ((), None)
        value = found(*positional, **named)  # type: ignore[operator]
        self.last = (positional, value)
        return value

    def changes(self) -> object:
        """What the last call did to its arguments, where it works in place: it returned nothing, or one of them.

        Gives the place of the argument that it returned, -1 for none, and the arguments as they are now.
        """
        positional, value = self.last
        place = next((place for place, given in enumerate(positional) if given is value and value is not None), -1)
        return place, positional if value is None or place >= 0 else ()

    def get(self, target: object, name: str) -> object:
        return getattr(target, name)

    def set(self, target: object, name: str, value: object) -> None:
        setattr(target, name, value)


def serve(channel: Channel) -> None:
    """Answer each request ``(nonce, verb, arguments)`` with ``(nonce, "value", value)`` or ``(nonce, "raised", types, text)``."""
    program = _Program()
    verbs = {"load": program.load, "call": program.call, "changes": program.changes, "get": program.get, "set": program.set}
    while True:
        try:
            request = channel.receive()
        except EOFError:
            return
        nonce, verb, arguments = decode(request, program.resolve, REQUEST_DEPTH)  # type: ignore[misc]
        try:
            reply = encode((nonce, "value", verbs[verb](*arguments)), program.refer)
        except CodecError as error:
            reply = encode((nonce, "raised", [], f"the result cannot be carried over: {error}"))
        except BaseException as error:  # noqa: BLE001 - whatever the program raises is its answer
            reply = _raised(nonce, error)
        channel.send(reply)


def _raised(nonce: bytes, error: BaseException) -> bytes:
    types = [kind.__name__ for kind in type(error).__mro__]
    try:
        text = str(error)[:_MAX_TEXT]
    except BaseException:  # noqa: BLE001 - the program's own __str__
        text = ""
    return encode((nonce, "raised", types, text))
