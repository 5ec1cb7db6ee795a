"""Files, parts, ledger, artifact and run directory on remote file systems: as on a disk, also for a writer that is killed."""

import errno
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath
from upath.implementations.memory import MemoryPath

from remote_stores import MOMENTS, Killed, Kills, When, stored
from trimtab.errors import ConfigError, InputError, StoreError
from trimtab.gate import ALWAYS
from trimtab.neurons import Neurons
from trimtab.steering import Steering
from trimtab.store import (
    AnyPath,
    Cache,
    Parts,
    any_path,
    load_gate,
    load_neurons,
    load_tensors,
    make_plan,
    openings,
    read_json,
    read_table,
    read_text,
    record_opening,
    refuse_foreign,
    remove_leftovers,
    replace_file,
    save_gate,
    save_neurons,
    write_json,
    write_text,
)
from trimtab.store.remote import as_os_errors
from trimtab.traces import Score, ScoredTrace

ROWS = [ScoredTrace("t", "p", Score.CORRECT, "equal " * 20)]


def test_what_a_user_types(tmp_path: Path) -> None:
    assert any_path("runs/a") == Path("runs/a")
    assert any_path(f"file://{tmp_path}/a") == tmp_path / "a"
    assert any_path(f"local://{tmp_path}/a/") == tmp_path / "a"
    memory = any_path("memory://runs/a/")
    assert not isinstance(memory, Path)
    assert (str(memory), str(memory / "run.toml")) == ("memory://runs/a", "memory://runs/a/run.toml")


@pytest.mark.parametrize("place", ["s4://bucket/run", "://x", "s 3://bucket"])
def test_a_scheme_that_does_not_exist(place: str) -> None:
    with pytest.raises(InputError, match=r"there is no file system .*s3://BUCKET/RUN"):
        any_path(place)


@pytest.mark.parametrize(
    ("place", "module", "install"), [("sftp://host/run", "paramiko", r"fsspec\[sftp\]"), ("gs://bucket/run", "gcsfs", "gcsfs")]
)
def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, place: str, module: str, install: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(StoreError, match=rf"needs a package that is not installed .*pip install '?{install}"):
        any_path(place)


def test_files_come_back_with_the_bytes_of_a_disk(remote: UPath, tmp_path: Path, neurons: Neurons, steering: Steering) -> None:
    for folder in (remote, tmp_path / "disk"):
        write_text(folder / "a" / "b.txt", "a\r\né")
        write_json(folder / "c.json", {"x": [1.5, None]})
        save_neurons(neurons, folder / "neurons" / "x")
        save_gate(steering.gate, folder)
        assert read_text(folder / "a" / "b.txt") == "a\r\né"
        assert read_json(folder / "c.json") == {"x": [1.5, None]}
        assert load_neurons(folder / "neurons" / "x").score.tobytes() == neurons.score.tobytes()
        assert load_gate(folder).arrays["weight"].tobytes() == steering.gate.arrays["weight"].tobytes()
    assert stored(remote) == stored(tmp_path / "disk")


def test_missing_and_damaged_files(remote: UPath) -> None:
    write_text(remote / "a.json", '{"a": ')
    with pytest.raises(StoreError, match=r"a\.json is truncated or not a JSON"):
        read_json(remote / "a.json")
    for read in (read_json, read_text, load_tensors, lambda path: read_table(path, ScoredTrace)):
        with pytest.raises(StoreError, match="none is missing"):
            read(remote / "none")
    for read in (load_tensors, lambda path: read_table(path, ScoredTrace)):
        with pytest.raises(StoreError, match=r"a\.json is truncated or not a"):
            read(remote / "a.json")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_write_keeps_the_old_file(remote: UPath, error: type[BaseException]) -> None:
    def write_half() -> None:
        with replace_file(remote / "a.txt") as temporary:
            temporary.write_text("half")
            raise error

    write_text(remote / "a.txt", "old")
    with pytest.raises(error):
        write_half()
    assert stored(remote) == {"a.txt": b"old"}


class NoCredentialsError(Exception):
    """As a client library raises it: no OSError, and of a package that reads URLs."""

    __module__ = "botocore.exceptions"


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "free space"),
        (PermissionError(errno.EACCES, "Access Denied"), "make the folder writable"),
        (OSError("Quota exceeded"), "check the URL, its credentials and the network"),
        (NoCredentialsError("Unable to locate credentials"), "NoCredentialsError: Unable to locate credentials; check the URL"),
    ],
)
def test_a_store_that_refuses_names_the_fix_and_keeps_the_old_file(
    remote: UPath, error: Exception, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(remote / "a.txt", "old")

    def refuse(*args: object, **options: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        for kind in (MemoryFileSystem, LocalFileSystem):
            patch.setattr(kind, "put_file", refuse)
        with pytest.raises(StoreError, match=rf"cannot write .*a\.txt: .*{fix}"):
            write_text(remote / "a.txt", "new")
    assert stored(remote) == {"a.txt": b"old"}


def test_a_store_that_cannot_be_read_is_not_taken_for_a_damaged_file(monkeypatch: pytest.MonkeyPatch) -> None:
    path = any_path("memory://unreachable/a.json")
    write_text(path, "{}")

    def refuse(*args: object, **options: object) -> None:
        raise NoCredentialsError("none")

    monkeypatch.setattr(MemoryFileSystem, "open", refuse)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
    for read in (read_json, load_tensors, lambda path: read_table(path, ScoredTrace), openings):
        with pytest.raises(StoreError, match=r"a\.json cannot be read: NoCredentialsError: none; check the URL"):
            read(path)


def test_only_leftovers_are_removed(remote: UPath) -> None:
    for name in ("a.txt", ".a.txt.swp", ".a.txt.01234567.trimtab-partial", ".b.89abcdef.trimtab-partial"):
        write_text(remote / name, "x")
    assert [path.name for path in remove_leftovers(remote, "b")] == [".b.89abcdef.trimtab-partial"]
    assert [path.name for path in remove_leftovers(remote)] == [".a.txt.01234567.trimtab-partial"]
    assert set(stored(remote)) == {"a.txt", ".a.txt.swp"}
    assert remove_leftovers(remote / "missing") == []


def test_openings_are_appended(remote: UPath) -> None:
    path = remote / "run" / "ledger.jsonl"
    assert openings(path) == 0
    for digest in ("abc", "abd", "abe"):
        before = path.read_bytes() if path.exists() else b""
        record_opening(path, "evaluate", "é\n", digest)
        assert path.read_bytes().startswith(before)
    assert openings(path) == 3


def write_parts(folder: UPath | Path) -> None:
    """A recording's worth of parts in two formats."""
    plan = make_plan([f"{i:03d}" for i in range(8)], [5] * 8, 10, {"seed": 0})
    for suffix in (".parquet", ".safetensors"):
        parts = Parts(folder / suffix[1:], suffix)
        parts.ensure_plan(plan)
        for part in parts.missing():
            if suffix == ".parquet":
                parts.write_table(part, [replace(ROWS[0], trace_id=name) for name in plan.parts[part]])
            else:
                parts.write_tensors(part, {"sum": np.arange(part, part + 12.0).reshape(3, 4)}, {"part": str(part)})


@pytest.mark.parametrize("when", MOMENTS)
def test_parts_after_a_kill_at_every_write_have_the_bytes_of_an_undisturbed_run(
    remote: UPath, tmp_path: Path, kills: Kills, when: When
) -> None:
    write_parts(tmp_path / "disk")
    whole = stored(tmp_path / "disk")
    for file in range(len(whole)):
        folder = remote / f"killed-{file}"
        kills.at(file, when)
        with pytest.raises(Killed):
            write_parts(folder)
        left = stored(folder)
        assert len(left) == file + (when == "after" and isinstance(remote, MemoryPath))
        assert left.items() <= whole.items()
        kills.never()
        write_parts(folder)
        assert stored(folder) == whole


def test_another_plan_and_parts_without_one_are_refused(remote: UPath) -> None:
    write_parts(remote)
    with pytest.raises(ConfigError, match="seed 0 -> 1"):
        Parts(remote / "parquet").ensure_plan(make_plan(["a"], [5], 10, {"seed": 1}))
    (remote / "parquet" / "plan.json").unlink()
    with pytest.raises(StoreError, match=r"4 parts but no plan\.json"):
        Parts(remote / "parquet").ensure_plan(make_plan(["a"], [5], 10, {"seed": 1}))


def test_an_artifact_comes_back_with_the_bytes_of_a_disk(remote: UPath, tmp_path: Path, steering: Steering) -> None:
    for folder in (remote, tmp_path / "disk"):
        saved = steering.save_pretrained(folder / "steering")
        assert Steering.from_pretrained(saved).digest == steering.digest
        with pytest.raises(StoreError, match="already holds an artifact; pass force=True"):
            steering.save_pretrained(saved)
        with pytest.raises(StoreError, match="has no revision 'main'"):
            Steering.from_pretrained(saved, revision="main")
    assert stored(remote) == stored(tmp_path / "disk")
    assert Steering.from_pretrained(str(remote / "steering")).digest == steering.digest
    ungated = steering.with_gate(ALWAYS)
    ungated.save_pretrained(str(remote / "steering"), force=True)
    assert set(stored(remote)) == {"steering/config.json", "steering/neurons.safetensors", "steering/README.md"}
    write_text(remote / "other" / "README.md", "mine")
    with pytest.raises(StoreError, match="holds something other than an artifact"):
        steering.save_pretrained(remote / "other", force=True)
    with pytest.raises(StoreError, match=r"config\.json is missing"):
        Steering.from_pretrained(remote / "none")


@pytest.mark.parametrize("when", MOMENTS)
@pytest.mark.parametrize("file", range(5))
def test_a_killed_save_leaves_the_old_artifact_the_new_one_or_none(
    remote: UPath, steering: Steering, kills: Kills, file: int, when: When
) -> None:
    old, new = steering.with_gate(ALWAYS), replace(steering, strength=2.0)
    old.save_pretrained(remote)
    kills.at(file, when)
    with pytest.raises(Killed):
        new.save_pretrained(remote, force=True)
    kills.never()
    try:
        found = Steering.from_pretrained(remote)
    except StoreError as error:
        assert "config.json is missing" in str(error)  # noqa: PT017
    else:
        assert found.digest == (old.digest if file == 0 else new.digest)
    new.save_pretrained(remote, force=True)
    assert Steering.from_pretrained(remote).digest == new.digest
    assert set(stored(remote)) == {"config.json", "neurons.safetensors", "gate.safetensors", "README.md"}


def test_a_remote_entry_is_begun_left_and_gone_on_with(remote: UPath) -> None:
    cache = Cache(remote)
    entry = cache.entry("sample", {"seed": 0})

    def interrupted(folder: AnyPath) -> None:
        write_text(folder / "part-00000", "kept")
        write_text(folder / ".part-00001.01234567.trimtab-partial", "half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.compute(entry, interrupted, stored)
    assert not entry.done
    with entry.claim() as missing:
        assert missing
        assert {name for name in stored(entry.folder) if ".lock" not in name} == {"part-00000"}
    with entry.claim() as missing:
        assert not missing
    record_opening(cache.ledger, "evaluate", "all", "some model")
    cache.write_study({"seed": 0}, {"sample": entry.name})
    (row,) = cache.rows()
    assert (row.name, row.whole, len(row.studies)) == (entry.name, True, 1)
    cache.delete(entry.name)
    assert (cache.rows(), openings(cache.ledger)) == ([], 1)


def test_a_remote_folder_that_is_no_run_is_left_untouched(remote: UPath) -> None:
    write_text(remote / "thesis.tex", "mine")
    with pytest.raises(ConfigError, match=r"is not empty and is no run directory \(it holds thesis.tex\); nothing was touched"):
        refuse_foreign(remote, ("run.toml",))
    assert stored(remote) == {"thesis.tex": b"mine"}
    refuse_foreign(remote / "none", ("run.toml",))


@pytest.mark.parametrize("error", [TypeError("an argument is missing"), KeyError("name"), RuntimeError("a bug of ours")])
def test_a_mistake_of_the_program_is_no_network_error(error: Exception) -> None:
    with pytest.raises(type(error)), as_os_errors(any_path("memory://a/b")):
        raise error
