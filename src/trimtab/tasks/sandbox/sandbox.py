"""The sandbox: starts processes for untrusted programs behind the strongest isolation that this machine allows."""

import itertools
import os
import platform
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from trimtab.tasks.sandbox.command import find_bwrap
from trimtab.tasks.sandbox.layout import PACKAGES, interpreter_layout, others_can_read, package_folders
from trimtab.tasks.sandbox.limits import Limits
from trimtab.tasks.sandbox.plan import Backend, Plan
from trimtab.tasks.sandbox.program import Program, SandboxError

_FIRST_USER = 1_000_000_000
_USERS_PER_OWNER = 256
_NOBODY = 65_534
_MIB = 2**20
_started = itertools.count()

DEFAULT = Limits()
"""What one program may use, unless told otherwise."""


class Sandbox:
    """Isolated processes for untrusted Python programs.

    Args:
        limits: what one program may use.
        packages: installed packages that a program may import beside the standard library.
        backend: ``bwrap``, ``namespaces`` or ``limits``. None takes the first of them that works here, found once by starting
            an empty program in each.

    Raises:
        SandboxError: no backend works, with the reason of each.
        ConfigError: a package is not installed.

    Example:
        >>> Sandbox().describe()  # doctest: +SKIP
        'namespaces (mount, pid, network, ipc, uts), own root (size and number of files limited), limits (cpu, as, ...), seccomp'
    """

    def __init__(
        self,
        limits: Limits = DEFAULT,
        packages: Sequence[str] = ("numpy",),
        backend: Backend | None = None,
    ) -> None:
        self.limits = limits
        self._packages = package_folders(tuple(packages))
        self.backend: Backend = backend or _first_that_works()
        self.layers = _probe(self.backend)

    def describe(self) -> str:
        """What holds a program here, and what does not: one line for a report."""
        gaps = _gaps(self.layers)
        return ", ".join(self.layers) + (f"; not stopped here: {', '.join(gaps)}" if gaps else "")

    def start(self) -> Program:
        """A process that isolates itself; :meth:`Program.wait_ready` says when it has.

        Raises:
            SandboxError: no process could be started.
        """
        return _start(self.backend, self.limits, self._packages)


def _start(backend: Backend, limits: Limits, packages: Sequence[Path]) -> Program:
    user = _program_user(backend)
    layout = interpreter_layout()
    moved = [(str(path), str(path) if backend == "limits" else f"{PACKAGES}/{path.name}") for path in packages]
    plan: Plan = {
        "backend": backend,
        "channel": -1,
        "folder": "",
        "search": [],
        "readable": [*layout.readable, *moved],
        "hidden": list(layout.hidden),
        "user": None if backend == "bwrap" else user,
        "seconds": limits.seconds,
        "memory": limits.memory_mib * _MIB,
        "file_size": limits.file_mib * _MIB,
        "disk": limits.disk_mib * _MIB,
        "inodes": limits.inodes,
        "open_files": limits.open_files,
        "tasks": limits.tasks + _tasks_counted_with(backend),
    }
    return Program(plan, packages, owner=user if backend == "bwrap" else None)


def _program_user(backend: Backend) -> int | None:
    """For root: a uid that no other process has, so that its process limit counts the program alone. None stays this user."""
    library = Path(os.__file__).parent
    if os.geteuid() != 0 or not others_can_read(library, from_root=backend != "namespaces"):
        return None
    own = _FIRST_USER + os.getpid() * _USERS_PER_OWNER + next(_started) % _USERS_PER_OWNER
    return next((user for user in (own, _NOBODY) if _is_mapped(user)), None)


def _is_mapped(user: int) -> bool:
    """Whether this user namespace knows a uid; containers without root know 65,536 of them."""
    if sys.platform != "linux":
        return user == _NOBODY
    lines = [[int(field) for field in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return any(first <= user < first + count for first, _, count in lines)


def _tasks_counted_with(backend: Backend) -> int:
    """Tasks of this user that the kernel counts together with the program's against its process limit."""
    if os.geteuid() == 0 or sys.platform != "linux":
        return 0
    version = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    if backend != "limits" and version >= (5, 14):  # since then a user namespace counts by itself
        return 0
    total = 0
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and process.stat().st_uid == os.getuid():
                total += sum(1 for _ in (process / "task").iterdir())
        except OSError:  # ended meanwhile, or not ours to read
            continue
    return total


@cache
def _first_that_works() -> Backend:
    refused = []
    candidates: tuple[Backend, ...] = ("bwrap", "namespaces", "limits")
    for backend in candidates:
        try:
            _probe(backend)
        except SandboxError as error:
            refused.append(f"{backend}: {error}")
        else:
            return backend
    raise SandboxError("no sandbox works here, so no program can be graded. " + "; ".join(refused))


@cache
def _probe(backend: Backend) -> tuple[str, ...]:
    """Start an empty program and ask what holds it."""
    if sys.platform not in ("linux", "darwin"):
        raise SandboxError(f"untrusted programs can be run on Linux and macOS, not on {sys.platform}; grade on such a machine")
    if backend == "bwrap" and find_bwrap() is None:
        raise SandboxError("bwrap is not installed (package bubblewrap)")
    if backend == "bwrap" and os.geteuid() == 0 and _program_user(backend) is None:
        raise SandboxError("as root it would run programs as root: other users cannot read this interpreter")
    with _start(backend, DEFAULT, ()) as program:
        return program.wait_ready()


def _gaps(layers: Sequence[str]) -> list[str]:
    """What a program could do here that it should not."""
    held = " ".join(layer for layer in layers if not layer.startswith("without"))
    gaps = []
    if "own root" not in held and "Landlock" not in held:
        gaps.append("reading and writing this user's files")
    if "own root" not in held:
        gaps.append("filling the disk with many files until the time is over")
    elif "number of files" not in held:
        gaps.append("making empty files until the time is over")
    if "network" not in held and "seccomp" not in held:
        gaps.append("using the network")
    if "seccomp" not in held:
        gaps.append("starting processes, each with a memory limit of its own")
    if "unprivileged user" not in held and os.geteuid() == 0:
        gaps.append("starting threads until memory is used up (the programs run as root)")
    if "pid" not in held and "orphans" not in held:
        gaps.append("leaving processes behind")
    if "pid" not in held and "seccomp" not in held and "unprivileged user" not in held:
        gaps.append("signalling this user's processes")
    return gaps
