"""The sandbox on other machines: other users, other places of Python, containers that refuse namespaces, older kernels.

Each case is a process of its own, of a copied interpreter that everybody can read and that imports the sandbox alone.
"""

import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from sandboxes import ORDINARY, copy_interpreter, copy_sandbox, run_script

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")

AS_ROOT = os.geteuid() == 0
OF_ROOT = pwd.getpwuid(0).pw_dir
PLACES = [place for place in ("/tmp", "/home", OF_ROOT) if os.access(place, os.W_OK)]
USERS = [None, ORDINARY] if AS_ROOT else [None]


class Copy(NamedTuple):
    """An interpreter and what it may import."""

    python: Path
    root: Path

    def run(self, script: str, *arguments: str, user: int | None = None) -> str:
        return run_script(self.python, self.root, script, arguments, user)


@pytest.fixture(scope="module")
def copy() -> Iterator[Copy]:
    yield from make_copy("/tmp")


@pytest.fixture(scope="module", params=PLACES)
def copied(request: pytest.FixtureRequest, copy: Copy) -> Iterator[Copy]:
    yield from [copy] if request.param == "/tmp" else make_copy(request.param)


def make_copy(place: str) -> Iterator[Copy]:
    folder = Path(tempfile.mkdtemp(prefix="trimtab-", dir=place))
    folder.chmod(0o755)
    try:
        yield Copy(copy_interpreter(folder / "python"), copy_sandbox(folder / "src"))
    finally:
        shutil.rmtree(folder)


ORDINARY_RUN = r"""
sandbox = Sandbox(packages=(), backend=sys.argv[1])
source = "import os, json\ndef f(): return os.getuid() != 0, os.listdir('.'), open('x', 'w').write('y')"
print(answer(sandbox, source), sandbox.describe())
"""


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("backend", ["bwrap", "namespaces"])
def test_a_program_runs_wherever_python_and_trimtab_lie(copied: Copy, backend: str, user: int | None) -> None:
    if user and str(copied.python).startswith(f"{OF_ROOT}/"):
        pytest.skip(f"{OF_ROOT} is root's alone")
    said = copied.run(ORDINARY_RUN, backend, user=user)
    assert said.startswith(f"(True, [], 1) {backend} ")
    assert "seccomp" in said


AS_PID_1 = """
kernel.unshare(kernel.CLONE_NEWUSER * (os.geteuid() != 0) | kernel.CLONE_NEWPID | kernel.CLONE_NEWNS)
if (child := os.fork()):
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert os.getpid() == 1
kernel.mount(None, "/", None, kernel.MS_PRIVATE | kernel.MS_REC)
kernel.mount("proc", "/proc", "proc", 0)
sandbox = Sandbox(packages=(), backend=sys.argv[1], unsafe=True)
for _ in range(3):
    answer(sandbox, "def f(): pass")
with sandbox.start() as running:
    running.wait_ready()
    os.kill(running._process.pid, 9)  # as bwrap or its supervisor would be by the kernel when memory is short
try:
    print("left:", os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("nobody")
"""


@pytest.mark.parametrize("backend", ["bwrap", "namespaces", "limits"])
def test_no_process_is_left_where_trimtab_is_process_1(copy: Copy, backend: str) -> None:
    if not AS_ROOT:
        pytest.skip("a process 1 of an ordinary user is root in its namespace, with no other user to run programs as")
    assert copy.run(AS_PID_1, backend) == "nobody\n"


# the statement replaces a layer by one that says it holds and does not
LIARS = {
    "landlock": "confine.confine_files = lambda readable, hidden, writable: 7",
    "filter": "confine.apply_filter = lambda files_by_path: None",
    "user": "confine._become = lambda user: 'unprivileged user'",
    "old landlock, and a filter for programs with a root of their own": (
        "confine.kernel.landlock_version = lambda: 2; given = confine.apply_filter; "
        "confine.apply_filter = lambda files_by_path: given(True)"
    ),
}
SELF_TEST = """
patch_inside(sys.argv[2])
try:
    print(Sandbox(packages=(), backend=sys.argv[1], unsafe=True).describe())
except SandboxError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("liar", "found"),
    [
        ("landlock", ["reading and writing this user's files"]),
        ("filter", ["changing modes, owners and times of this user's files", "using the network"]),
        ("old landlock, and a filter for programs with a root of their own", ["changing modes", "reading and writing"]),
    ],
)
def test_the_self_test_finds_a_layer_that_does_not_hold(copy: Copy, liar: str, found: list[str]) -> None:
    said = copy.run(SELF_TEST, "limits", LIARS[liar], user=ORDINARY if AS_ROOT else None)
    assert said.startswith("SandboxError backend limits does not hold on this machine: its self-test worked at ")
    assert [deed for deed in found if deed not in said] == []


def test_the_self_test_finds_signals(copy: Copy) -> None:
    said = copy.run(SELF_TEST, "limits", f"{LIARS['landlock']}; {LIARS['filter']}", user=ORDINARY if AS_ROOT else None)
    assert "signalling this user's processes" in said


@pytest.mark.skipif(not AS_ROOT, reason="an ordinary user cannot become root")
@pytest.mark.parametrize("backend", ["bwrap", "namespaces", "limits"])
def test_the_self_test_finds_root(copy: Copy, backend: str) -> None:
    assert "running as root" in copy.run(SELF_TEST, backend, LIARS["user"])


@pytest.mark.skipif(not AS_ROOT, reason="root has a root to stay in")
def test_the_self_test_finds_the_old_root(copy: Copy) -> None:
    stay = "confine.enter_new_root = lambda plan: None"
    assert "reading and writing this user's files" in copy.run(SELF_TEST, "namespaces", stay)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_limits_hold_with_an_older_landlock(copy: Copy, version: int) -> None:
    """Before version 3 it does not govern truncation: the filter does."""
    older = f"confine.kernel.landlock_version = lambda: {version}"
    said = copy.run(SELF_TEST, "limits", older, user=ORDINARY if AS_ROOT else None)
    assert f"Landlock {version}, seccomp; not stopped here: filling the disk" in said


def test_a_kernel_without_landlock_is_named_and_its_gap_too(copy: Copy) -> None:
    none = "confine.confine_files = lambda readable, hidden, writable: confine.kernel.unshare(-1)"
    said = copy.run(SELF_TEST, "limits", none, user=ORDINARY if AS_ROOT else None)
    assert said.startswith("UNSAFE, as --unsafe-sandbox allows: ")
    assert "not stopped here: reading and writing this user's files, filling the disk" in said


# as Docker does for a container without privileges: these calls are refused to the process and to all below it
REFUSING = r"""
import struct
step = lambda code, value, yes=0, no=0: struct.pack("=HBBI", code, yes, no, value)
column = {"x86_64": 0, "aarch64": 1}[os.uname().machine]
refuse = [step(0x20, 0)]
for number in ((272, 97), (165, 40), (308, 268)):
    refuse += [step(0x15, number[column], 0, 1), step(0x06, 0x50001)]
refuse += [step(0x15, (56, 220)[column], 0, 3), step(0x20, 16), step(0x45, kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS, 0, 1)]
refuse += [step(0x06, 0x50001), step(0x06, 0x7FFF0000)]
kernel.no_new_privileges()
kernel.filter_syscalls(b"".join(refuse))
try:
    print(Sandbox(packages=()).describe())
except NoSandboxError as error:
    print("refused:", error)
sandbox = Sandbox(packages=(), unsafe=True)
source = '''
import os
def f():
    try:
        os.chmod(os.__file__, 0o644)
    except PermissionError as error:
        return error.errno
'''
print(answer(sandbox, source), sandbox.describe())
"""


@pytest.mark.parametrize("user", USERS)
def test_where_namespaces_are_refused_grading_is_refused_unless_unsafe_is_said(copy: Copy, user: int | None) -> None:
    refused, unsafe = copy.run(REFUSING, user=user).splitlines()
    assert refused.startswith("refused: no sandbox runs here, so no program is graded. bwrap: ")
    for reason in ("Operation not permitted", "namespaces: ", "--security-opt seccomp=unconfined", "--unsafe-sandbox"):
        assert reason in refused
    assert unsafe.startswith("1 UNSAFE, as --unsafe-sandbox allows: ")


AS_CONTAINER_ROOT = r"""
import ctypes
drop_from_bounding_set, administrator = 24, 21
if len(sys.argv) == 2:
    assert ctypes.CDLL(None).prctl(drop_from_bounding_set, administrator, 0, 0, 0) == 0
    words = open("/proc/self/cmdline").read().split("\0")[:-1]
    os.execv(words[0], [*words, "again"])
sandbox = Sandbox(packages=(), backend=sys.argv[1])
print(os.geteuid(), answer(sandbox, "import os\ndef f(): return os.getuid() > 0"), sandbox.describe())
"""


@pytest.mark.skipif(not AS_ROOT, reason="the case of root without CAP_SYS_ADMIN")
@pytest.mark.parametrize("backend", ["bwrap", "namespaces"])
def test_root_that_may_not_make_namespaces_lets_an_ordinary_user_do_it(copy: Copy, backend: str) -> None:
    said = copy.run(AS_CONTAINER_ROOT, backend)
    assert said.startswith(f"0 True {backend} ")


@pytest.mark.skipif(not AS_ROOT or OF_ROOT not in PLACES, reason="root's own folder is closed to others")
def test_limits_never_run_as_root_and_say_what_lets_them_run() -> None:
    for copied in make_copy(OF_ROOT):
        said = copied.run(SELF_TEST, "limits", "pass")
    assert said.startswith(
        f"NoSandboxError as root it runs programs as another user, who cannot read Python's library {OF_ROOT}/"
    )
    assert f"chmod o+x {OF_ROOT}, use another interpreter" in said
