"""A system call filter: the program may compute, allocate and use its own files; it may not start, signal or reach anything else.

A denied call fails with EPERM, so that a person can read why a program failed. Denying new processes makes the address-space
limit a limit on the whole program, and leaves nothing that could survive it. Threads stay allowed. Calls that are newer than this
list fail with ENOSYS, as on an older kernel.
"""

import os
import struct

from trimtab.tasks.sandbox.inside.kernel import filter_syscalls

_ARCHITECTURES = {"x86_64": (0xC000_003E, 0), "aarch64": (0xC000_00B7, 1)}

# name: (number on x86_64, on aarch64); None where the architecture has no such call
_DENIED = {
    # starting a process, or turning into one
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # the network, and local sockets of others; a socket pair is the program's own
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    # other processes: reading, tracing, signalling
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    # leaving the process group that its owner can end
    "setsid": (112, 157),
    "setpgid": (109, 154),
    # memory that the address-space limit does not count, or that outlives the program
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    # counted for the whole machine or for all of a user's processes: fs.aio-max-nr, fs.inotify
    "io_setup": (206, 0),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    # namespaces, mounts and doors into the kernel
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "modify_ldt": (154, None),
}
# what Landlock does not govern, whose path or descriptor may lead out of the program's folder
_FILE_ATTRIBUTES = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "truncate": (76, 45),  # before Landlock 3
    "fchmodat2": (452, 452),
}
# the place of the flags; see _may_truncate
_OPENS = {"open": ((2, None), 1), "openat": ((257, 56), 2)}
# the place of the signal; the first argument is the process, which may be its own alone. No computation ends by SIGKILL, so a
# program that could send it to itself would look like one that was killed from outside, which is unscored
_SIGNALS = {"kill": ((62, 129), 1), "tgkill": ((234, 131), 2)}
_SIGKILL = 9
# allowed only when an argument has the value
_ONLY_WHEN = {
    "prlimit64": ((302, 261), 0, 0),
    "sched_setaffinity": ((203, 122), 0, 0),
    "sched_setscheduler": ((144, 119), 0, 0),
    "sched_setparam": ((142, 118), 0, 0),
    "sched_setattr": ((314, 274), 0, 0),
}
# denied when an argument has one of the values
_NEVER_WHEN = {
    # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_NOTIFY: a descriptor that is ready would signal a chosen process; F_SETLEASE would make
    # others wait; F_SETPIPE_SZ is memory outside the limit
    "fcntl": ((72, 25), 1, (8, 10, 15, 1024, 1026, 1031)),
}
# allowed only when an argument has one of the values
_ALWAYS_WHEN = {
    # TCGETS and its successor, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX: others signal, inject input, or change files'
    # attributes through a descriptor that may only read
    "ioctl": ((16, 29), 1, (0x5401, 0x802C_542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),
}
# of the calls that came with or after pidfd_send_signal, numbered alike everywhere: close_range, faccessat2, epoll_pwait2,
# futex_waitv, fchmodat2, futex_wake, futex_wait, futex_requeue
_NEW_BUT_KNOWN = (436, 439, 441, 449, 452, 454, 455, 456)
_LAST_OLD = (334, 294)
_CLONE = (56, 220)
_SENDTO = (44, 206)
_CLONE_THREAD = 0x1_0000
_X32_CALLS = 0x4000_0000

_O_TRUNC, _O_ACCMODE, _O_WRONLY, _O_RDWR = 0x200, 3, 1, 2

_STEP_BYTES = 8
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _EPERM, _ENOSYS = 0x7FFF_0000, 0x0005_0000 | 1, 0x0005_0000 | 38
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16


def _step(code: int, value: int, when_true: int = 0, when_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, when_true, when_false, value)


_allow, _deny, _unknown = (_step(_RETURN, value) for value in (_ALLOW, _EPERM, _ENOSYS))


def _argument(index: int, high: bool = False) -> bytes:
    return _step(_LOAD, _ARGUMENTS + 8 * index + 4 * high)


def _for_call(number: int | None, *steps: bytes) -> bytes:
    """Steps for one call; each way through them returns. None is a call that the architecture does not have."""
    body = b"".join(steps)
    return b"" if number is None else _step(_EQUAL, number, 0, len(body) // _STEP_BYTES) + body


def _one_of(index: int, values: tuple[int, ...], found: bytes, other: bytes) -> tuple[bytes, ...]:
    return _argument(index), *(_step(_EQUAL, value, 0, 1) + found for value in values), other


def _may_truncate(index: int) -> tuple[bytes, ...]:
    """Only a file that is opened for writing may be emptied; Landlock before version 3 sees no more than the mode."""
    for_writing = (_step(_EQUAL, mode, 0, 1) + _allow for mode in (_O_WRONLY, _O_RDWR))
    return _argument(index), _step(_ANY_BIT, _O_TRUNC, 1, 0), _allow, _step(_AND, _O_ACCMODE), *for_writing, _deny


def build_filter(machine: str, own_pid: int, files_by_path: bool = True) -> bytes:
    """The filter for a machine type, whose process may signal only itself, and not with SIGKILL.

    Args:
        machine: as ``uname -m`` says.
        own_pid: of the process to filter.
        files_by_path: whether every path that it can change is its own, so that modes, owners, times and attributes are too.

    Raises:
        OSError: the machine type is not one of x86_64 and aarch64.
    """
    if machine not in _ARCHITECTURES:
        raise OSError(f"no system call filter for {machine}; known: {', '.join(_ARCHITECTURES)}")
    architecture, column = _ARCHITECTURES[machine]
    parts = [_step(_LOAD, _ARCHITECTURE), _step(_EQUAL, architecture, 1, 0), _deny, _step(_LOAD, _NUMBER)]
    parts.append(_step(_AT_LEAST, _X32_CALLS, 0, 1) + _deny)
    denied = _DENIED if files_by_path else _DENIED | _FILE_ATTRIBUTES
    parts += [_for_call(numbers[column], _deny) for numbers in denied.values()]
    if not files_by_path:
        parts += [_for_call(numbers[column], *_may_truncate(index)) for numbers, index in _OPENS.values()]
    for numbers, index in _SIGNALS.values():
        no_kill = (_argument(index), _step(_EQUAL, _SIGKILL, 0, 1), _deny)
        parts.append(_for_call(numbers[column], *no_kill, *_one_of(0, (own_pid,), _allow, _deny)))
    for numbers, index, value in _ONLY_WHEN.values():
        parts.append(_for_call(numbers[column], *_one_of(index, (value,), _allow, _deny)))
    for numbers, index, values in _NEVER_WHEN.values():
        parts.append(_for_call(numbers[column], *_one_of(index, values, _deny, _allow)))
    for numbers, index, values in _ALWAYS_WHEN.values():
        parts.append(_for_call(numbers[column], *_one_of(index, values, _allow, _deny)))
    parts.append(_for_call(_CLONE[column], _argument(0), _step(_ANY_BIT, _CLONE_THREAD, 0, 1), _allow, _deny))
    # sendto is how send() is spelt; an address, as its 64-bit pointer, is refused
    no_address = (_argument(4), _step(_EQUAL, 0, 0, 3), _argument(4, high=True), _step(_EQUAL, 0, 0, 1), _allow, _deny)
    parts.append(_for_call(_SENDTO[column], *no_address))
    # clone3 is among the unknown: it hides its flags behind a pointer, and without it the C library falls back to clone
    parts += [_for_call(number, _allow) for number in _NEW_BUT_KNOWN]
    return b"".join([*parts, _step(_AT_LEAST, _LAST_OLD[column] + 1, 0, 1), _unknown, _allow])


def apply_filter(files_by_path: bool) -> None:
    """Filter this process's calls, for good. Needs no_new_privileges.

    Raises:
        OSError: the kernel or the machine type has no such filter.
    """
    filter_syscalls(build_filter(os.uname().machine, os.getpid(), files_by_path))
