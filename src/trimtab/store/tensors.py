"""Safetensors files of numpy arrays: atomic, with the same bytes for the same content, and read by slices where they are big."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from trimtab.errors import InputError, StoreError
from trimtab.store.atomic import replace_file, unreadable
from trimtab.store.remote import AnyPath
from trimtab.store.remote_tensors import RemoteTensors

# safetensors keeps metadata in a hash map and writes its keys in an order that changes from process to process; one key cannot
_METADATA_KEY = "trimtab"
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_DTYPES = (*_INTEGERS, "float16", "float32", "float64", "bool")


class TensorSlice(Protocol):
    """A tensor on disk; indexing reads only the rows asked for."""

    def __getitem__(self, key: Any, /) -> NDArray[Any]: ...
    def get_shape(self) -> list[int]: ...


def save_tensors(path: AnyPath, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write arrays and text atomically; the same content gives the same bytes in every process.

    Args:
        tensors: arrays of any shape and memory order, of a numeric or bool dtype; byte order does not matter.
        metadata: text by key, stored as one JSON object under the header's key ``trimtab``.

    Raises:
        InputError: a dtype that safetensors cannot hold.
        StoreError: the file cannot be written.
    """
    for name, array in tensors.items():
        if array.dtype.name not in _DTYPES:
            raise InputError(f"tensor {name!r} for {path} has dtype {array.dtype}; accepted: {', '.join(_DTYPES)}")
    # safetensors writes the memory behind an array as it lies, so a transposed or strided view must be laid out first
    laid_out = {name: np.asarray(array, order="C") for name, array in sorted(tensors.items())}
    header = {_METADATA_KEY: json.dumps(dict(metadata), sort_keys=True, ensure_ascii=False)}
    # save_file would go through a temporary file of its own, which ignores the umask and which a kill leaves where nobody sweeps
    with replace_file(path) as temporary:
        temporary.write_bytes(save(laid_out, header))


def load_tensors(path: AnyPath) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """All arrays and the metadata of a file.

    A file that trimtab did not write gives the metadata of its header as it stands.

    Raises:
        StoreError: the file is missing, truncated or not safetensors, or holds a dtype that numpy lacks.
    """
    with _opened(path) as file:
        try:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
            return tensors, json.loads(header[_METADATA_KEY]) if _METADATA_KEY in header else header
        except (TypeError, ValueError) as cause:
            # a dtype that numpy lacks (bfloat16) is a TypeError, foreign text under our key a ValueError
            raise unreadable(path, "safetensors", cause) from cause


@contextmanager
def open_tensor(path: AnyPath, name: str) -> Iterator[TensorSlice]:
    """Memory-map one tensor; ``tensor[a:b]`` reads only those rows, also of a remote file.

    Raises:
        StoreError: the file is missing or truncated, has no tensor of that name, or a slice lies outside it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "part.safetensors"
        >>> save_tensors(path, {"sum": np.arange(6.0).reshape(3, 2)}, {})
        >>> with open_tensor(path, "sum") as tensor:
        ...     tensor[1:2].tolist()
        [[2.0, 3.0]]
    """
    with open_tensors(path) as tensors:
        if name not in tensors:
            raise StoreError(f"{path} has no tensor {name!r}; it has {', '.join(sorted(tensors)) or 'none'}")
        yield tensors[name]


@contextmanager
def open_tensors(path: AnyPath) -> Iterator[dict[str, TensorSlice]]:
    """Memory-map all tensors of a file, by name; see :func:`open_tensor`."""
    with _opened(path) as file:
        yield {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118


@contextmanager
def _opened(path: AnyPath) -> Iterator[Any]:
    try:
        handle = safe_open(path, framework="np") if isinstance(path, Path) else RemoteTensors(path)
    except (SafetensorError, OSError) as cause:
        raise unreadable(path, "safetensors", cause) from cause
    with handle as file:
        try:
            yield file
        except SafetensorError as cause:
            raise StoreError(f"cannot read from {path}: {cause}; ask for rows within the tensor's shape") from cause
