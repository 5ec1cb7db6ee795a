"""Hostile programs: none passes, none learns what it must not, none leaves anything behind."""

import os
import re
import site
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from sandboxes import ORDINARY, adopt_orphans, descendants, interpreter_for_others
from trimtab.tasks.grading.code import CodeGrader, CodeTests, Suite
from trimtab.tasks.grading.grader import Judgement
from trimtab.tasks.sandbox import Limits, Sandbox
from trimtab.tasks.sandbox import sandbox as sandbox_module
from trimtab.traces import AnswerKind, Problem, Score, Split

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")

SECRET = "correct horse battery staple"
MARK = f"trimtab-mark-{os.getpid()}"
SHARED = ("/tmp", "/dev/shm", "/var/tmp")
PROGRAMS = {
    name: (pattern, source)
    for name, pattern, source in re.findall(
        r"^=== (.*?) => (.*?)\n(.*?)(?=^=== |\Z)",
        (Path(__file__).parent / "code_hostile.txt").read_text(),
        re.DOTALL | re.MULTILINE,
    )
}


class Attack(NamedTuple):
    """What became of all programs, and of what they were after."""

    judgements: dict[str, Judgement]
    home: tuple[dict[str, tuple], dict[str, tuple]]
    shared: set[str]
    survivors: set[int]
    visitors: list[str]
    backend: str


@pytest.fixture(scope="module", params=["bwrap", "namespaces", "limits"])
def attack(request: pytest.FixtureRequest) -> Iterator[Attack]:
    with ExitStack() as stack:
        if request.param == "limits":
            stack.enter_context(interpreter_for_others())
        home = Path(stack.enter_context(TemporaryDirectory(prefix="trimtab-home-")))
        if os.geteuid() == 0:  # all at home belongs to the user whom the programs run as, so that the layers alone keep it
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(sandbox_module, "_program_user", lambda backend: ORDINARY)
            os.chown(home, ORDINARY, ORDINARY)
        every = request.param == "namespaces"
        sandbox = Sandbox(Limits(seconds=2 if every else 1, memory_mib=256), backend=request.param, unsafe=True)
        programs = {name: source for name, (_, source) in PROGRAMS.items() if every or name.startswith("harm")}
        yield _attack(sandbox, programs, home)


def _attack(sandbox: Sandbox, programs: dict[str, str], home: Path) -> Attack:
    (home / "secret.txt").write_text(SECRET)
    (home / "folder").mkdir()
    for path in home.iterdir():
        os.chown(path, home.stat().st_uid, home.stat().st_gid)
    before_home = _state(home)
    adopt_orphans()
    before = set(descendants(os.getpid()))
    visitors: list[str] = []
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIMTAB_SECRET", SECRET)
        sockets = Path(stack.enter_context(TemporaryDirectory()))
        sockets.chmod(0o755)
        filled = _fill(stack, home, sockets, visitors)
        tests = CodeTests(entry_point="f", suites=(Suite(name="base", asserts=('assert f(1) == "the right answer"',)),))
        problem = Problem("p", "q", "", Split.TEST, kind=AnswerKind.CODE, tests=tests.model_dump_json())
        grader = CodeGrader(sandbox, workers=4)
        judgements = grader.judge([(problem, filled(source)) for source in programs.values()])
    return Attack(
        dict(zip(programs, judgements, strict=True)),
        (before_home, _state(home)),
        {str(path) for folder in SHARED for path in Path(folder).glob(f"{MARK}*")},
        set(descendants(os.getpid())) - before,
        visitors,
        sandbox.backend,
    )


def _state(folder: Path) -> dict[str, tuple]:
    """All that can be changed of what lies in a folder, and of itself."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        stat = path.lstat()
        attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)}
        content = path.read_text() if path.is_file() else ""
        found[path.name] = (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime_ns, stat.st_ctime_ns, attributes, content)
    return found


def _fill(stack: ExitStack, home: Path, sockets: Path, visitors: list[str]) -> Callable[[str], str]:
    """Servers that note who connects, and a function that writes their addresses into a program."""
    tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    unix = stack.enter_context(socket.socket(socket.AF_UNIX))
    address = str(sockets / "s")
    unix.bind(address)
    unix.listen()
    datagram = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    datagram.bind(address + ".datagram")
    for path in sockets.iterdir():
        path.chmod(0o777)
    for server in (tcp, unix, datagram):
        server.setblocking(False)
    stack.callback(lambda: visitors.extend(_visited(tcp, unix, datagram)))
    words = {
        "SECRET": SECRET,
        "SECRET_FILE": str(home / "secret.txt"),
        "HOME": str(home),
        "PID": str(os.getpid()),
        "PORT": str(tcp.getsockname()[1]),
        "SOCKET": address,
        "MARK": MARK,
        "SITE": site.getsitepackages()[0],
        "MACHINE": os.uname().machine,
        "REPOSITORY": str(Path(__file__).parents[4]),
    }

    def filled(source: str) -> str:
        for word, value in words.items():
            source = source.replace(f"@{word}@", value)
        return source

    return filled


def _visited(tcp: socket.socket, unix: socket.socket, datagram: socket.socket) -> list[str]:
    found = []
    for name, ask in (("tcp", tcp.accept), ("unix", unix.accept), ("datagram", lambda: datagram.recv(1))):
        try:
            ask()
            found.append(name)
        except BlockingIOError:
            continue
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_hostile_program_fails_with_a_reason(attack: Attack, name: str) -> None:
    if name not in attack.judgements:
        pytest.skip("what a program may say does not depend on the layers")
    judgement = attack.judgements[name]
    assert judgement.score is Score.INCORRECT, judgement.reason
    assert re.search(PROGRAMS[name][0], judgement.reason), judgement.reason
    assert SECRET not in judgement.reason
    assert judgement.reason.isprintable()


def test_there_are_many_programs() -> None:
    assert len(PROGRAMS) > 95


def test_nothing_at_home_was_touched(attack: Attack) -> None:
    before, after = attack.home
    assert len(before) == 3
    assert after == before


def test_nothing_was_left_in_shared_places(attack: Attack) -> None:
    assert attack.shared == set()


def test_no_process_survived(attack: Attack) -> None:
    assert attack.survivors == set()


def test_nobody_was_reached(attack: Attack) -> None:
    assert attack.visitors == []


def test_the_grader_still_grades(attack: Attack) -> None:
    tests = CodeTests(entry_point="f", suites=(Suite(name="base", asserts=('assert f(1) == "the right answer"',)),))
    problem = Problem("p", "q", "", Split.TEST, kind=AnswerKind.CODE, tests=tests.model_dump_json())
    sandbox = Sandbox(backend=attack.backend, unsafe=True)  # type: ignore[arg-type]
    assert CodeGrader(sandbox).judge([(problem, 'def f(x): return "the right answer"')])[0].score is Score.CORRECT
