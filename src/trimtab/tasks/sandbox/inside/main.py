"""The sandbox's process from its start to its end: read the plan, isolate, fork the program, supervise it."""

from __future__ import annotations

import os
import sys

from trimtab.tasks.sandbox.channel import Channel
from trimtab.tasks.sandbox.codec import decode, encode
from trimtab.tasks.sandbox.inside.kernel import adopt_orphans
from trimtab.tasks.sandbox.inside.newroot import enter_new_root, leave_namespaces
from trimtab.tasks.sandbox.inside.privileges import give_up, keep_only
from trimtab.tasks.sandbox.inside.serve import serve
from trimtab.tasks.sandbox.inside.supervisor import kill_descendants, supervise

TYPE_CHECKING = False  # typing would cost the program's process a tenth of its start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from trimtab.tasks.sandbox.plan import Plan

_LIFELINE = 0
_OWNER_FACTOR, _OWNER_SECONDS = 3, 10
"""The supervisor bounds its owner too, generously: tests may take their own time between the program's calls."""


def main() -> None:
    """Run one sandboxed process, as the plan on the standard input says; the input stays open as the lifeline."""
    plan: Plan = decode(Channel(_LIFELINE).receive())  # type: ignore[assignment]
    run = {"bwrap": _in_bwrap, "namespaces": _in_namespaces, "limits": _in_limits}[plan["backend"]]
    sys.exit(run(plan))


def _in_bwrap(plan: Plan) -> int:
    """bwrap has made the namespaces and the root, and ends all that is left when this process ends."""
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
    """No namespaces: this process adopts what the program leaves behind and ends it."""
    os.chdir(plan["folder"])
    if plan["user"] is not None:
        os.chown(".", plan["user"], plan["user"])
    if sys.platform != "linux":
        return _supervised(plan, ())
    adopt_orphans()
    try:
        return _supervised(plan, ("orphans ended",))
    finally:
        kill_descendants()


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
