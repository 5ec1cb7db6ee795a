"""Files of text and tables: whatever cannot be read is one line that names the file."""

import csv
import io
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from trimtab.errors import InputError

if TYPE_CHECKING:
    from trimtab.store import AnyPath


def read_text(file: "AnyPath") -> str:
    """The text of a file, without a byte order mark.

    Raises:
        InputError: missing, or not UTF-8.
    """
    try:
        return _bytes(file).decode("utf-8-sig")
    except OSError as cause:
        raise InputError(f"{file} cannot be read: {cause.strerror or cause}") from cause
    except UnicodeDecodeError as cause:
        raise InputError(f"{file} is no text in UTF-8 (byte {cause.start}); give a file of JSON lines, CSV or Parquet") from cause


def _bytes(file: "AnyPath") -> bytes:
    from trimtab.store import read_bytes

    return read_bytes(file)


def read_json_object(file: "AnyPath") -> dict[str, object]:
    """One JSON object.

    Raises:
        InputError: it is something else.
    """
    value = _parsed(read_text(file), str(file))
    if not isinstance(value, dict):
        raise InputError(f"{file} holds a JSON {type(value).__name__}, not an object")
    return value


def read_lines(file: "AnyPath") -> list[dict[str, object]]:
    """A JSON object a line; empty lines are left out.

    Raises:
        InputError: a line is something else, or there is none.
    """
    rows: list[dict[str, object]] = []
    # splitlines would also split at separators that JSON allows inside a string
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if line.strip():
            row = _parsed(line, f"{file}, line {number}")
            if not isinstance(row, dict):
                raise InputError(f"{file}, line {number}: a JSON {type(row).__name__}, not an object")
            rows.append(row)
    if not rows:
        raise InputError(f"{file} is empty; give a file with results")
    return rows


def read_csv(file: "AnyPath") -> list[dict[str, object]]:
    """The rows of a CSV by the names of its first line; an empty cell is None.

    Raises:
        InputError: no header, a name twice, or a row of another length.
    """
    try:
        lines = list(csv.reader(io.StringIO(read_text(file), newline=""), strict=True))
    except csv.Error as cause:
        raise InputError(f"{file} is no CSV: {cause}") from cause
    lines = [line for line in lines if line]
    if len(lines) < 2:
        raise InputError(f"{file} is empty; a CSV of results has a header and a row a response")
    header = lines[0]
    if len(set(header)) < len(header):
        raise InputError(f"{file} names a column twice: {', '.join(header)}")
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(header):
            raise InputError(f"{file}, row {number}: {len(line)} cells, but the header has {len(header)}")
    return [dict(zip(header, (cell or None for cell in line), strict=True)) for line in lines[1:]]


def read_parquet(file: "AnyPath", under: str | None = None) -> list[dict[str, object]]:
    """The rows of a Parquet file.

    Args:
        file: of any tool; one that trimtab sealed is held against its seal.
        under: the key that it must have been made under.

    Raises:
        InputError: missing, damaged or without rows.
        StoreError: trimtab wrote it, and it is not what was written or belongs to another result.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from trimtab.store.tables import check_sealed_table, is_sealed_table

    try:
        content = _bytes(file)
        if under is not None or is_sealed_table(content):
            check_sealed_table(file, content, under)
        rows: list[dict[str, object]] = pq.read_table(pa.BufferReader(content), page_checksum_verification=True).to_pylist()
    except OSError as cause:
        raise InputError(f"{file} cannot be read: {cause.strerror or cause}") from cause
    except (pa.ArrowException, ValueError, OverflowError, MemoryError) as cause:  # a date can lie beyond those of Python
        first, _, _ = str(cause).partition("\n")
        raise InputError(f"{file} is no Parquet file: {first}") from cause
    if not rows:
        raise InputError(f"{file} is empty; give a file with results")
    return rows


def flat(table: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Dotted keys and the text of their values, which tells 1 from 1.0."""
    texts: dict[str, str] = {}
    for key, value in table.items():
        texts |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": repr(value)}
    return texts


_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape of half a character, which is none without the other half."""


def _parsed(text: str, place: str) -> object:
    from trimtab.store.atomic import unique_keys

    try:
        value = json.loads(text, object_pairs_hook=unique_keys)
        if _HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as cause:
        raise InputError(f"{place}: no JSON ({cause.msg} at column {cause.colno})") from cause
    except RecursionError as cause:
        raise InputError(f"{place}: JSON that cannot be read, nested too deeply") from cause
    except ValueError as cause:  # a key that stands twice, half a character, or a number too long
        raise InputError(f"{place}: JSON that cannot be read ({cause})") from cause
    return value
