"""The command lines: bubblewrap's arguments, and the interpreter's."""

from pathlib import Path

import pytest

from trimtab.tasks.sandbox.command import bwrap_command, clean_environment, find_bwrap, python_command
from trimtab.tasks.sandbox.layout import interpreter_layout, others_can_read, package_folders
from trimtab.tasks.sandbox.plan import Plan

PLAN: Plan = {
    "backend": "bwrap",
    "channel": 5,
    "readable": [("/usr/lib", "/usr/lib"), ("/opt/numpy", "/packages/numpy")],
    "hidden": ["/usr/lib/python3/dist-packages"],
    "search": ["/packages"],
    "user": None,
    "folder": "/home",
    "seconds": 10,
    "memory": 1,
    "file_size": 1,
    "disk": 4096,
    "inodes": 1,
    "open_files": 1,
    "tasks": 1,
}


def pairs(words: list[str], option: str) -> list[tuple[str, str]]:
    return [(words[at + 1], words[at + 2]) for at, word in enumerate(words) if word == option]


def test_bwrap_unshares_everything_and_shows_only_the_plan() -> None:
    words = bwrap_command(PLAN, "/home", ["/usr/bin/python3", "-c", "pass"])
    assert words[1:6] == ["--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--dev"]
    assert words[-5:] == ["--chdir", "/home", "/usr/bin/python3", "-c", "pass"]
    bound = pairs(words, "--ro-bind")
    assert bound[:2] == [("/usr/lib", "/usr/lib"), ("/opt/numpy", "/packages/numpy")]
    assert bound[2] == ("/usr/bin/python3", "/usr/bin/python3")
    assert len(bound) == 4
    assert bound[3][0].endswith("trimtab/tasks")
    assert "--bind" not in words
    assert "--share-net" not in words


def test_bwrap_is_the_system_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    impostor = tmp_path / "bwrap"
    impostor.write_text("#!/bin/sh\n")
    impostor.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert find_bwrap() != str(impostor)


def test_bwrap_hides_folders_after_they_are_bound_and_before_they_are_locked() -> None:
    words = bwrap_command(PLAN, "/home", ["/usr/bin/python3"])
    hidden = PLAN["hidden"][0]
    mounted, locked = (at for at, word in enumerate(words) if word == hidden)
    assert words.index("/usr/lib") < mounted < locked
    assert (words[mounted - 1], words[locked - 1]) == ("--tmpfs", "--remount-ro")


def test_writable_places_are_small_and_in_memory() -> None:
    words = bwrap_command(PLAN, "/home", ["/usr/bin/python3"])
    for place in ("/home", "/tmp", "/dev/shm"):
        at = words.index("--tmpfs", words.index("--size")) if place == "/home" else words.index(place, words.index("--size")) - 1
        assert words[at - 4 : at + 2] == ["--size", "4096", "--perms", "1777", "--tmpfs", place]


def test_places_without_a_size_are_read_only() -> None:
    words = bwrap_command(PLAN, "/home", ["/usr/bin/python3"])
    locked = [words[at + 1] for at, word in enumerate(words) if word == "--remount-ro"]
    assert locked == [*PLAN["hidden"], "/dev", "/"]


def test_the_interpreter_takes_nothing_from_its_starter() -> None:
    words = python_command("some.module")
    assert {"-P", "-s", "-S"} < set(words)
    assert words[-1] == "some.module"
    assert not any(name.startswith(("PATH", "LD_", "PYTHONPATH")) for name in clean_environment("/home"))


def test_no_installed_package_is_readable_but_the_allowed_ones() -> None:
    layout = interpreter_layout()
    assert layout.readable
    assert all(target == "/" + target.lstrip("/") for _, target in layout.readable)
    assert any(folder.endswith("site-packages") or folder.endswith("dist-packages") for folder in layout.hidden)
    assert package_folders(("numpy",))[0].name == "numpy"


def test_who_can_read_a_folder(tmp_path) -> None:
    folder = tmp_path / "closed" / "library"
    folder.mkdir(parents=True)
    (folder / "os.py").write_text("")
    (folder / "os.py").chmod(0o644)
    folder.chmod(0o755)
    folder.parent.chmod(0o700)
    assert others_can_read(folder, from_root=False)
    assert not others_can_read(folder, from_root=True)
    folder.chmod(0o700)
    assert not others_can_read(folder, from_root=False)
