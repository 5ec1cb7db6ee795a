"""The base model's checkpoint on disk, read tensor by tensor and copied in pieces, so that no export opens the whole model.

Headers of safetensors files are read here, since ``safe_open`` does not tell where a tensor's bytes begin, and a copy streams
them.
"""

import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from trimtab.errors import ModelError
from trimtab.model.adapters import FAMILIES, find_ffn
from trimtab.model.identity import sample_bytes, sample_stride, weight_fingerprint
from trimtab.model.opening import GGUF, open_model
from trimtab.neurons import ModelIdentity
from trimtab.store.atomic import parse_json
from trimtab.store.hub import download
from trimtab.store.remote import at_home
from trimtab.testbed.models import resolve

DTYPES: Mapping[str, torch.dtype] = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Names of safetensors for what a down projection can be stored as."""
INDEX = "model.safetensors.index.json"
_WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py", "LICENSE*")
_OTHER_NAMES = {"lm_head.weight": "embed_out.weight"}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies: bytes ``[start, start + n_bytes)`` of ``file``."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    n_bytes: int

    def read(self) -> Tensor:
        """The tensor over memory-mapped bytes: what is not looked at is not read. Changes stay private."""
        if not self.n_bytes:
            return torch.empty(self.shape, dtype=DTYPES[self.dtype])
        mapped = np.memmap(self.file, np.uint8, mode="c", offset=self.start, shape=(self.n_bytes,))
        return torch.from_numpy(mapped).view(DTYPES[self.dtype]).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class DownProjection:
    """The down projection of one layer.

    Args:
        module: its path in the transformers model.
        weight, bias: names of its tensors in the checkpoint; ``bias`` is None where the architecture has none.
        transposed: stored as ``[d_ff, d_model]``, as GPT-2's Conv1D is, in place of ``[d_model, d_ff]``.
    """

    module: str
    weight: str
    bias: str | None
    transposed: bool


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in safetensors files, and the modules that transformers builds from it.

    Args:
        parameters: name in the model to name in the checkpoint, each tied parameter once.
        tensors: by their names in the checkpoint.
        suffix: what the paths of all down projections, and of no other module, end with.
    """

    name: str
    revision: str | None
    folder: Path
    config: PretrainedConfig
    tensors: Mapping[str, StoredTensor]
    parameters: Mapping[str, str]
    down: tuple[DownProjection, ...]
    suffix: str
    d_model: int
    d_ff: int

    @property
    def files(self) -> list[Path]:
        """The safetensors files, in order."""
        return sorted({tensor.file for tensor in self.tensors.values()})

    @property
    def dtype(self) -> str:
        """The stored dtype of the down projections, by torch's name."""
        return str(DTYPES[self.tensors[self.down[0].weight].dtype]).removeprefix("torch.")

    def columns(self, layer: int, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """``W[:, index]`` of a layer's down projection, float32 ``[d_model, neuron]``."""
        down = self.down[layer]
        weight, chosen = self.tensors[down.weight].read(), torch.from_numpy(index)
        columns = weight[chosen].T if down.transposed else weight[:, chosen]
        return columns.float().contiguous().numpy()

    @cached_property
    def identity(self) -> ModelIdentity:
        """As :func:`trimtab.open_model` would identify it, the fingerprint read from the files."""
        return self.identity_with(
            {
                stored: sample_bytes(flat[:: sample_stride(len(flat))])
                for stored in self.parameters.values()
                for flat in [self.tensors[stored].read().reshape(-1)]
            }
        )

    def identity_with(self, samples: Mapping[str, bytes]) -> ModelIdentity:
        """The identity from samples taken elsewhere, by the tensors' names in the checkpoint."""
        fingerprint = weight_fingerprint(
            (name, self.tensors[stored].shape, samples[stored]) for name, stored in self.parameters.items()
        )
        return self.identity_of_sizes(fingerprint)

    def identity_of_sizes(self, fingerprint: str) -> ModelIdentity:
        """The identity with a fingerprint that is known or not yet looked at."""
        return ModelIdentity(
            name=self.name,
            revision=self.revision,
            architecture=self.config.model_type,
            fingerprint=fingerprint,
            n_layers=len(self.down),
            d_model=self.d_model,
            d_ff=self.d_ff,
            vocab_size=self.config.get_text_config().vocab_size,
        )


def open_checkpoint(source: str, revision: str | None = None, trust_remote_code: bool = False) -> Checkpoint:
    """Find every tensor of a hub id, a folder or ``testbed:NAME`` without reading the weights.

    Raises:
        ModelError: no safetensors files, a quantised checkpoint, a mixture of experts, an architecture that is not in
            :data:`trimtab.model.adapters.FAMILIES`, a weight that is missing, or down projections that are tied.
        StoreError: the hub has no such model, or there is no network.
    """
    folder = _folder(source, revision)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    _refuse(config, source)
    tensors = _stored(folder, source)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    model.tie_weights()
    layout = find_ffn(model)
    parameters = {name: _stored_name(name, model, tensors, source) for name, _ in model.named_parameters(remove_duplicate=True)}
    names = {id(module): name for name, module in model.named_modules()}
    down = tuple(_down(names[id(module)], module, parameters, tensors, source) for module in layout.down)
    if len({one.weight for one in down}) < len(down):
        raise ModelError(f"layers of {source} share one down projection, so one cannot be changed alone; use another model")
    return Checkpoint(
        source, revision, folder, config, tensors, parameters, down, _suffix(model, down), layout.d_model, layout.d_ff
    )


@contextmanager
def checkpoint_of(source: str, revision: str | None = None, trust_remote_code: bool = False) -> Iterator[Checkpoint]:
    """:func:`open_checkpoint` for as long as it is read; a GGUF file is dequantised into a temporary folder first.

    Raises:
        ModelError, StoreError: as :func:`open_checkpoint`; a GGUF file as :func:`trimtab.model.open_model`.
    """
    if not source.endswith(GGUF):
        yield open_checkpoint(source, revision, trust_remote_code)
        return
    model = open_model(source, dtype="float32", device="cpu")
    with TemporaryDirectory() as folder:
        model.hf_model.save_pretrained(folder)
        yield replace(open_checkpoint(folder), name=source, revision=model.identity.revision)


def _folder(source: str, revision: str | None) -> Path:
    folder = at_home(resolve(source))
    if folder.is_dir():
        return folder
    if source.startswith((".", "/", "~")):
        raise ModelError(
            f"model folder {folder} does not exist; give a folder written by save_pretrained, or a hub id", code="no-folder"
        )
    return download(source, revision, _WANTED)


def _refuse(config: PretrainedConfig, source: str) -> None:
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(
            f"{source} is a quantised checkpoint, whose down projections are no plain matrices; give --model the unquantised one "
            "that the steering was found on"
        )
    paths = FAMILIES.get(config.model_type)
    if paths is None or paths.mixture:
        kind = "a mixture of experts, which no target can express" if paths else "not an architecture that exports know"
        known = ", ".join(name for name, known in FAMILIES.items() if not known.mixture)
        raise ModelError(f"{source} ({config.model_type}) is {kind}; known: {known}. Steering.attach works with it")


def _stored(folder: Path, source: str) -> dict[str, StoredTensor]:
    """Every tensor of the files that the index names, or of the one file without an index."""
    index = folder / INDEX
    files = [folder / name for name in sorted(_indexed(index))] if index.is_file() else sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(
            f"{source} has no safetensors files; open it with transformers and write it again with save_pretrained, "
            "which writes safetensors"
        )
    return {name: tensor for file in files for name, tensor in _tensors_of(file).items()}


def _indexed(index: Path) -> set[str]:
    """The files beside an index that it names. Raises ModelError for a damaged one, and for one that leads out of its folder."""
    try:
        content = parse_json(index.read_bytes())
        files = content["weight_map"].values() if isinstance(content, dict) else ()  # type: ignore[union-attr]
        wrong = [file for file in files if not isinstance(file, str) or Path(file).name != file or file in ("", "..")]
    except (OSError, ValueError, KeyError, AttributeError) as cause:
        raise ModelError(f"{index} is no index of safetensors files ({cause}); download the checkpoint again") from cause
    if wrong or not files:
        named = f"names {str(wrong[0])[:80]!r}, which lies not beside it" if wrong else "names no file"
        raise ModelError(f"{index} {named}; download the checkpoint again")
    return set(files)


def _tensors_of(file: Path) -> dict[str, StoredTensor]:
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > file.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = parse_json(stream.read(length))
        if not isinstance(header, dict):
            raise TypeError("its header is no JSON object")
        header.pop("__metadata__", None)
        tensors = {
            name: StoredTensor(file, entry["dtype"], tuple(entry["shape"]), 8 + length + start, stop - start)
            for name, entry in header.items()
            for start, stop in [entry["data_offsets"]]
        }
        if 8 + length + sum(tensor.n_bytes for tensor in tensors.values()) != file.stat().st_size:
            raise ValueError("its size does not fit its header")
    except (OSError, ValueError, KeyError, TypeError, struct.error) as cause:
        raise ModelError(f"{file} is truncated or not a safetensors file ({cause}); download the checkpoint again") from cause
    return tensors


def _stored_name(name: str, model: PreTrainedModel, tensors: Mapping[str, StoredTensor], source: str) -> str:
    # GPT-2's own checkpoint leaves the decoder's prefix out, and GPT-NeoX calls its head otherwise than transformers does
    for candidate in (name, name.removeprefix(f"{model.base_model_prefix}."), _OTHER_NAMES.get(name, name)):
        if candidate in tensors:
            expected, found = tuple(model.get_parameter(name).shape), tensors[candidate]
            if found.shape == expected and found.dtype in DTYPES:
                return candidate
            raise ModelError(
                f"{source} stores {candidate} as {found.dtype} {list(found.shape)}, and its architecture needs a float tensor "
                f"{list(expected)}; a quantised or foreign checkpoint cannot be exported from"
            )
    raise ModelError(
        f"{source} has no tensor {name}, which its architecture needs; download it again, or write it again with save_pretrained"
    )


def _down(
    path: str, module: nn.Module, parameters: Mapping[str, str], tensors: Mapping[str, StoredTensor], source: str
) -> DownProjection:
    weight = parameters.get(f"{path}.weight")
    if weight is None or type(module) not in (nn.Linear, Conv1D):
        raise ModelError(
            f"{source} has no down projection of its own at {path} ({type(module).__name__}, tied or missing); use another model"
        )
    stored = tensors[weight]
    if len(stored.shape) != 2:
        raise ModelError(f"{source} stores {weight} as {list(stored.shape)}, which is no matrix")
    return DownProjection(path, weight, parameters.get(f"{path}.bias"), type(module) is Conv1D)


def _suffix(model: PreTrainedModel, down: tuple[DownProjection, ...]) -> str:
    """The shortest ending of the down projections' paths that no other module shares."""
    wanted = {one.module for one in down}
    pieces = down[0].module.split(".")
    for length in range(1, len(pieces)):
        suffix = ".".join(pieces[-length:])
        if {name for name, _ in model.named_modules() if name.endswith(f".{suffix}")} == wanted:
            return suffix
    raise ModelError(f"no name is shared by the down projections alone; the first is {down[0].module}")


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
