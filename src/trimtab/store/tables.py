"""Parquet tables of frozen dataclasses: the annotations of a row's class are its schema.

Columns are converted as columns: ``pa.Table.from_pylist`` would need the same schema and a dictionary a row beside it.
"""

import hashlib
import json
import re
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from trimtab.errors import InputError, StoreError
from trimtab.store.atomic import parse_json, replace_file, unreadable
from trimtab.store.remote import AnyPath, read_bytes
from trimtab.store.seal import check_seal, fix_of, place_of, seal_in, unsealed_file

Row = TypeVar("Row")

_METADATA_KEY = "trimtab"

_SCALARS = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_ACCEPTED = "str, int, float, bool, a StrEnum, tuple[T, ...] of these, or one of them | None"


@dataclass(frozen=True)
class TableOf(Generic[Row]):
    """The columns of a row class: Arrow types, and how a value of Arrow becomes one of the row.

    Built by :func:`table_of`; ``decode`` has one function per column, in the order of ``schema`` and of the class's fields.
    """

    row: type[Row]
    schema: pa.Schema
    decode: tuple[Callable[[Any], Any], ...]

    def to_arrow(self, rows: Sequence[Row]) -> pa.Table:
        """One table row per object; raises InputError when a value does not fit its column."""
        for row in rows:
            if type(row) is not self.row:
                raise InputError(
                    f"a table of {self.row.__name__} was given a {type(row).__name__}; write one kind of row per file"
                )
        columns = [self._column(field, [getattr(row, field.name) for row in rows]) for field in self.schema]
        return pa.Table.from_arrays(columns, schema=self.schema)

    def from_arrow(self, table: pa.Table) -> list[Row]:
        """The objects of a table with this schema; raises InputError or ValueError when the class refuses a value."""
        columns = [map(decode, column.to_pylist()) for decode, column in zip(self.decode, table.columns, strict=True)]
        return [self.row(*values) for values in zip(*columns, strict=True)]

    def _column(self, field: pa.Field, values: list[object]) -> pa.Array:
        try:
            array = pa.array(values, type=field.type)
        except (pa.ArrowException, UnicodeEncodeError, OverflowError) as cause:
            raise InputError(f"{self.row.__name__}.{field.name} cannot be stored as {field.type}: {cause}") from cause
        if _truncated(array, values):
            raise InputError(f"{self.row.__name__}.{field.name} cannot be stored as {field.type}: a value is not a whole number")
        if array.null_count and not field.nullable:
            raise InputError(
                f"{self.row.__name__}.{field.name} is None in {array.null_count} rows, and its type does not allow None"
            )
        return array


@cache
def table_of(row: type[Row]) -> TableOf[Row]:
    """The codec of a frozen dataclass.

    Raises:
        InputError: not a dataclass, or a field of a type that a column cannot hold.

    Example:
        >>> from trimtab.traces import ScoredTrace
        >>> table_of(ScoredTrace).schema.field("score").type
        DataType(string)
    """
    if not is_dataclass(row):
        raise InputError(f"{row.__name__} is not a dataclass; a table stores instances of one dataclass")
    hints = get_type_hints(row)
    columns: list[pa.Field] = []
    decode: list[Callable[[Any], Any]] = []
    for field in fields(row):
        accepted = _column_of(hints[field.name])
        if accepted is None:
            raise InputError(f"{row.__name__}.{field.name} is annotated {hints[field.name]}; a column holds {_ACCEPTED}")
        arrow, nullable, decoder = accepted
        columns.append(pa.field(field.name, arrow, nullable=nullable))
        decode.append(_or_none(decoder) if nullable else decoder)
    return TableOf(row, pa.schema(columns), tuple(decode))


def write_table(path: AnyPath, rows: Sequence[Row], row: type[Row] | None = None, under: str = "") -> None:
    """Write dataclass instances as Parquet, atomically; the same rows give the same bytes under the same pyarrow.

    Args:
        rows: instances of one dataclass.
        row: their class, needed only when ``rows`` may be empty.
        under: the key that they were made under, where the file lies outside its folder.

    Raises:
        InputError: rows of several classes, a value that does not fit, or no row and no class.
        StoreError: the file cannot be written.
    """
    if row is None:
        if not rows:
            raise InputError(f"no rows to write to {path}; pass the class of the rows to write an empty table")
        row = type(rows[0])
    write_arrow(path, table_of(row).to_arrow(rows), under)


def read_table(path: AnyPath, row: type[Row], under: str | None = None) -> list[Row]:
    """Read what :func:`write_table` wrote, in the same order.

    Args:
        under: the key that a file outside the folder of a result must have been made under; None is any.

    Raises:
        StoreError: the file is missing, truncated, not what was written or of another result, holds other columns, or a value
            that the class refuses.
    """
    codec = table_of(row)
    table = read_arrow(path, under)
    if not table.schema.equals(codec.schema):
        raise StoreError(
            f"{path} does not hold rows of {row.__name__}: {_difference(codec.schema, table.schema)}; "
            f"check the path; if it is right, {fix_of(path)}"
        )
    try:
        return codec.from_arrow(table)
    except (InputError, ValueError) as cause:
        raise unreadable(path, row.__name__, cause) from cause


_NO_DIGEST = "0" * 64
_TEXT = rb'"(?:[^"\\]|\\.)*"'
_SEAL = re.compile(rb'\{"under": ' + _TEXT + rb', "file": ' + _TEXT + rb', "sha256": "([0-9a-f]{64})"\}')
_FOOTER = 2**20
"""A footer is far shorter than this many bytes; a seal stands in it."""


def write_arrow(path: AnyPath, table: pa.Table, under: str = "") -> None:
    """Write any Arrow table as Parquet, atomically, sealed, and however it is chunked with the same bytes. Raises StoreError.

    The digest of the seal is that of the whole file with zeros in the digest's place, so no byte of it is left out. Parquet's own
    page checksums are written too; other programs verify those.
    """
    seal = place_of(path, under).with_digest(_NO_DIGEST)
    plain = table.combine_chunks().replace_schema_metadata(None)
    with replace_file(path) as temporary:
        with pq.ParquetWriter(
            temporary, plain.schema, version="2.6", compression="zstd", compression_level=3, write_page_checksum=True
        ) as writer:
            writer.write_table(plain, row_group_size=65_536)
            writer.add_key_value_metadata({_METADATA_KEY: json.dumps(seal._asdict())})
        with temporary.open("r+b") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(start := max(0, temporary.stat().st_size - _FOOTER))
            file.seek(start + list(_SEAL.finditer(file.read()))[-1].start(1))
            file.write(digest.encode())


def read_arrow(path: AnyPath, under: str | None = None) -> pa.Table:
    """Read what :func:`write_arrow` wrote; see :func:`read_table`. Raises StoreError."""
    try:
        content = read_bytes(path)
        check_sealed_table(path, content, under)
        # not pq.read_table, which takes folders too and invents columns from folder names like a=b
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
            return file.read().replace_schema_metadata(None)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as cause:
        raise unreadable(path, "Parquet", cause) from cause


def is_sealed_table(content: bytes) -> bool:
    """Whether the bytes of a Parquet file hold a seal."""
    return any(_SEAL.finditer(content, max(0, len(content) - _FOOTER)))


def check_sealed_table(path: AnyPath, content: bytes, under: str | None = None) -> None:
    """Hold the bytes of a Parquet file against its seal, before any of them is parsed.

    Raises:
        StoreError: it has none, or another content or place.
        ValueError: it is not Parquet, or its end is missing.
    """
    if not content.startswith(b"PAR1") or not content.endswith(b"PAR1"):
        raise ValueError("it does not begin and end as Parquet does")
    seals = list(_SEAL.finditer(content, max(0, len(content) - _FOOTER)))
    if not seals:
        raise unsealed_file(path)
    start, stop = seals[-1].span(1)
    seal = seal_in(path, parse_json(seals[-1].group()))
    zeroed = hashlib.sha256(content[:start])
    zeroed.update(_NO_DIGEST.encode())
    zeroed.update(memoryview(content)[stop:])
    check_seal(path, seal, zeroed.hexdigest(), under)


def _column_of(annotation: Any) -> tuple[pa.DataType, bool, Callable[[Any], Any]] | None:
    """(type, nullable, decoder) of an annotation, or None when no column can hold it."""
    arguments = get_args(annotation)
    if get_origin(annotation) in (types.UnionType, Union):
        inner = [argument for argument in arguments if argument is not type(None)]
        accepted = _column_of(inner[0]) if len(inner) == 1 else None
        return None if accepted is None else (accepted[0], True, accepted[2])
    if get_origin(annotation) is tuple:
        accepted = _column_of(arguments[0]) if len(arguments) == 2 and arguments[1] is Ellipsis else None
        if accepted is None or accepted[1]:
            return None
        item, _, decode = accepted
        return pa.list_(pa.field("item", item, nullable=False)), False, lambda values: tuple(map(decode, values))
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return pa.string(), False, annotation
    return (_SCALARS[annotation], False, _same) if annotation in _SCALARS else None


def _truncated(array: pa.Array, values: list[Any]) -> bool:
    """Whether Arrow cut a float down to an integer, which it does without a word."""
    if pa.types.is_integer(array.type):
        return array.to_pylist() != values
    return (
        pa.types.is_list(array.type) and pa.types.is_integer(array.type.value_type) and array.to_pylist() != [*map(list, values)]
    )


def _same(value: object) -> object:
    return value


def _or_none(decode: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else decode(value)


def _difference(expected: pa.Schema, found: pa.Schema) -> str:
    missing = [str(field) for field in expected if field not in list(found)]
    unknown = [str(field) for field in found if field not in list(expected)]
    if not missing and not unknown:
        return f"its columns come as {', '.join(found.names)}"
    return f"columns missing or of another type: {', '.join(missing) or 'none'}; not expected: {', '.join(unknown) or 'none'}"
