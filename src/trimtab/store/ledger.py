"""The ledger: each opening of the test split, appended and never changed. Wall-clock times live only here.

Every line ends with a checksum over itself and all bytes before it, so a line that was changed, or taken out, is found. Whole
lines that are gone at the end are not: nothing tells such a ledger from an earlier one.
"""

import fcntl
import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from trimtab.errors import StoreError
from trimtab.store.atomic import parse_json, plain, replace_file, unreadable, writing
from trimtab.store.remote import AnyPath, read_bytes

_FIX = "put back a copy of it, or move it away and say so where you report: the count then begins at 0"


def record_opening(path: AnyPath, command: str, what: str, digest: str) -> None:
    """Append one line (``when`` in ISO UTC, command, what, digest, check) and sync it before returning.

    Call it before the split is read, so that no look at it goes unrecorded.

    Args:
        path: ``ledger.jsonl``, made if missing.
        command: the command that opens the split.
        what: what it opens, for example the problem set and the conditions.
        digest: digest of the configuration.

    Raises:
        StoreError: the ledger is damaged, or the line cannot be written; the split must then stay closed.
    """
    entry = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "command": command, "what": what, "digest": digest}
    if not isinstance(path, Path):
        # nothing can be appended to an object; the lock of the run sees to it that nobody else writes meanwhile
        before = _content(path)
        with replace_file(path) as temporary:
            temporary.write_bytes(before + _line(entry, before))
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # another process's line would stand between what was read and this one
            line = _line(entry, _content(path) if os.fstat(descriptor).st_size else b"")
            written = os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if written != len(line):
            raise OSError(f"only {written} of {len(line)} bytes were written")


def openings(path: AnyPath, of: str = "") -> int:
    """How often the split was opened; 0 when there is no ledger.

    A line torn by a crash is the trace of an opening too, and counts, whatever it was of.

    Args:
        path: ``ledger.jsonl``.
        of: count only the lines that hold this text, the name of the test problems and the model.

    Raises:
        StoreError: the ledger cannot be read, or is damaged.
    """
    lines = _content(path).split(b"\n")
    return sum(bool(line) and (of.encode() in line or not line.endswith(b"}")) for line in lines)


def _line(entry: dict[str, str], before: bytes) -> bytes:
    """The line that comes after these bytes; after a line torn by a crash it begins anew."""
    start = b"\n" if before and not before.endswith(b"\n") else b""
    text = json.dumps(plain(entry, "ledger"), ensure_ascii=False)
    return start + f'{text[:-1]}, "check": "{_check(before + start, text)}"}}\n'.encode()


def _check(before: bytes, text: str) -> str:
    return hashlib.sha256(before + text.encode()).hexdigest()[:32]


def _content(path: AnyPath) -> bytes:
    """The bytes of the ledger, once every whole line is found to be what was written; none where there is no ledger."""
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return b""
    except OSError as cause:
        raise unreadable(path, "ledger", cause) from cause
    if not content:
        raise StoreError(f"{path} is empty, and it counts how often the test problems were opened; {_FIX}", code="ledger-damaged")
    lines, start, doubtful = content.split(b"\n"), 0, 0
    for number, line in enumerate(lines[:-1], 1):
        if line and not _fits(line, content[:start]):
            doubtful = doubtful or number
        elif doubtful and line:
            doubtful = 0  # torn by a crash: the checksum of the line after it covers it as it stands
        start += len(line) + 1
    if doubtful:
        raise StoreError(
            f"{path} is damaged or was edited in line {doubtful}, and it counts how often the test problems were opened; {_FIX}",
            code="ledger-damaged",
        )
    return content


def _fits(line: bytes, before: bytes) -> bool:
    try:
        entry = parse_json(line)
        if not isinstance(entry, dict) or "check" not in entry:
            return isinstance(entry, dict) and set(entry) == {"when", "command", "what", "digest"}  # of an older version
        check = entry.pop("check")
        return check == _check(before, json.dumps(entry, ensure_ascii=False))
    except ValueError:
        return False
