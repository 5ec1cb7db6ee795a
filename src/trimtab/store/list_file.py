"""A foreign file with a list of neurons: read once, its addresses checked against a model with their place in the file."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.neurons import ModelIdentity
from trimtab.store.remote import check_regular

MOST_BYTES = 64 * 2**20
"""No list of neurons needs more; a larger file is refused before it is read."""


@dataclass(frozen=True, slots=True)
class Address:
    """A neuron of a foreign list and where the list names it."""

    where: str
    layer: int
    index: int


@dataclass(frozen=True, slots=True)
class ListFile:
    """A foreign file, read once: what is parsed is what its digest is of."""

    path: Path
    content: bytes

    @classmethod
    def read(cls, path: Path) -> "ListFile":
        """The whole file. Raises InputError when it cannot be read or is larger than :data:`MOST_BYTES`."""
        try:
            check_regular(path)
            size = path.stat().st_size
            if size > MOST_BYTES:
                raise InputError(f"{path} has {size:,} bytes, and a list of neurons at most {MOST_BYTES:,}; give the list alone")
            return cls(path, path.read_bytes())
        except OSError as cause:
            raise InputError(f"cannot read {path}: {cause}; give the path of a file with a list of neurons") from cause

    def text(self) -> str:
        """The content as UTF-8, with or without a byte order mark. Raises InputError."""
        try:
            return self.content.decode("utf-8-sig")
        except UnicodeDecodeError as cause:
            raise InputError(f"{self.path} is not UTF-8 text ({cause}); a file of torch.save needs the format 'lape'") from cause

    def refuse(self, where: str, problem: str) -> InputError:
        """The error for one place in the file."""
        return InputError(f"{self.path}, {where}: {problem}")

    def refuse_experts(self, model: ModelIdentity) -> None:
        """Raise InputError for a mixture of experts: without one, an index would be taken for another expert's."""
        if model.n_experts > 1:
            raise InputError(
                f"{self.path}: this format knows no experts, and {model.name} has {model.n_experts} a layer; write the list as "
                'JSON with "expert" in each row'
            )

    def columns(self, addresses: Sequence[Address], model: ModelIdentity) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``layer`` and ``index``, int64 ``[neuron]``, in the order of the file.

        Raises:
            InputError: an empty list, a neuron outside the model, or one that is listed twice, each with its place in the file.
        """
        if not addresses:
            raise InputError(f"{self.path} lists no neuron")
        first: dict[tuple[int, int], str] = {}
        for address in addresses:
            where, layer, index = address.where, address.layer, address.index
            if not (0 <= layer < model.n_layers and 0 <= index < model.d_ff):
                raise self.refuse(
                    where,
                    f"(layer {layer}, index {index}) is outside {model.name}, which has {model.n_layers} layers of {model.d_ff} "
                    "neurons, both counted from 0; was the list made for another model?",
                )
            if (layer, index) in first:
                raise self.refuse(
                    where,
                    f"(layer {layer}, index {index}) was listed before, at {first[layer, index]}; a neuron may be listed once",
                )
            first[layer, index] = where
        return np.array([a.layer for a in addresses], np.int64), np.array([a.index for a in addresses], np.int64)

    def numbers(self, addresses: Sequence[Address], values: Sequence[float], name: str) -> NDArray[np.float32]:
        """Values as float32 ``[neuron]``; raises InputError with the row of one that float32 holds as infinity or NaN."""
        with np.errstate(over="ignore"):
            column = np.array(values, np.float64).astype(np.float32)
        wrong = np.flatnonzero(~np.isfinite(column))
        if len(wrong):
            raise self.refuse(addresses[wrong[0]].where, f"{name} is {values[wrong[0]]}; it must be finite in float32")
        return column

    def facts(self, form: str, definition: str, **more: object) -> dict[str, object]:
        """The provenance of an imported set: the file, its hash, and its author's definition of a neuron."""
        digest = hashlib.sha256(self.content).hexdigest()
        return {"imported": {"file": self.path.name, "format": form, "sha256": digest, "listed_neuron": definition, **more}}
