"""Safetensors files of numpy arrays: atomic, with the same bytes for the same content, and read by slices where they are big.

The safetensors package reads files of this machine only, memory-mapped. On a remote file system only the bytes asked for travel:
the format is a length (8 bytes, little-endian), a JSON header of that length with dtype, shape and offsets by name, and the
bytes of the tensors in row order (https://github.com/huggingface/safetensors#format).

The header holds a CRC-32 of every block of a tensor that is read alone, such as one layer of one trace, and the digest of the
file's seal covers these, with names, dtypes, shapes and metadata (:mod:`trimtab.store.seal`). So what a slice reads is checked,
and no more than the slice is read for it.
"""

import base64
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from upath import UPath

from trimtab.errors import InputError, StoreError
from trimtab.store.atomic import parse_json, replace_file, sealed, unreadable, unsealed
from trimtab.store.remote import AnyPath, as_os_errors, check_regular
from trimtab.store.seal import damaged, in_result, place_of, unsealed_file

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
    laid_out = {name: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for name, array in sorted(tensors.items())}
    header = {_METADATA_KEY: json.dumps(_sealed_header(laid_out, metadata, path), sort_keys=True, ensure_ascii=False)}
    # save_file would go through a temporary file of its own, which ignores the umask and which a kill leaves where nobody sweeps
    with replace_file(path) as temporary:
        temporary.write_bytes(save(laid_out, header))


def load_tensors(path: AnyPath) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """All arrays and the metadata of a file.

    A file that trimtab did not write gives the metadata of its header as it stands.

    Raises:
        StoreError: the file is missing, truncated or not safetensors, or holds a dtype that numpy lacks.
    """
    with _opened(path) as (slices, metadata):
        try:
            return {name: tensor.whole() for name, tensor in slices.items()}, metadata
        except TypeError as cause:  # a dtype that numpy lacks, such as bfloat16
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
    with _opened(path) as (slices, _):
        yield dict(slices)


@contextmanager
def _opened(path: AnyPath) -> Iterator[tuple[dict[str, "CheckedSlice"], dict[str, str]]]:
    """The tensors of a file, and its metadata."""
    try:
        check_regular(path)
        handle = safe_open(path, framework="np") if isinstance(path, Path) else RemoteTensors(path)
    except (SafetensorError, OSError) as cause:
        raise unreadable(path, "safetensors", cause) from cause
    with handle as file:
        try:
            slices, metadata = _checked(path, file)
        except (SafetensorError, TypeError, ValueError, KeyError) as cause:
            raise unreadable(path, "safetensors", cause) from cause
        try:
            yield slices, metadata
        except SafetensorError as cause:
            raise StoreError(f"cannot read from {path}: {cause}; ask for rows within the tensor's shape") from cause


_BLOCK_BYTES = 512
"""A block of fewer bytes is no block of its own: its sum would be read for too little."""


def _depth(shape: Sequence[int], itemsize: int) -> int:
    """By how many leading axes a tensor falls into blocks: by traces and layers, by rows, or not at all."""
    depth = min(2, max(0, len(shape) - 1))
    while depth and math.prod(shape[depth:]) * itemsize < _BLOCK_BYTES:
        depth -= 1
    return depth


def _sums(array: NDArray[Any], depth: int) -> NDArray[np.uint32]:
    """CRC-32 of each block, in the shape of the leading axes."""
    shape = array.shape[:depth]
    blocks = (
        np.ascontiguousarray(array).reshape(math.prod(shape), -1) if array.size else np.zeros((math.prod(shape), 0), np.uint8)
    )
    return np.fromiter((zlib.crc32(block.view(np.uint8).data) for block in blocks), np.uint32, len(blocks)).reshape(shape)


def _sealed_header(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str], path: AnyPath) -> dict[str, object]:
    """What stands in the header beside what the format asks for."""
    sums = {name: _sums(array, _depth(array.shape, array.itemsize)) for name, array in tensors.items()}
    text = {name: base64.b64encode(found.astype("<u4").tobytes()).decode() for name, found in sums.items()}
    kinds = {name: [_CODES[array.dtype.name], list(array.shape)] for name, array in tensors.items()}
    return sealed({"metadata": dict(metadata), "crc32": text}, place_of(path), path.name, kinds)


def _checked(path: AnyPath, file: Any) -> tuple[dict[str, "CheckedSlice"], dict[str, str]]:
    """The tensors of a file with the sums of their blocks, and its metadata, once its header is found to be what was written."""
    header, names = file.metadata() or {}, list(file.keys())
    if _METADATA_KEY not in header:
        if in_result(path):
            raise unsealed_file(path)
        return {name: CheckedSlice(path, file, name) for name in names}, header
    slices = {name: file.get_slice(name) for name in names}
    kinds = {name: [tensor.get_dtype(), tensor.get_shape()] for name, tensor in slices.items()}
    content: Any = unsealed(parse_json(header[_METADATA_KEY]), path, "", kinds)
    found = {}
    for name, tensor in slices.items():
        shape = tensor.get_shape()
        depth = _depth(shape, np.dtype(_BY_CODE[tensor.get_dtype()]).itemsize)
        sums = np.frombuffer(base64.b64decode(content["crc32"][name]), "<u4").reshape(shape[:depth])
        found[name] = CheckedSlice(path, file, name, depth, sums)
    return found, content["metadata"]


class CheckedSlice:
    """A tensor on disk. ``tensor[a:b, c:d]`` reads these rows and layers and holds them against their sums.

    Args:
        path: of the file, for messages.
        file: what reads it.
        name: of the tensor.
        depth: by how many axes it falls into blocks.
        sums: CRC-32 of the blocks; None for a file that trimtab did not write, which is read as it is.
    """

    def __init__(self, path: AnyPath, file: Any, name: str, depth: int = 0, sums: NDArray[np.uint32] | None = None) -> None:
        self._path, self._file, self._name, self._depth, self._sums = path, file, name, depth, sums

    def get_shape(self) -> list[int]:
        return list(self._file.get_slice(self._name).get_shape())

    def whole(self) -> NDArray[Any]:
        """All of it. Raises TypeError for a dtype that numpy lacks."""
        return self._checked(self._file.get_tensor(self._name), ())

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        if self._sums is None:
            return self._file.get_slice(self._name)[key]
        keys, shape = key if isinstance(key, tuple) else (key,), self.get_shape()
        first = keys[0]
        if isinstance(first, slice) and shape and max(first.start or 0, first.stop or 0) > shape[0]:
            raise SafetensorError(f"rows {first.start}:{first.stop} of a tensor with {shape[0]}")
        # whole blocks are read along the axes that have them, and the rest of the key is taken from what was read
        read = []
        for axis, each in enumerate(keys[: self._depth]):
            if not isinstance(each, slice) or each.step not in (None, 1):
                break
            start, stop, _ = each.indices(shape[axis])
            read.append(slice(start, max(start, stop)))
        if all(each == slice(0, size) for each, size in zip(read, shape, strict=False)):
            return self.whole()[key]
        found = self._file.get_slice(self._name)[tuple(read)]
        return self._checked(found, tuple(read))[(*(slice(None) for _ in read), *keys[len(read) :])]

    def _checked(self, found: NDArray[Any], read: tuple[slice, ...]) -> NDArray[Any]:
        if self._sums is not None and not np.array_equal(_sums(found, self._depth), self._sums[read]):
            raise damaged(self._path)
        return found


_BY_CODE: dict[str, DTypeLike] = {
    **{f"{kind}{8 * size}": f"<{code}{size}" for kind, code in (("I", "i"), ("U", "u")) for size in (1, 2, 4, 8)},
    **{f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)},
    "BOOL": np.bool_,
}
_CODES = {np.dtype(kind).name: code for code, kind in _BY_CODE.items()}
_FIRST_READ = 2**16
"""Bytes of the first request, which holds the whole header of nearly every file."""


class RemoteTensors:
    """What :func:`safetensors.safe_open` gives, of a remote file.

    Raises:
        SafetensorError: truncated or something else.
        OSError: it cannot be read.
    """

    def __init__(self, path: UPath) -> None:
        self._path = path
        start = self._read(0, _FIRST_READ, exact=False)
        self._base = 8 + int.from_bytes(start[:8], "little")
        if len(start) < 8 or self._base > 10**8:  # the limit of the format
            raise SafetensorError(f"{path} does not begin with the length of a header")
        header = start[8 : self._base] if len(start) >= self._base else self._read(8, self._base)
        try:
            tensors = parse_json(header)
        except ValueError as cause:
            raise SafetensorError(f"the header of {path} is no JSON: {cause}") from cause
        if not isinstance(tensors, dict):
            raise SafetensorError(f"the header of {path} is no JSON object")
        self._tensors: dict[str, dict[str, Any]] = tensors
        self._metadata: dict[str, str] = self._tensors.pop("__metadata__", {})

    def keys(self) -> list[str]:
        """Names of the tensors."""
        return list(self._tensors)

    def metadata(self) -> dict[str, str]:
        """Text of the header."""
        return self._metadata

    def get_tensor(self, name: str) -> NDArray[Any]:
        """A whole tensor. Raises TypeError for a dtype that numpy lacks."""
        return self.get_slice(name)[...]

    def get_slice(self, name: str) -> "RemoteSlice":
        """A tensor of which nothing is read yet."""
        facts = self._tensors[name]
        if facts["dtype"] not in _BY_CODE:
            raise TypeError(f"numpy has no dtype {facts['dtype']}")
        return RemoteSlice(self, tuple(facts["shape"]), np.dtype(_BY_CODE[facts["dtype"]]), self._base + facts["data_offsets"][0])

    def _read(self, start: int, stop: int, exact: bool = True) -> bytes:
        with as_os_errors(self._path):
            data = cast(bytes, self._path.fs.cat_file(self._path.path, start=start, end=stop))
        if exact and len(data) != stop - start:
            raise SafetensorError(f"bytes {start} to {stop} of {self._path} are missing")
        return data

    def _read_many(self, starts: list[int], length: int) -> bytes:
        """Ranges of one length, one after the other."""
        stops = [start + length for start in starts]
        with as_os_errors(self._path):
            found = self._path.fs.cat_ranges([self._path.path] * len(starts), starts, stops, on_error="return")
            for piece in found:
                if isinstance(piece, BaseException):
                    raise piece
        if any(len(piece) != length for piece in found):
            raise SafetensorError(f"bytes {starts[0]} to {stops[-1]} of {self._path} are missing")
        return b"".join(found)

    def __enter__(self) -> "RemoteTensors":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is kept open."""


class RemoteSlice:
    """A tensor of a remote file. ``tensor[a:b]`` reads only those rows, ``tensor[a:b, c:d]`` a piece of each.

    Any other index is taken of what was read.
    """

    def __init__(self, file: RemoteTensors, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int) -> None:
        self._file, self._shape, self._dtype, self._offset = file, shape, dtype, offset

    def get_shape(self) -> list[int]:
        return list(self._shape)

    def get_dtype(self) -> str:
        """As the format calls it, such as ``F32``."""
        return _CODES[self._dtype.name]

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if not isinstance(first, slice) or first.step not in (None, 1):
            return self._rows(0, self._shape[0] if self._shape else 1).reshape(self._shape)[key]
        if max(first.start or 0, first.stop or 0) > self._shape[0]:
            raise SafetensorError(f"rows {first.start}:{first.stop} of a tensor with {self._shape[0]}")
        start, stop, _ = first.indices(self._shape[0])
        stop = max(start, stop)
        if rest and isinstance(rest[0], slice) and rest[0].step in (None, 1):
            low, high, _ = rest[0].indices(self._shape[1])
            return self._pieces(start, stop, low, max(low, high))[(slice(None), slice(None), *rest[1:])]
        return self._rows(start, stop)[(slice(None), *rest)]

    def _pieces(self, start: int, stop: int, low: int, high: int) -> NDArray[Any]:
        """``[start:stop, low:high]``, a range of bytes for each row, all asked for at once."""
        if (low, high) == (0, self._shape[1]) or high == low or stop == start:
            return self._rows(start, stop)[:, low:high]
        size = math.prod(self._shape[2:]) * self._dtype.itemsize
        begins = [self._offset + (row * self._shape[1] + low) * size for row in range(start, stop)]
        data = self._file._read_many(begins, (high - low) * size)
        return np.frombuffer(bytearray(data), self._dtype).reshape(stop - start, high - low, *self._shape[2:])

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        size = math.prod(self._shape[1:]) * self._dtype.itemsize
        wanted = (stop - start) * size
        begin = self._offset + start * size
        data = self._file._read(begin, begin + wanted) if wanted else b""
        # a bytearray, since what safetensors reads can be written to
        return np.frombuffer(bytearray(data), self._dtype).reshape(stop - start, *self._shape[1:])
