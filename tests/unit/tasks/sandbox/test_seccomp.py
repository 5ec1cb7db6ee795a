"""The system call filter, run by a naive interpreter of its machine."""

import struct

import pytest

from trimtab.tasks.sandbox.inside.seccomp import build_filter

ALLOW, EPERM, ENOSYS = 0x7FFF_0000, 0x0005_0001, 0x0005_0026
X86, CONDITION = (0xC000_003E, "x86_64"), (0xC000_00B7, "aarch64")
PID = 4321


def run(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What a filter returns for one call: the six instructions that it uses, one at a time."""
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number, architecture, 0, *padded)
    steps = [struct.unpack_from("=HBBI", program, place) for place in range(0, len(program), 8)]
    accumulator = at = 0
    while True:
        code, when_true, when_false, value = steps[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x06:
            return value
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            at += when_true if holds else when_false


# number on x86_64, number on aarch64
CALLS = {
    "read": (0, 63),
    "write": (1, 64),
    "mmap": (9, 222),
    "exit_group": (231, 94),
    "socketpair": (53, 199),
    "futex": (202, 98),
}
DENIED = {
    "execve": (59, 221),
    "socket": (41, 198),
    "connect": (42, 203),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "mount": (165, 40),
    "unshare": (272, 97),
    "memfd_create": (319, 279),
    "io_uring_setup": (425, 425),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "io_setup": (206, 0),
    "inotify_init1": (294, 26),
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "syslog": (103, 116),
}
ATTRIBUTES = {
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "fremovexattr": (199, 16),
    "truncate": (76, 45),
    "fchmodat2": (452, 452),
}
OPENAT = (257, 56)
O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_CLOEXEC = 0, 1, 2, 0o100, 0o1000, 0o2000000


@pytest.mark.parametrize(("column", "machine"), [(0, X86), (1, CONDITION)])
class TestFilter:
    def test_computing_is_allowed(self, column: int, machine: tuple[int, str]) -> None:
        program = build_filter(machine[1], PID)
        assert {name: run(program, machine[0], numbers[column]) for name, numbers in CALLS.items()} == dict.fromkeys(CALLS, ALLOW)

    def test_reaching_out_is_denied(self, column: int, machine: tuple[int, str]) -> None:
        program = build_filter(machine[1], PID)
        denied = {name: run(program, machine[0], numbers[column]) for name, numbers in DENIED.items()}
        assert denied == dict.fromkeys(DENIED, EPERM)

    def test_threads_but_no_processes(self, column: int, machine: tuple[int, str]) -> None:
        program, clone = build_filter(machine[1], PID), (56, 220)[column]
        thread_flags, fork_flags = 0x3D0F00, 0x1200011
        assert run(program, machine[0], clone, thread_flags) == ALLOW
        assert run(program, machine[0], clone, fork_flags) == EPERM
        assert run(program, machine[0], 435) == ENOSYS

    def test_signals_reach_itself_alone(self, column: int, machine: tuple[int, str]) -> None:
        program = build_filter(machine[1], PID)
        everyone, thread = 2**64 - 1, PID + 7
        for number, between in (((62, 129)[column], ()), ((234, 131)[column], (thread,))):
            sent = {
                (pid, signal): run(program, machine[0], number, pid, *between, signal)
                for pid in (PID, 1)
                for signal in (6, 9, 15)
            }
            assert [key for key, result in sent.items() if result == ALLOW] == [(PID, 6), (PID, 15)]
            assert [run(program, machine[0], number, pid, *between, 6) for pid in (0, 1, PID + 1, everyone)] == [EPERM] * 4

    def test_no_descriptor_signals_for_it(self, column: int, machine: tuple[int, str]) -> None:
        program = build_filter(machine[1], PID)
        set_flags, set_owner, set_signal, set_owner_ex = 4, 8, 10, 15
        fcntl = (72, 25)[column]
        assert run(program, machine[0], fcntl, 3, set_flags) == ALLOW
        assert [run(program, machine[0], fcntl, 3, command) for command in (set_owner, set_signal, set_owner_ex)] == [EPERM] * 3
        others_wait, pipe_size = 1024, 1031
        assert [run(program, machine[0], fcntl, 3, command) for command in (others_wait, pipe_size)] == [EPERM] * 2

    def test_a_descriptor_is_controlled_in_known_ways_alone(self, column: int, machine: tuple[int, str]) -> None:
        program, ioctl = build_filter(machine[1], PID), (16, 29)[column]
        is_terminal, inject_input, set_owner, set_flags = 0x5401, 0x5412, 0x8901, 0x4008_6602
        assert run(program, machine[0], ioctl, 3, is_terminal) == ALLOW
        assert [run(program, machine[0], ioctl, 3, command) for command in (inject_input, set_owner, set_flags)] == [EPERM] * 3

    def test_attributes_of_files_are_its_own_or_none_of_its_business(self, column: int, machine: tuple[int, str]) -> None:
        own_root, shared = build_filter(machine[1], PID), build_filter(machine[1], PID, files_by_path=False)
        for numbers in ATTRIBUTES.values():
            assert run(own_root, machine[0], numbers[column], 3, 0) == ALLOW
            assert run(shared, machine[0], numbers[column], 3, 0) == EPERM

    def test_a_file_that_is_opened_to_be_read_is_not_emptied(self, column: int, machine: tuple[int, str]) -> None:
        shared = build_filter(machine[1], PID, files_by_path=False)

        def model(flags: int) -> int:
            return run(shared, machine[0], OPENAT[column], 2**32 - 100, 0x1000, flags)

        neither = 3
        assert [model(mode | O_CLOEXEC) for mode in (O_RDONLY, O_WRONLY, O_RDWR, neither)] == [ALLOW] * 4
        assert [model(mode | O_CREAT | O_TRUNC) for mode in (O_WRONLY, O_RDWR)] == [ALLOW] * 2
        assert [model(mode | O_TRUNC) for mode in (O_RDONLY, neither)] == [EPERM] * 2
        assert run(build_filter(machine[1], PID), machine[0], OPENAT[column], 0, 0, O_RDONLY | O_TRUNC) == ALLOW

    def test_calls_that_are_newer_than_the_list_are_unknown(self, column: int, machine: tuple[int, str]) -> None:
        for files_by_path in (True, False):
            program = build_filter(machine[1], PID, files_by_path)
            old, close_range, openat2, file_setattr = (334, 293)[column], 436, 437, 469
            assert [run(program, machine[0], number) for number in (old, close_range)] == [ALLOW] * 2
            assert [run(program, machine[0], number) for number in (openat2, file_setattr, 9_999)] == [ENOSYS] * 3

    def test_its_own_limits_alone(self, column: int, machine: tuple[int, str]) -> None:
        program, prlimit = build_filter(machine[1], PID), (302, 261)[column]
        assert run(program, machine[0], prlimit, 0) == ALLOW
        assert run(program, machine[0], prlimit, PID + 1) == EPERM

    def test_sending_needs_no_address(self, column: int, machine: tuple[int, str]) -> None:
        program, sendto = build_filter(machine[1], PID), (44, 206)[column]
        assert run(program, machine[0], sendto, 3, 4, 5, 0, 0) == ALLOW
        assert run(program, machine[0], sendto, 3, 4, 5, 0, 0x10) == EPERM
        assert run(program, machine[0], sendto, 3, 4, 5, 0, 0x10_0000_0000) == EPERM

    def test_another_architecture_is_denied(self, column: int, machine: tuple[int, str]) -> None:
        i386 = 0x4000_0003
        assert run(build_filter(machine[1], PID), i386, CALLS["read"][column]) == EPERM


def test_the_x32_table_is_denied() -> None:
    assert run(build_filter("x86_64", PID), X86[0], 0x4000_0000) == EPERM


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(OSError, match="no system call filter for riscv64; known: x86_64, aarch64"):
        build_filter("riscv64", PID)
