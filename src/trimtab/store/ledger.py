"""The ledger: each opening of the test split, appended and never changed. Wall-clock times live only here."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from trimtab.store.atomic import plain, replace_file, unreadable, writing
from trimtab.store.remote import AnyPath, read_bytes


def record_opening(path: AnyPath, command: str, what: str, digest: str) -> None:
    """Append one line (``when`` in ISO UTC, command, what, digest) and sync it before returning.

    Call it before the split is read, so that no look at it goes unrecorded.

    Args:
        path: ``ledger.jsonl``, made if missing.
        command: the command that opens the split.
        what: what it opens, for example the problem set and the conditions.
        digest: digest of the configuration.

    Raises:
        StoreError: the line cannot be written; the split must then stay closed.
    """
    entry = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "command": command, "what": what, "digest": digest}
    line = json.dumps(plain(entry, "ledger"), ensure_ascii=False).encode() + b"\n"
    if not isinstance(path, Path):
        # nothing can be appended to an object; the lock of the run sees to it that nobody else writes meanwhile
        before = b"" if not openings(path) else read_bytes(path)
        with replace_file(path) as temporary:
            temporary.write_bytes(before + line)
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            # a line torn by a crash stays a line of its own
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            written = os.write(descriptor, b"\n" * torn + line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if written != len(line) + torn:
            raise OSError(f"only {written} of {len(line) + torn} bytes were written")


def openings(path: AnyPath, of: str = "") -> int:
    """How often the split was opened; 0 when there is no ledger.

    Lines are counted, not parsed: a line torn by a crash is the trace of an opening too.

    Args:
        path: ``ledger.jsonl``.
        of: count only the lines that hold this text, the name of the test problems and the model.

    Raises:
        StoreError: the ledger cannot be read.
    """
    try:
        return sum(bool(line.strip()) and of.encode() in line for line in read_bytes(path).splitlines())
    except FileNotFoundError:
        return 0
    except OSError as cause:
        raise unreadable(path, "ledger", cause) from cause
