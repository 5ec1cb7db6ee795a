"""Models of the JSON files of a run, and how they are read."""

from dataclasses import fields
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trimtab.errors import StoreError
from trimtab.neurons import ModelIdentity
from trimtab.store.atomic import read_json
from trimtab.store.remote import AnyPath


class Record(BaseModel):
    """Base of every JSON file: frozen, no unknown key, no conversion of one type into another, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Kind = TypeVar("Kind", bound=BaseModel)


class ModelRecord(Record):
    """:class:`trimtab.neurons.ModelIdentity` on disk."""

    name: str
    revision: str | None
    architecture: str
    fingerprint: str
    n_layers: int
    d_model: int
    d_ff: int
    vocab_size: int
    n_experts: int = Field(default=1, ge=1)

    @classmethod
    def of(cls, model: ModelIdentity) -> "ModelRecord":
        """The record of an identity."""
        return cls(**{field.name: getattr(model, field.name) for field in fields(ModelIdentity)})

    def identity(self) -> ModelIdentity:
        """The identity of a record."""
        return ModelIdentity(**self.model_dump())


def read_record(path: AnyPath, kind: type[Kind]) -> Kind:
    """Read and check a JSON file.

    Raises:
        StoreError: the file is missing, truncated, or has a key that is unknown, missing or of the wrong type; each is named.
    """
    data = read_json(path)
    try:
        return kind.model_validate(data)
    except ValidationError as cause:
        problems = "; ".join(_problem(error["type"], error["loc"], error["msg"]) for error in cause.errors())
        raise StoreError(
            f"{path} does not fit this version of trimtab: {problems}; accepted keys: {', '.join(kind.model_fields)}. "
            "Was it edited, or written by another version? Use that version, or write the file again"
        ) from cause


def _problem(kind: str, location: tuple[int | str, ...], message: str) -> str:
    where = ".".join(map(str, location)) or "the file"
    return f"unknown key {where!r}" if kind == "extra_forbidden" else f"{where}: {message}"
