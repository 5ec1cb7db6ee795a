"""A root of its own: a small memory file system that holds the interpreter's libraries, read-only, and an empty home."""

# this interpreter starts once for every program, and pathlib would cost it a tenth of that
# ruff: noqa: PTH101, PTH102, PTH103, PTH106, PTH112, PTH120, PTH123

from __future__ import annotations

import errno
import os

from trimtab.tasks.sandbox.inside import kernel

TYPE_CHECKING = False  # typing would cost the program's process a tenth of its start
if TYPE_CHECKING:
    from trimtab.tasks.sandbox.plan import Plan

HOME = "/home"
_OLD = "/.old"
_EMPTY = "/.empty"
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_WRITABLE_BY_ALL = (HOME, "/tmp", "/dev/shm")
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
    for folder in _WRITABLE_BY_ALL:
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o1777)
    kernel.mount(None, _OLD, None, kernel.MS_PRIVATE | kernel.MS_REC)
    kernel.detach(_OLD)
    os.rmdir(_OLD)
    os.chdir(HOME)


def _create(source: str, target: str) -> None:
    """A folder or an empty file to mount over."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
