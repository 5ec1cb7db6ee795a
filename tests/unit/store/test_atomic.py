import errno
from enum import StrEnum
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InputError, StoreError
from trimtab.store.atomic import (
    digest_of,
    plain,
    read_json,
    read_text,
    remove_leftovers,
    replace_file,
    replace_folder,
    write_json,
    write_text,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def typed(value: object) -> object:
    """A value with its types spelled out, because 1 == 1.0 == True in Python and -0.0 == 0.0."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    return [typed(item) for item in value] if isinstance(value, list) else (type(value).__name__, repr(value))


def write_half(path: Path, error: BaseException) -> None:
    with replace_file(path) as temporary:
        temporary.write_text("half")
        raise error


def test_a_file_appears_whole_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    with replace_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_write_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(error):
        write_half(path, error())
    assert read_text(path) == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_fix_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(StoreError, match=r"a\.txt.*free space"):
        write_half(path, OSError(errno.ENOSPC, "No space left on device"))
    assert read_text(path) == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_place_of_a_folder_names_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.txt", tmp_path / "file" / "deeper" / "a.txt"):
        with pytest.raises(StoreError, match="a file stands where a folder is needed"):
            write_text(path, "")


def test_a_folder_in_place_of_a_file_names_the_fix(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="a folder stands where a file is needed"):
        write_text(tmp_path, "")


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, data: bytes) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(StoreError, match="make the folder writable or choose another"):
        write_text(tmp_path / "a.txt", "")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "steering"
    with replace_folder(folder, last="a") as temporary:
        (temporary / "a").write_text("1")
    with pytest.raises(ZeroDivisionError), replace_folder(folder, last="a") as temporary:
        (temporary / "a").write_text(str(1 / 0))
    assert (folder / "a").read_text() == "1"
    with replace_folder(folder, last="a") as temporary:
        (temporary / "b").write_text("3")
    assert [path.name for path in folder.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [folder]


def test_an_old_folder_comes_back_when_the_new_one_cannot_be_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "steering"
    with replace_folder(folder, last="a") as temporary:
        (temporary / "a").write_text("1")
    rename, calls = Path.replace, []

    def fail_the_second(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fail_the_second)
    with pytest.raises(StoreError, match="Input/output error"), replace_folder(folder, last="a") as temporary:
        (temporary / "a").write_text("2")
    assert (folder / "a").read_text() == "1"
    assert list(tmp_path.iterdir()) == [folder]


def test_only_leftovers_are_removed(tmp_path: Path) -> None:
    kept = ["a.txt", ".hidden", ".a.txt.swp", ".a.txt.0123456.trimtab-partial", "b.01234567.trimtab-partial"]
    left = [".a.txt.01234567.trimtab-partial", ".b.89abcdef.trimtab-partial"]
    for name in (*kept, *left):
        (tmp_path / name).write_text("")
    assert [path.name for path in remove_leftovers(tmp_path, "a.txt")] == left[:1]
    assert [path.name for path in remove_leftovers(tmp_path)] == left[1:]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    assert remove_leftovers(tmp_path / "missing") == []


@given(data=JSON)
def test_json_comes_back_exactly_and_with_the_same_bytes(data: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "data.json"
    write_json(path, data)
    first = path.read_bytes()
    assert typed(read_json(path)) == typed(data)
    write_json(path, read_json(path))
    assert path.read_bytes() == first
    assert digest_of(read_json(path)) == digest_of(data)


def test_json_layout(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": (1, 2.0), "a": "é"})
    assert (tmp_path / "a.json").read_bytes().decode() == '{\n  "a": "é",\n  "b": [\n    1,\n    2.0\n  ]\n}\n'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), r"a\.json\.x\[0\] is nan"),
        (float("inf"), "must be finite"),
        (np.float32(1), "type float32.*float"),
        (np.zeros(2), "tolist"),
        ({1: 2}, "keys must be strings"),
        ({"\ud800": 2}, "lone surrogate"),
        ("\ud800", "lone surrogate"),
        ({1, 2}, "type set"),
    ],
)
def test_what_json_cannot_hold_is_named_and_nothing_is_written(tmp_path: Path, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_json(tmp_path / "a.json", {"x": [value]})
    assert list(tmp_path.iterdir()) == []


def test_plain_drops_subclasses() -> None:
    class Colour(StrEnum):
        RED = "red"

    values = plain({"a": Colour.RED, "b": np.float64(0.1), "c": (1,)}, "x")
    assert typed(values) == {"a": ("str", "'red'"), "b": ("float", "0.1"), "c": [("int", "1")]}


def test_digest_tells_numbers_apart() -> None:
    assert len({digest_of(value) for value in (1, 1.0, True, "1", [1], None)}) == 6
    assert digest_of({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


def test_truncated_json_names_the_file_and_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": [1, 2]})
    whole = path.read_bytes()
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=r"a\.json is truncated.*delete it and run the command"):
            read_json(path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"NaN", b"[Infinity]"])
def test_foreign_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"a\.json is truncated or not"):
        read_json(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is missing"):
        read_json(tmp_path / "none.json")
    with pytest.raises(StoreError, match="cannot be read"):
        read_json(tmp_path)


def test_write_text_keeps_newlines(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "a\r\nb\n")
    assert (tmp_path / "a").read_bytes() == b"a\r\nb\n"


HALF = """
import sys, time
from pathlib import Path
from trimtab.store.atomic import replace_file
with replace_file(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_kill_in_the_middle_of_a_write_keeps_the_old_file(tmp_path: Path, start) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    process = start(HALF, path)
    process.kill()
    process.wait()
    assert read_text(path) == "old"
    assert len(remove_leftovers(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == [path]
