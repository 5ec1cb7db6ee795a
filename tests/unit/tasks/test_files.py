"""Rows of files, and files that are damaged."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trimtab.errors import InputError
from trimtab.tasks.files import read_rows, text_field


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n  \n{"a": "ü"}')
    assert list(read_rows(path)) == [{"a": 1}, {"a": "ü"}]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([{"a": 1, "b": [1, 2]}, {"a": None, "b": []}]), path)
    assert list(read_rows(path)) == [{"a": 1, "b": [1, 2]}, {"a": None, "b": []}]


def test_truncated_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([{"a": i} for i in range(1000)]), path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"rows\.parquet cannot be read as Parquet .* may be truncated, write it again"):
        list(read_rows(path))
    path.write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        list(read_rows(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": "\xff\xfe"}', "line 2 is not JSON in UTF-8 .* fix or remove the line"),
        (b'{"a": 1', "line 2 is not JSON in UTF-8"),
        (b"[1, 2]", "line 2 is a list; every line must be a JSON object"),
        (b'"text"', "line 2 is a str; every line must be a JSON object"),
    ],
)
def test_lines_that_cannot_be_used(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps({"a": 0}).encode() + b"\n" + line + b"\n")
    with pytest.raises(InputError, match=message):
        list(read_rows(path))


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file at .*none\.jsonl; give the path of a \.jsonl or \.parquet file"):
        list(read_rows(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="no file at"):
        list(read_rows(tmp_path))
    (tmp_path / "rows.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match=r"rows\.csv: unknown kind '\.csv'; accepted: \.jsonl, \.parquet"):
        list(read_rows(tmp_path / "rows.csv"))


def test_text_field() -> None:
    row = {"a": None, "b": 0, "c": "x"}
    assert text_field(row, ("a", "b", "c"), "here") == "0"
    assert text_field(row, ("c", "b"), "here") == "x"
    with pytest.raises(InputError, match="here has none of the fields a, d; it has a, b, c"):
        text_field(row, ("a", "d"), "here")
    with pytest.raises(InputError, match=r"here: a is not Unicode text .*surrogates not allowed"):
        text_field({"a": "x\ud800"}, ("a",), "here")
