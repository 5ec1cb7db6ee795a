"""A system call filter: the program may compute, allocate and use its own files; it may not start, signal or reach anything else.

A denied call fails with EPERM, so that a person can read why a program failed. Denying new processes makes the address-space
limit a limit on the whole program, and leaves nothing that could survive it. Threads stay allowed.
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
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    # memory that the address-space limit does not count, or that outlives the program
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
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
}
# allowed only when an argument has the value; the process itself is filled in where the value is None
_ONLY_WHEN = {
    "kill": ((62, 129), 0, None),
    "tgkill": ((234, 131), 0, None),
    "prlimit64": ((302, 261), 0, 0),
    "sched_setaffinity": ((203, 122), 0, 0),
    "sched_setscheduler": ((144, 119), 0, 0),
    "sched_setparam": ((142, 118), 0, 0),
    "sched_setattr": ((314, 274), 0, 0),
}
# denied when an argument has one of the values
_NEVER_WHEN = {
    # F_SETOWN, F_SETSIG, F_SETOWN_EX and their ioctl twins: a descriptor that is ready would signal a chosen process
    "fcntl": ((72, 25), 1, (8, 10, 15)),
    "ioctl": ((16, 29), 1, (0x8901, 0x8902)),
}
_CLONE = (56, 220)
_SENDTO = (44, 206)
_CLONE3 = 435
_CLONE_THREAD = 0x1_0000
_X32_CALLS = 0x4000_0000

_STEP_BYTES = 8
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _EPERM, _ENOSYS = 0x7FFF_0000, 0x0005_0000 | 1, 0x0005_0000 | 38
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16


def _step(code: int, value: int, when_true: int = 0, when_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, when_true, when_false, value)


def _argument(index: int, high: bool = False) -> bytes:
    return _step(_LOAD, _ARGUMENTS + 8 * index + 4 * high)


def _for_call(number: int, *steps: bytes) -> bytes:
    """Steps for one call; each way through them returns."""
    body = b"".join(steps)
    return _step(_EQUAL, number, 0, len(body) // _STEP_BYTES) + body


def build_filter(machine: str, own_pid: int) -> bytes:
    """The filter for a machine type, whose process may signal only itself.

    Raises:
        OSError: the machine type is not one of x86_64 and aarch64.
    """
    if machine not in _ARCHITECTURES:
        raise OSError(f"no system call filter for {machine}; known: {', '.join(_ARCHITECTURES)}")
    architecture, column = _ARCHITECTURES[machine]
    allow, deny = _step(_RETURN, _ALLOW), _step(_RETURN, _EPERM)
    parts = [_step(_LOAD, _ARCHITECTURE), _step(_EQUAL, architecture, 1, 0), deny, _step(_LOAD, _NUMBER)]
    parts.append(_step(_AT_LEAST, _X32_CALLS, 0, 1) + deny)
    parts += [_for_call(numbers[column], deny) for numbers in _DENIED.values() if numbers[column] is not None]
    for numbers, index, value in _ONLY_WHEN.values():
        accepted = own_pid if value is None else value
        parts.append(_for_call(numbers[column], _argument(index), _step(_EQUAL, accepted, 0, 1), allow, deny))
    for numbers, index, values in _NEVER_WHEN.values():
        tests = [_step(_EQUAL, value, 0, 1) + deny for value in values]
        parts.append(_for_call(numbers[column], _argument(index), *tests, allow))
    parts.append(_for_call(_CLONE[column], _argument(0), _step(_ANY_BIT, _CLONE_THREAD, 0, 1), allow, deny))
    # clone3 hides its flags behind a pointer; without it, the C library falls back to clone
    parts.append(_for_call(_CLONE3, _step(_RETURN, _ENOSYS)))
    # sendto is how send() is spelt; an address, as its 64-bit pointer, is refused
    no_address = (_argument(4), _step(_EQUAL, 0, 0, 3), _argument(4, high=True), _step(_EQUAL, 0, 0, 1), allow, deny)
    parts += [_for_call(_SENDTO[column], *no_address), allow]
    return b"".join(parts)


def apply_filter() -> None:
    """Filter this process's calls, for good. Needs no_new_privileges.

    Raises:
        OSError: the kernel or the machine type has no such filter.
    """
    filter_syscalls(build_filter(os.uname().machine, os.getpid()))
