import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from trimtab.errors import StoreError
from trimtab.store.ledger import openings, record_opening


def test_openings_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "run" / "ledger.jsonl"
    assert openings(path) == 0
    record_opening(path, "trimtab evaluate", "MATH-500\nbase, steered", "abc")
    first = path.read_bytes()
    record_opening(path, "trimtab evaluate", "é", "abd")
    assert openings(path) == 2
    assert path.read_bytes().startswith(first)
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [{key: entry[key] for key in ("command", "what", "digest")} for entry in entries] == [
        {"command": "trimtab evaluate", "what": "MATH-500\nbase, steered", "digest": "abc"},
        {"command": "trimtab evaluate", "what": "é", "digest": "abd"},
    ]
    when = datetime.fromisoformat(entries[0]["when"])
    assert when.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - when) < timedelta(minutes=5)


def test_a_torn_line_counts_and_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    record_opening(path, "a", "b", "c")
    path.write_bytes(path.read_bytes() + b'{"when": "20')
    assert openings(path) == 2
    record_opening(path, "d", "e", "f")
    assert openings(path) == 3
    assert json.loads(path.read_text().splitlines()[-1])["command"] == "d"


def test_a_ledger_that_cannot_be_written_or_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="a file stands where a folder is needed"):
        record_opening(tmp_path / "file" / "ledger.jsonl", "a", "b", "c")
    with pytest.raises(StoreError, match="cannot be read"):
        openings(tmp_path)
