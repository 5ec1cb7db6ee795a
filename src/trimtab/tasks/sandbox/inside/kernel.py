"""The Linux calls that Python 3.11 does not offer, through ctypes. Every failure is an ``OSError`` with the call's name."""

import ctypes
import errno
import os
import sys

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

_MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
_MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000
MS_SLAVE = 0x8_0000
_MNT_DETACH = 2
# no-exec, no-atime and no-diratime have the same bits in statvfs(3) and mount(2), relatime has not
_KEPT_FLAGS = 0x8 | 0x400 | 0x800
_RELATIME = (0x1000, 0x20_0000)

_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2

_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY_NOSUID_NODEV = 0x1 | 0x2 | 0x4

# the same numbers on every architecture
_SYS_MOUNT_SETATTR = 442
_SYS_LANDLOCK_CREATE_RULESET = 444
_SYS_LANDLOCK_ADD_RULE = 445
_SYS_LANDLOCK_RESTRICT_SELF = 446
# these differ
_MACHINE = os.uname().machine
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(_MACHINE, -1)
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}.get(_MACHINE, -1)

_CAPABILITY_VERSION_3 = 0x2008_0522

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _checked(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _syscall(name: str, number: int, *arguments: object) -> int:
    if _libc is None or number < 0:
        raise OSError(f"{name}: not known on {sys.platform} {_MACHINE}")
    return _checked(name, _libc.syscall(ctypes.c_long(number), *arguments))


def _call(name: str, *arguments: object) -> int:
    if _libc is None:
        raise OSError(f"{name}: not known on {sys.platform}")
    return _checked(name, _libc[name](*arguments))


def unshare(flags: int) -> None:
    """Leave the namespaces that ``flags`` names. A new pid namespace begins with the next child."""
    _call("unshare", ctypes.c_int(flags))


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2)."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    _call("mount", encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])


def bind_read_only(source: str, target: str) -> None:
    """Show ``source`` at ``target`` as well, read-only, without set-uid programs and devices."""
    try:
        mount(source, target, None, MS_BIND)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # in a user namespace, mounts below must come along; only the newer call then reaches all of them
        mount(source, target, None, MS_BIND | MS_REC)
        _lock_tree(target)
        return
    try:
        _lock_tree(target)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        # a remount must name the flags that are set already
        present = os.statvfs(target).f_flag
        present = (present & _KEPT_FLAGS) | (_RELATIME[1] if present & _RELATIME[0] else 0)
        mount(None, target, None, _MS_REMOUNT | MS_BIND | _MS_RDONLY | MS_NOSUID | MS_NODEV | present)


def _lock_tree(target: str) -> None:
    """mount_setattr(2), which is there since Linux 5.12, on a mount and all mounts under it."""
    attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_RDONLY_NOSUID_NODEV, 0, 0, 0)
    _syscall(
        "mount_setattr",
        _SYS_MOUNT_SETATTR,
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(target),
        ctypes.c_uint(_AT_RECURSIVE),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )


def pivot_root(new: str, old: str) -> None:
    """Swap the root: ``new`` becomes ``/``, the present root appears at ``old``."""
    _syscall("pivot_root", _SYS_PIVOT_ROOT, os.fsencode(new), os.fsencode(old))


def detach(target: str) -> None:
    """Unmount a whole tree at once."""
    _call("umount2", os.fsencode(target), ctypes.c_int(_MNT_DETACH))


def drop_capabilities() -> None:
    """Give up every capability, for good once ``no_new_privileges`` is set."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _syscall("capset", _SYS_CAPSET, ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))


def no_new_privileges() -> None:
    """No later exec gains privileges; what seccomp and Landlock require of an ordinary user."""
    _prctl("PR_SET_NO_NEW_PRIVS", _PR_SET_NO_NEW_PRIVS, 1)


def not_dumpable() -> None:
    """Processes of the same user can neither trace this one nor read its ``/proc`` files."""
    _prctl("PR_SET_DUMPABLE", _PR_SET_DUMPABLE, 0)


def filter_syscalls(program: bytes) -> None:
    """Install a seccomp filter: an array of ``struct sock_filter``."""

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

    prepared = Program(len(program) // 8, program)
    _call(
        "prctl",
        ctypes.c_int(_PR_SET_SECCOMP),
        ctypes.c_ulong(_SECCOMP_MODE_FILTER),
        ctypes.byref(prepared),
        ctypes.c_ulong(0),
        ctypes.c_ulong(0),
    )


def landlock_version() -> int:
    """The version of Landlock that the kernel offers."""
    ask_version = 1
    return _syscall("landlock", _SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(ask_version))


def landlock_ruleset(attributes: bytes) -> int:
    """A new ruleset as a descriptor."""
    return _syscall(
        "landlock_create_ruleset", _SYS_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0)
    )


def landlock_allow_beneath(ruleset: int, rule: bytes) -> None:
    """Add one path-beneath rule."""
    path_beneath = 1
    _syscall(
        "landlock_add_rule",
        _SYS_LANDLOCK_ADD_RULE,
        ctypes.c_int(ruleset),
        ctypes.c_int(path_beneath),
        rule,
        ctypes.c_uint(0),
    )


def landlock_enforce(ruleset: int) -> None:
    """Bind this thread and all its descendants to a ruleset."""
    _syscall("landlock_restrict_self", _SYS_LANDLOCK_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0))


def _prctl(name: str, option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    try:
        _call("prctl", ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero)
    except OSError as error:
        raise OSError(error.errno, f"{name}: {error.strerror}") from error
