"""Sandboxed processes: what they see, what holds them, and that nothing of them stays."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sandboxes import descendants, interpreter_for_others
from trimtab.errors import ConfigError
from trimtab.tasks.sandbox import (
    Limits,
    NoSandboxError,
    Program,
    Sandbox,
    SandboxError,
    allow_unsafe,
    command,
    describe_best,
    program,
)
from trimtab.tasks.sandbox import sandbox as module
from trimtab.tasks.sandbox.channel import Channel
from trimtab.tasks.sandbox.codec import decode, encode
from trimtab.tasks.sandbox.selftest import gaps

NONCE = b"0" * 16
BACKENDS = ("bwrap", "namespaces", "limits")


@pytest.fixture(params=BACKENDS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with ExitStack() as stack:
        if request.param == "limits":
            stack.enter_context(interpreter_for_others())
        yield Sandbox(backend=request.param, unsafe=True)


def evaluate(running: Program, source: str, *arguments: object) -> object:
    """Load a program that defines ``f`` into a process that is ready, and call it."""
    channel = Channel(running.channel.fileno())
    channel.send(encode((NONCE, "load", ("", source, "f"))))
    loaded = decode(channel.receive(20))
    assert loaded[1] == "value", loaded  # type: ignore[index]
    channel.send(encode((NONCE, "call", ("f", arguments, {}))))
    reply = decode(channel.receive(20))
    assert reply[1] == "value", reply  # type: ignore[index]
    return reply[2]  # type: ignore[index]


def run(sandbox: Sandbox, source: str, *arguments: object) -> object:
    with sandbox.start() as running:
        running.wait_ready()
        return evaluate(running, source, *arguments)


def test_a_program_computes(sandbox: Sandbox) -> None:
    assert run(sandbox, "def f(x, y):\n    return [x + y]", 1, 2) == [3]


def test_the_environment_is_empty_but_for_a_home(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_SECRET", "x")
    source = "import os\ndef f():\n    return dict(os.environ), os.getcwd(), os.listdir('.')"
    environment, folder, content = run(sandbox, source)  # type: ignore[misc]
    assert environment.pop("LC_CTYPE", "C.UTF-8") == "C.UTF-8"  # Python's own, where the locale is C
    assert set(environment) - {"PWD"} == set(command.clean_environment("/"))
    assert folder == environment["HOME"]
    assert content == []


def test_the_folder_is_deleted_whatever_is_in_it(sandbox: Sandbox) -> None:
    source = """
import os
def f():
    for _ in range(300):
        os.mkdir("deep")
        os.chdir("deep")
    os.chdir(os.environ["HOME"])
    os.mkdir("locked")
    os.mkdir("sealed", 0)
    open("locked/file", "w").write("x")
    os.symlink("/etc", "link")
    try:
        os.chmod("locked", 0)
    except PermissionError:  # limits
        pass
    return os.environ["HOME"]
"""
    assert not Path(str(run(sandbox, source)), "locked").exists()
    assert Path("/etc").stat().st_mode & 0o7777 == 0o755


def test_hashes_repeat(sandbox: Sandbox) -> None:
    source = "def f():\n    return list({'one', 'two', 'three', 'four', 'five'})"
    assert run(sandbox, source) == run(sandbox, source)


def test_numpy_can_be_imported_and_the_rest_of_its_folder_cannot(sandbox: Sandbox) -> None:
    assert run(sandbox, "import numpy\ndef f():\n    return numpy.arange(4).sum()") == 6
    source = "import importlib.util\ndef f():\n    return [importlib.util.find_spec(n) for n in ('torch', 'pydantic', 'trimtab')]"
    assert run(sandbox, source) == [None, None, None]


def test_threads_work(sandbox: Sandbox) -> None:
    source = (
        "from concurrent.futures import ThreadPoolExecutor\ndef f():\n    return list(ThreadPoolExecutor(3).map(abs, [-1, 2]))"
    )
    assert run(sandbox, source) == [1, 2]


def test_dataclasses_work_and_demonstrations_stay_asleep(sandbox: Sandbox) -> None:
    source = """
from dataclasses import dataclass
@dataclass
class Point:
    x: int
def f():
    return Point(3).x, Point.__annotations__["x"] is int
if __name__ == "__main__":
    raise SystemExit
"""
    assert run(sandbox, source) == (3, True)


def test_a_program_is_ended_when_its_owner_leaves(sandbox: Sandbox) -> None:
    before = set(descendants(os.getpid()))
    with sandbox.start() as running:
        running.wait_ready()
        channel = Channel(running.channel.fileno())
        channel.send(encode((NONCE, "load", ("", "while True: pass", "f"))))
        time.sleep(0.05)
    assert set(descendants(os.getpid())) == before


@pytest.mark.parametrize(("ending", "code"), [("import os; os._exit(7)", 7), ("import ctypes; ctypes.string_at(0)", 128 + 11)])
def test_how_a_program_ended(sandbox: Sandbox, ending: str, code: int) -> None:
    with sandbox.start() as running:
        running.wait_ready()
        Channel(running.channel.fileno()).send(encode((NONCE, "load", ("", ending, "f"))))
        assert running.exit_code(20) == code


def _runs(process: int) -> bool:
    """Whether a process still runs; a zombie, which only waits for init to read its status, does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


def test_a_killed_owner_leaves_nothing(tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(
        "import sys, time\n"
        "for name in ('trimtab', 'trimtab.tasks'):\n"
        "    package = sys.modules[name] = type(sys)(name)\n"
        f"    package.__path__ = [{str(Path(command.__file__).parents[3])!r} + '/' + name.replace('.', '/')]\n"
        "from trimtab.tasks.sandbox import Sandbox\n"
        "running = Sandbox(packages=()).start()\n"
        "running.wait_ready()\n"
        "print(running._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    started = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 20
    while _runs(started) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(started)


DAEMON = """
import os, time
def f():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    os.wait()
    return os.getpid()
"""


def patched_inside(patch: str) -> Callable[[str], list[str]]:
    """A command whose process runs ``patch`` on the module ``confine`` before it isolates itself."""

    def patched(name: str) -> list[str]:
        words = command.python_command(name)
        boot = words.index("-c") + 1
        imported = f"import trimtab.tasks.sandbox.inside.confine as confine\n{patch}\n"
        words[boot] = words[boot].replace("__import__(module", imported + "__import__(module")
        return words

    return patched


NO_FILTER = """
def refuse(files_by_path):
    raise OSError('switched off by a test')
confine.apply_filter = refuse
"""


@pytest.mark.skipif(sys.platform != "linux", reason="macOS cannot find a daemon's parents")
@pytest.mark.parametrize("backend", BACKENDS[:2])
def test_a_daemon_does_not_survive_where_processes_may_be_started(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox(backend=backend)  # type: ignore[arg-type]
    before = set(descendants(os.getpid()))
    monkeypatch.setattr(program, "python_command", patched_inside(NO_FILTER))
    with sandbox.start() as running:
        layers = running.wait_ready()
        assert "without seccomp (switched off by a test)" in layers
        evaluate(running, DAEMON)
        held = set(descendants(os.getpid())) - before
        assert len(held) > 2
    for pid in held:
        assert not Path(f"/proc/{pid}").exists()
    assert "starting processes" in ", ".join(gaps(layers))


def test_limits_do_not_start_without_the_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    with interpreter_for_others():
        sandbox = Sandbox(backend="limits", unsafe=True, packages=())
        monkeypatch.setattr(program, "python_command", patched_inside(NO_FILTER))
        with sandbox.start() as running, pytest.raises(SandboxError, match="did not isolate itself: switched off by a test"):
            running.wait_ready()


def test_what_is_not_stopped_is_said() -> None:
    assert gaps(("limits (cpu, as)",)) == [
        "reading and writing this user's files",
        "changing modes, owners and times of this user's files",
        "filling the disk with many files until the time is over",
        "using the network",
        "starting processes, each with a memory limit of its own",
        "leaving processes behind",
        "signalling this user's processes",
    ]
    layers = (
        "namespaces (mount, pid, network, ipc, uts)",
        "own root (size and number of files limited)",
        "unprivileged user",
        "seccomp",
    )
    assert gaps(layers) == []


def refusing(*names: str) -> Callable[[str], tuple]:
    """A test of the backends that some of them fail."""

    def tested(backend: str) -> tuple:
        if backend in names:
            raise NoSandboxError(f"no {backend} here")
        return None, ("seccomp",)

    return tested


def test_the_first_backend_that_runs_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = []
    for count in range(3):
        monkeypatch.setattr(module, "_tested", refusing(*BACKENDS[:count]))
        chosen.append(Sandbox(packages=(), unsafe=True).backend)
    assert chosen == list(BACKENDS)


def test_without_bwrap_and_namespaces_nothing_is_graded_unless_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_tested", refusing("bwrap", "namespaces"))
    with pytest.raises(NoSandboxError, match=r"bwrap: no bwrap here; namespaces: no namespaces here\. .*--unsafe-sandbox"):
        Sandbox(packages=())
    with pytest.raises(SandboxError, match="say unsafe=True"):
        Sandbox(packages=(), backend="limits")
    assert describe_best() == "none, on the machine that writes this"
    monkeypatch.setenv("TRIMTAB_UNSAFE_SANDBOX", "0")
    allow_unsafe()
    assert Sandbox(packages=()).describe().startswith("UNSAFE, as --unsafe-sandbox allows: seccomp; not stopped here: ")
    with pytest.raises(NoSandboxError):
        Sandbox(packages=(), unsafe=False)
    allow_unsafe(False)
    with pytest.raises(NoSandboxError):
        Sandbox(packages=())


def test_no_backend_at_all_is_one_error_with_each_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_tested", refusing(*BACKENDS))
    with pytest.raises(NoSandboxError, match="bwrap: no bwrap here; namespaces: no namespaces here; limits: no limits here"):
        Sandbox(packages=(), unsafe=True)


def test_describe_names_the_layers(sandbox: Sandbox) -> None:
    said = sandbox.describe()
    assert "limits (cpu, as, fsize, nofile, nproc, core" in said
    assert "no new privileges" in said or sys.platform != "linux"


def test_a_start_that_fails_is_the_sandbox_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox(packages=(), backend="namespaces")
    monkeypatch.setattr(program, "python_command", lambda _: [sys.executable, "-c", "raise SystemExit('no room')"])
    with pytest.raises(SandboxError, match="no room"), sandbox.start() as running:
        running.wait_ready()
    monkeypatch.setattr(program, "python_command", lambda _: ["/nowhere/python"])
    with pytest.raises(SandboxError, match="could not be started"):
        sandbox.start()


def test_a_missing_package_is_named() -> None:
    with pytest.raises(ConfigError, match="'no_such_package', which is not installed"):
        Sandbox(packages=("no_such_package",))


def test_limits_are_checked() -> None:
    with pytest.raises(ConfigError, match="limit seconds must be at least 1, got 0"):
        Limits(seconds=0)


def test_a_supervisor_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_END_SECONDS", 0.2)
    hang = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    sandbox = Sandbox(packages=(), backend="namespaces")
    monkeypatch.setattr(program, "python_command", lambda _: [sys.executable, "-c", hang])
    running = sandbox.start()
    with running:
        pass
    assert running.exit_code(1) == -signal.SIGKILL
