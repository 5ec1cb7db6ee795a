"""Giving up everything that the program does not need, in its own process and before it is loaded.

A root of its own, where namespaces allow it; else Landlock. Then limits, another user, no capability, and the system call filter.
"""

# this interpreter starts once for every program, and pathlib would cost it a tenth of that
# ruff: noqa: PTH101, PTH102, PTH103, PTH106, PTH109, PTH112, PTH120, PTH123

from __future__ import annotations

import errno
import os
import resource
import stat
import struct
import sys

from trimtab.tasks.sandbox.inside import kernel
from trimtab.tasks.sandbox.inside.seccomp import apply_filter

TYPE_CHECKING = False  # typing would cost the program's process a tenth of its start
if TYPE_CHECKING:
    from trimtab.tasks.sandbox.command import Plan

_READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
_FILE_RIGHTS = 1 << 0 | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15
_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}
_TCP_BIND_AND_CONNECT = 1 << 0 | 1 << 1
_ABSTRACT_SOCKETS_AND_SIGNALS = 1 << 0 | 1 << 1
_SIGNALS = 64
_CHANNEL = 3
_HIGHEST_OPENED_HERE = 256
"""This process began with its standard descriptors and the channel, and the kernel gives out the lowest free number."""

_OLD = "/.old"
_EMPTY = "/.empty"
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_OPTIONAL_SPACES = kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
_SPACES = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | _OPTIONAL_SPACES


def leave_namespaces() -> str:
    """Enter new mount, pid, network, ipc and uts namespaces, and a user namespace where this user needs one.

    Returns:
        What was entered, in words.

    Raises:
        OSError: the kernel or the container refuses.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        kernel.unshare(_SPACES)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
    else:
        return "namespaces (mount, pid, network, ipc, uts)"
    kernel.unshare(_SPACES | kernel.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    return "namespaces (user, mount, pid, network, ipc, uts)"


def enter_new_root(plan: Plan) -> None:
    """Build the new root, move into it and forget the old one. Needs a mount namespace of one's own.

    Raises:
        OSError: a mount is refused.
    """
    os.umask(0o022)
    kernel.mount(None, "/", None, kernel.MS_SLAVE | kernel.MS_REC)
    base = "/tmp"  # only the place to mount over, in a namespace of our own; it exists everywhere
    options = f"size={plan['disk']},nr_inodes={plan['inodes']},mode=0755"
    kernel.mount("tmpfs", base, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    os.mkdir(base + _OLD)
    kernel.pivot_root(base, base + _OLD)
    os.chdir("/")
    os.mkdir(_EMPTY)
    for source, target in plan["readable"]:
        _create(_OLD + source, target)
        kernel.bind_read_only(_OLD + source, target)
    for device in _DEVICES:
        _create(_OLD + device, device)
        kernel.mount(_OLD + device, device, None, kernel.MS_BIND)
    for folder in plan["hidden"]:
        kernel.mount(_EMPTY, folder, None, kernel.MS_BIND)
    for folder in (plan["folder"], "/tmp", "/dev/shm"):
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o1777)
    kernel.mount(None, _OLD, None, kernel.MS_PRIVATE | kernel.MS_REC)
    kernel.detach(_OLD)
    os.rmdir(_OLD)
    os.chdir(plan["folder"])


def _create(source: str, target: str) -> None:
    """A folder or an empty file to mount over."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))


def give_up(plan: Plan) -> tuple[str, ...]:
    """Limit, drop, confine and filter this process.

    Returns:
        The layers that took effect, in words.

    Raises:
        OSError: a layer failed that is never optional.
    """
    layers = [_limit(plan)]
    if plan["user"] is not None:
        layers.append(_become(plan["user"]))
    if sys.platform == "linux":
        layers += _confine(plan)
    return tuple(layers)


def keep_only(channel: int) -> int:
    """Descriptors 0 to 2 become /dev/null, so that what the program prints is dropped; all others but the channel are closed.

    Returns:
        The channel's new descriptor.
    """
    os.dup2(channel, _CHANNEL)
    if channel != _CHANNEL:
        os.close(channel)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(_CHANNEL):
        os.dup2(null, descriptor)
    os.closerange(_CHANNEL + 1, _HIGHEST_OPENED_HERE)
    return _CHANNEL


def _limit(plan: Plan) -> str:
    wanted = {
        "RLIMIT_CPU": (plan["seconds"] + 1, plan["seconds"] + 2),
        "RLIMIT_AS": (plan["memory"],) * 2,
        "RLIMIT_FSIZE": (plan["file_size"],) * 2,
        "RLIMIT_NOFILE": (plan["open_files"],) * 2,
        "RLIMIT_NPROC": (plan["tasks"],) * 2,
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_MEMLOCK": (0, 0),
        "RLIMIT_MSGQUEUE": (0, 0),
        "RLIMIT_SIGPENDING": (_SIGNALS,) * 2,
    }
    known = {name: value for name, value in wanted.items() if name in resource.__dict__}
    refused = []
    for name, (soft, hard) in known.items():
        number = resource.__dict__[name]
        present = resource.getrlimit(number)[1]
        ceiling = hard if present == resource.RLIM_INFINITY else min(hard, present)
        try:
            resource.setrlimit(number, (min(soft, ceiling), ceiling))
        except (ValueError, OSError):  # macOS knows names that it does not enforce
            refused.append(name)
    names = ", ".join(name.removeprefix("RLIMIT_").lower() for name in known if name not in refused)
    return f"limits ({names})"


def _become(user: int) -> str:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    return "unprivileged user"


def _confine(plan: Plan) -> list[str]:
    kernel.drop_capabilities()
    kernel.not_dumpable()
    kernel.no_new_privileges()
    layers = ["no capabilities", "no new privileges"]
    own_root = plan["backend"] != "limits"
    if not own_root:
        sources = [*(source for source, _ in plan["readable"]), *plan["search"]]
        readable = [path for path in sources if os.access(path, os.R_OK)]
        try:
            layers.append(f"Landlock {confine_files(readable, plan['hidden'], [os.getcwd()])}")
        except OSError as error:
            layers.append(f"without Landlock ({error})")
    try:
        apply_filter(files_by_path=own_root)
    except OSError as error:
        if not own_root:  # nothing else would keep it from changing modes, owners and times, or from starting processes
            raise
        return [*layers, f"without seccomp ({error})"]
    return [*layers, "seccomp"]


def confine_files(readable: list[str], hidden: list[str], writable: list[str]) -> int:
    """Allow reading ``readable`` without ``hidden``, everything under ``writable``, and nothing else.

    Args:
        readable: folders and files. Names inside them can be listed, hidden or not.
        hidden: folders under ``readable`` whose files cannot be read.
        writable: folders.

    Returns:
        The version of Landlock.

    Raises:
        OSError: the kernel has no Landlock.
    """
    version = kernel.landlock_version()
    everything = (1 << _RIGHTS_BY_VERSION.get(version, 16)) - 1
    network = _TCP_BIND_AND_CONNECT if version >= 4 else 0
    scoped = _ABSTRACT_SOCKETS_AND_SIGNALS if version >= 6 else 0
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = kernel.landlock_ruleset(struct.pack("=QQQ", everything, network, scoped)[:size])
    for path in readable:
        if os.path.isdir(path):
            _allow(ruleset, path, _READ_DIR)
        for part in _without(path, hidden):
            _allow(ruleset, part, _READ_FILE)
    for path in _DEVICES:
        _allow(ruleset, path, _READ_FILE | _WRITE_FILE)
    for path in writable:
        _allow(ruleset, path, everything)
    kernel.landlock_enforce(ruleset)
    os.close(ruleset)
    return version


def _without(path: str, hidden: list[str]) -> list[str]:
    """The parts of a folder that leave the hidden folders out."""
    if path in hidden:
        return []
    if not any(folder.startswith(path.rstrip("/") + "/") for folder in hidden):
        return [path]
    with os.scandir(path) as entries:
        return [part for entry in entries for part in _without(entry.path, hidden)]


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:  # a dangling link among the libraries
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _FILE_RIGHTS
        kernel.landlock_allow_beneath(ruleset, struct.pack("=Qi", rights, descriptor))
    finally:
        os.close(descriptor)
