"""Models of the JSON files of a run, and how they are read."""

import json
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from trimtab.errors import InputError, StoreError
from trimtab.store.atomic import read_json, unreadable
from trimtab.store.remote import AnyPath


class Record(BaseModel):
    """Base of every JSON file: frozen, no unknown key, no conversion of one type into another, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Kind = TypeVar("Kind", bound=BaseModel)


def read_record(path: AnyPath, kind: type[Kind], under: str | None = None) -> Kind:
    """Read and check a JSON file.

    Args:
        path: the file.
        kind: what it holds.
        under: as for :func:`trimtab.store.atomic.read_json`.

    Raises:
        StoreError: the file is missing, truncated, or has a key that is unknown, missing or of the wrong type; each is named.
    """
    data = read_json(path, under)
    try:
        # as JSON, since strict validation takes a mapping for a dataclass from nothing else
        return kind.model_validate_json(json.dumps(data))
    except InputError as cause:
        raise unreadable(path, kind.__name__, cause) from cause
    except ValidationError as cause:
        problems = "; ".join(_problem(error["type"], error["loc"], error["msg"]) for error in cause.errors())
        raise StoreError(
            f"{path} does not fit this version of trimtab: {problems}; accepted keys: {', '.join(kind.model_fields)}. "
            "Was it edited, or written by another version? Use that version, or write the file again",
            code="other-version",
        ) from cause


def _problem(kind: str, location: tuple[int | str, ...], message: str) -> str:
    where = ".".join(map(str, location)) or "the file"
    return f"unknown key {where!r}" if kind == "extra_forbidden" else f"{where}: {message}"
