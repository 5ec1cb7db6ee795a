"""Reading rows from the files people have: JSON lines and Parquet."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from trimtab.errors import InputError
from trimtab.store import any_path, digest_of, key_facts, parse_json
from trimtab.store.atomic import one_line
from trimtab.store.seal import damaged, place_of

Row = dict[str, object]


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a ``.jsonl`` or ``.parquet`` file.

    Raises:
        InputError: the file is missing, of another kind, truncated, or a line is no JSON object.
        StoreError: problems in memory that a study keeps, and that are not what they were.
    """
    if not any_path(path).is_file():
        raise InputError(f"no file at {path}; give the path of a .jsonl or .parquet file", code="no-file")
    if path.suffix == ".parquet":
        try:
            yield from pq.read_table(path, page_checksum_verification=True).to_pylist()
        except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:  # a date can lie beyond Python's
            raise InputError(
                f"{path} cannot be read as Parquet ({one_line(error)}); it may be truncated, write it again"
            ) from error
    elif path.suffix in (".jsonl", ".json"):
        yield from _own_rows(path) if place_of(path).under.startswith("rows/") else _json_lines(path)
    else:
        raise InputError(f"{path.name}: unknown kind {path.suffix!r}; accepted: .jsonl, .parquet")


def _own_rows(path: Path) -> Iterator[Row]:
    """Rows that trimtab keeps of problems in memory, whose key is made of what they hold."""
    rows = list(_json_lines(path))
    try:
        digest = digest_of(rows)
    except InputError as cause:  # text that UTF-8 cannot hold
        raise damaged(path) from cause
    if key_facts(path.parent).get("rows") != digest:
        raise damaged(path)
    yield from rows


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = parse_json(line.decode())
            except ValueError as error:
                raise InputError(
                    f"{path}, line {number} is not JSON in UTF-8 ({error}); fix or remove the line", code="not-json"
                ) from error
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number} is a {type(row).__name__}; every line must be a JSON object")
            yield row


def text_field(row: Row, names: tuple[str, ...], where: str) -> str:
    """The first of these fields that the row has, as text. Raises InputError for none, for bytes or lists, and for no Unicode."""
    for name in names:
        if row.get(name) is not None:
            if isinstance(row[name], bytes | list | tuple | dict):
                raise InputError(
                    f"{where}: {name} is a {type(row[name]).__name__} and no text; name the column that holds text in task.fields"
                )
            text = str(row[name])
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise InputError(f"{where}: {name} is not Unicode text ({error}); fix or remove the row") from error
            return text
    raise InputError(f"{where} has none of the fields {', '.join(names)}; it has {', '.join(row)}", code="no-such-field")
