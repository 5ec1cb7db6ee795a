"""The system call filter, run by a naive interpreter of its machine."""

import struct

import pytest

from trimtab.tasks.sandbox.inside.seccomp import build_filter

ALLOW, EPERM, ENOSYS = 0x7FFF_0000, 0x0005_0001, 0x0005_0026
X86, CONDITION = (0xC000_003E, "x86_64"), (0xC000_00B7, "aarch64")
PID = 4321


def run(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What a filter returns for one call: the five instructions that it uses, one at a time."""
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number, architecture, 0, *padded)
    steps = [struct.unpack_from("=HBBI", program, place) for place in range(0, len(program), 8)]
    accumulator = at = 0
    while True:
        code, when_true, when_false, value = steps[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
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
}


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
        everyone = 2**64 - 1
        for number in ((62, 129)[column], (234, 131)[column]):
            assert run(program, machine[0], number, PID, 9) == ALLOW
            assert [run(program, machine[0], number, pid, 9) for pid in (0, 1, PID + 1, everyone)] == [EPERM] * 4

    def test_no_descriptor_signals_for_it(self, column: int, machine: tuple[int, str]) -> None:
        program = build_filter(machine[1], PID)
        set_flags, set_owner, set_signal, set_owner_ex = 4, 8, 10, 15
        fcntl = (72, 25)[column]
        assert run(program, machine[0], fcntl, 3, set_flags) == ALLOW
        assert [run(program, machine[0], fcntl, 3, command) for command in (set_owner, set_signal, set_owner_ex)] == [EPERM] * 3
        assert run(program, machine[0], (16, 29)[column], 3, 0x8901) == EPERM
        assert run(program, machine[0], (16, 29)[column], 3, 0x5401) == ALLOW

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
