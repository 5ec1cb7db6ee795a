"""The sandbox: starts processes for untrusted programs behind the strongest isolation that this machine allows."""

import itertools
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from trimtab.errors import ConfigError
from trimtab.tasks.sandbox.command import (
    PACKAGES,
    Backend,
    Plan,
    bwrap_programs,
    interpreter_layout,
    others_can_read,
    package_folders,
)
from trimtab.tasks.sandbox.program import NoSandboxError, Program, SandboxError
from trimtab.tasks.sandbox.selftest import gaps, what_works

_UNSAFE = "TRIMTAB_UNSAFE_SANDBOX"
_WAYS_OUT = (
    "Allow user namespaces (Docker: --security-opt seccomp=unconfined --security-opt apparmor=unconfined; Ubuntu 24.04: "
    "sysctl kernel.apparmor_restrict_unprivileged_userns=0), install bubblewrap if it may use them (apt install bubblewrap, "
    "or pip install 'trimtab[sandbox]'), grade on another machine, or accept weaker isolation with --unsafe-sandbox "
    "(Sandbox(unsafe=True)), which the verdict then names"
)
_FIRST_USER = 1_000_000_000
_USERS_PER_OWNER = 256
_NOBODY = 65_534
_ADMINISTRATOR = 1 << 21  # CAP_SYS_ADMIN
_MIB = 2**20
_started = itertools.count()


@dataclass(frozen=True, slots=True)
class Limits:
    """The resources of one program; beyond them it is ended or refused more.

    ``disk_mib`` and ``inodes`` bind where the program has a root of its own (see :meth:`Sandbox.describe`). ``tasks`` counts
    processes and threads.
    """

    seconds: int = 10
    memory_mib: int = 1024
    file_mib: int = 16
    disk_mib: int = 64
    inodes: int = 4096
    open_files: int = 64
    tasks: int = 32

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ConfigError(f"limit {name} must be at least 1, got {getattr(self, name)}")


DEFAULT = Limits()
"""What one program may use, unless told otherwise."""


def allow_unsafe(allowed: bool = True) -> None:
    """What ``--unsafe-sandbox`` does: here and in processes started from here, a :class:`Sandbox` may fall back to ``limits``."""
    if allowed:
        os.environ[_UNSAFE] = "1"
    else:
        os.environ.pop(_UNSAFE, None)


class Sandbox:
    """Isolated processes for untrusted Python programs.

    The first sandbox of a process tests itself: a program of ours tries to read and change files outside its folder, to use the
    network, to signal its owner and to become root. If anything works that :meth:`describe` does not name, there is no sandbox.

    Args:
        limits: what one program may use.
        packages: installed packages that a program may import beside the standard library.
        backend: ``bwrap``, ``namespaces`` or, with ``unsafe`` alone, ``limits``. None takes the first of them that runs here.
        unsafe: whether programs may be run by ``limits``: no root and no namespaces of their own. None takes what
            :func:`allow_unsafe` has set.

    Raises:
        NoSandboxError: no backend runs here, with the reason of each and the ways out.
        SandboxError: the self-test did what no program may do.
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
        unsafe: bool | None = None,
    ) -> None:
        self.limits = limits
        self._packages = package_folders(tuple(packages))
        unsafe = os.environ.get(_UNSAFE) == "1" if unsafe is None else unsafe
        if backend == "limits" and not unsafe:
            raise SandboxError(
                "backend 'limits' gives programs no root and no namespaces; say unsafe=True to run them all the same"
            )
        self.backend: Backend = backend or _first_that_runs(unsafe)
        self._bwrap, self.layers = _tested(self.backend)

    def describe(self) -> str:
        """The layers that confine a program here, and those that are missing: one line for a report."""
        found = gaps(self.layers)
        unsafe = "UNSAFE, as --unsafe-sandbox allows: " if self.backend == "limits" else ""
        return unsafe + ", ".join(self.layers) + (f"; not stopped here: {', '.join(found)}" if found else "")

    def start(self) -> Program:
        """A process that isolates itself; :meth:`Program.wait_ready` says when it has.

        Raises:
            SandboxError: no process could be started.
        """
        return _start(self.backend, self._bwrap, self.limits, self._packages)


def describe_best() -> str:
    """:meth:`Sandbox.describe` of the sandbox that this machine has by default, or that it has none: for a report."""
    try:
        return Sandbox(packages=()).describe()
    except NoSandboxError:
        return "none, on the machine that writes this"


def _start(backend: Backend, bwrap: str | None, limits: Limits, packages: Sequence[Path]) -> Program:
    user = _program_user(backend)
    layout = interpreter_layout()
    moved = [(str(path), str(path) if backend == "limits" else f"{PACKAGES}/{path.name}") for path in packages]
    changes_inside = user is None or backend == "limits" or _is_administrator()
    plan: Plan = {
        "backend": backend,
        "channel": -1,
        "folder": "",
        "search": [],
        "readable": [*layout.readable, *moved],
        "hidden": list(layout.hidden),
        "user": user if changes_inside else None,
        "seconds": limits.seconds,
        "memory": limits.memory_mib * _MIB,
        "file_size": limits.file_mib * _MIB,
        "disk": limits.disk_mib * _MIB,
        "inodes": limits.inodes,
        "open_files": limits.open_files,
        "tasks": limits.tasks + _tasks_counted_with(backend),
    }
    return Program(plan, packages, None if changes_inside else user, bwrap)


def _program_user(backend: Backend) -> int | None:
    """For root: a uid that no other process has, so that its process limit counts the program alone. None stays this user.

    Raises:
        NoSandboxError: programs would run as root.
    """
    if os.geteuid() != 0:
        return None
    library = Path(os.__file__).parent
    if not others_can_read(library, from_root=backend == "limits" or not _is_administrator()):
        raise NoSandboxError(
            f"as root it runs programs as another user, who cannot read Python's library {library}; {_opening(library)}, use "
            "another interpreter, or run trimtab as an ordinary user"
        )
    own = _FIRST_USER + os.getpid() * _USERS_PER_OWNER + next(_started) % _USERS_PER_OWNER
    for user in (own, _NOBODY):
        if _is_mapped(user):
            return user
    raise NoSandboxError("as root it runs programs as another user, and this container has none; run trimtab as an ordinary user")


def _opening(library: Path) -> str:
    """How root lets others read a library: by the folders above it that they cannot pass, or by its files."""
    closed = [str(folder) for folder in reversed(library.parents) if not folder.stat().st_mode & 0o001]
    return f"chmod o+x {' '.join(closed)}" if closed else f"chmod -R o+rX {library}"


def _is_mapped(user: int) -> bool:
    """Whether this user namespace knows a uid; containers without root know 65,536 of them."""
    if sys.platform != "linux":
        return user == _NOBODY
    lines = [[int(field) for field in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return any(first <= user < first + count for first, _, count in lines)


@cache
def _is_administrator() -> bool:
    """Whether root may make namespaces; in most containers it may not, and an ordinary user can do it where root cannot."""
    if sys.platform != "linux":
        return True
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return bool(int(fields["CapEff"], 16) & _ADMINISTRATOR)


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


def _first_that_runs(unsafe: bool) -> Backend:
    refused = []
    candidates: tuple[Backend, ...] = ("bwrap", "namespaces", "limits") if unsafe else ("bwrap", "namespaces")
    for backend in candidates:
        try:
            _tested(backend)
        except NoSandboxError as error:
            refused.append(f"{backend}: {error}")
        else:
            return backend
    ways_out = "" if unsafe else f". {_WAYS_OUT}"
    raise NoSandboxError(f"no sandbox runs here, so no program is graded. {'; '.join(refused)}{ways_out}", code="none")


class _Tested(NamedTuple):
    bwrap: str | None
    layers: tuple[str, ...]


@cache
def _tested(backend: Backend) -> _Tested:
    """Start a program of ours in a backend, once a process: what holds it, and that it holds."""
    if sys.platform not in ("linux", "darwin"):
        raise NoSandboxError(f"untrusted programs can be run on Linux and macOS, not on {sys.platform}; grade on such a machine")
    programs = bwrap_programs() if backend == "bwrap" else [None]
    if not programs:
        raise NoSandboxError("not installed")
    refused = []
    for bwrap in programs:
        try:
            return _Tested(bwrap, _test(backend, bwrap))
        except NoSandboxError as error:
            refused.append(f"{bwrap}: {error}" if bwrap else str(error))
    raise NoSandboxError("; ".join(refused))


def _test(backend: Backend, bwrap: str | None) -> tuple[str, ...]:
    with ExitStack() as stack:
        try:
            program = stack.enter_context(_start(backend, bwrap, DEFAULT, ()))
            layers = program.wait_ready()
        except SandboxError as error:
            raise NoSandboxError(str(error)) from error
        left_open = gaps(layers)
        worked = [deed for deed in what_works(program) if deed not in left_open]
    if worked:
        raise SandboxError(
            f"backend {backend} does not hold on this machine: its self-test worked at {', '.join(worked)}; no program is run",
            code="does-not-hold",
        )
    return layers
