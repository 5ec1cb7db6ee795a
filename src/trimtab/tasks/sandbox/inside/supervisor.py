"""The process between the sandbox's owner and the program: it waits, and when either ends it leaves nothing alive."""

# this interpreter starts once for every program, and pathlib would cost it a tenth of that
# ruff: noqa: PTH123, PTH208

import os
import select
import signal
import sys
import time

_POLL_SECONDS = 0.02
SIGNAL_BASE = 128


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
    return SIGNAL_BASE - code if code < 0 else code


def kill_descendants() -> None:
    """Kill and reap until this process, which has adopted the orphans below it, has no child left (Linux).

    Processes are stopped before they are killed, so that a program that keeps forking cannot outrun the loop.
    """
    while True:
        found = _descendants(os.getpid())
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in found:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)


def _descendants(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]
