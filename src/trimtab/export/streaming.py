"""Copy a safetensors file in pieces of bounded size, changing some of its tensors on the way."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from trimtab.export.checkpoint import DTYPES, StoredTensor
from trimtab.model.identity import sample_bytes, sample_stride

PIECE = 32 * 2**20
"""Bytes that are in memory at once, or one row of a tensor where that is more."""

EditRows = Callable[[Tensor, int], None]
"""Changes some rows of a tensor in place, given the number of the first: float ``[rows, ...]``."""


def copy_file(
    source: Path,
    target: Path,
    tensors: Mapping[str, StoredTensor],
    edits: Mapping[str, EditRows],
    samples: dict[str, bytes],
) -> None:
    """Write the file again with the same layout; every other tensor keeps its bytes.

    Args:
        tensors: all tensors of the file.
        edits: by the names of the tensors to change.
        samples: takes the sample of every float tensor as it was read, for the fingerprint.

    Raises:
        OSError: reading or writing failed, a full disk among the causes.
    """
    with source.open("rb") as reader, target.open("xb", buffering=0) as writer:
        buffer = bytearray(PIECE)
        first = min(tensor.start for tensor in tensors.values())
        _write_all(writer.fileno(), memoryview(reader.read(first)))
        for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].n_bytes)):
            sampler = Sampler(tensor)
            for piece, row in _pieces(reader.fileno(), tensor, buffer):
                if tensor.dtype in DTYPES:
                    values = torch.frombuffer(piece, dtype=DTYPES[tensor.dtype])
                    sampler.see(values)
                    if name in edits:
                        edits[name](values.view(-1, *tensor.shape[1:]), row)
                _write_all(writer.fileno(), piece)
            if tensor.dtype in DTYPES:
                samples[name] = sampler.sample()


class Sampler:
    """Every n-th element of a tensor that passes in pieces; see :func:`trimtab.model.identity.identify`."""

    def __init__(self, tensor: StoredTensor) -> None:
        numel = 1
        for size in tensor.shape:
            numel *= size
        self._stride = sample_stride(numel)
        self._seen = 0
        self._taken: list[Tensor] = []

    def see(self, values: Tensor) -> None:
        """The next elements, flat."""
        start = -self._seen % self._stride
        self._taken.append(values[start :: self._stride].clone())
        self._seen += len(values)

    def sample(self) -> bytes:
        """The sample of all that was seen."""
        return sample_bytes(torch.cat(self._taken)) if self._taken else b""


def _pieces(descriptor: int, tensor: StoredTensor, buffer: bytearray) -> Iterator[tuple[memoryview, int]]:
    """Whole rows, each piece with the number of its first row, in one buffer that the next piece overwrites."""
    rows = tensor.shape[0] if tensor.shape else 1
    row_bytes = tensor.n_bytes // rows if rows else 0
    step = max(1, PIECE // row_bytes) if row_bytes else 1
    if step * row_bytes > len(buffer):
        buffer = bytearray(step * row_bytes)  # one row alone is larger
    for row in range(0, rows if row_bytes else 0, step):
        piece = memoryview(buffer)[: min(step, rows - row) * row_bytes]
        _read_all(descriptor, piece, tensor.start + row * row_bytes)
        yield piece, row


def _read_all(descriptor: int, buffer: memoryview, offset: int) -> None:
    while buffer:
        count = os.preadv(descriptor, [buffer], offset)
        if not count:
            raise OSError("the checkpoint ends in the middle of a tensor")
        buffer, offset = buffer[count:], offset + count


def _write_all(descriptor: int, buffer: memoryview) -> None:
    while buffer:
        buffer = buffer[os.write(descriptor, buffer) :]
    # the disk starts writing now, so that syncing at the end does not wait for all of it
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
