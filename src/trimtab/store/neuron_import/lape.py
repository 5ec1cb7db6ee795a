"""The ``.neuron.pth`` files of LAPE (arXiv 2402.16438): by language and layer, a tensor of indices.

LAPE selects by ``act(gate_proj(h)) > 0`` and silences ``act(gate_proj(h))``, where a neuron of ours is
``a = act(gate_proj(h)) * up_proj(h)``. The coordinate is the same, and a factor on one is that factor on the other, so ``scale``
and ``suppress`` do what LAPE does. A constant would not, and its lists have no numbers to make one from.
"""

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.errors import InputError
from trimtab.neurons import ModelIdentity, NeuronList
from trimtab.store.neuron_import.listed import MOST_BYTES, Address, ListFile

if TYPE_CHECKING:
    from torch import Tensor

NAME = "lape"
DEFINITION = "act(gate_proj(h)); in an ungated FFN act(fc1(h))"


def read_lape(path: Path, model: ModelIdentity, part: int | None = None) -> NeuronList:
    """Read one language's list, by layer and in the order of the file, which says nothing of rank.

    Nothing in the file is executed: torch's loader of weights builds tensors and plain containers only.

    Args:
        path: what ``torch.save`` wrote of ``list[list[LongTensor]]``, or of one language's ``list[LongTensor]``.
        model: has as many layers as the file.
        part: which language, from 0; LAPE's own files hold en, zh, fr, es, vi, id, ja. Not for a file of one language.

    Raises:
        InputError: anything but such lists, another number of layers, no such part, or a neuron outside the model.
    """
    file = ListFile.read(path)
    file.refuse_experts(model)
    layers = _chosen(file, _load(file), part)
    if len(layers) != model.n_layers:
        raise InputError(
            f"{path} has lists for {len(layers)} layers, and {model.name} has {model.n_layers}; "
            "give the model that the list was made for"
        )
    addresses = [
        Address(f"layer {layer}, entry {entry}", layer, index)
        for layer, tensor in enumerate(layers)
        for entry, index in enumerate(_indices(file, layer, tensor, model))
    ]
    layer, index = file.columns(addresses, model)
    facts = file.facts(NAME, DEFINITION, neurons=len(addresses), **({} if part is None else {"part": part}))
    return NeuronList(layer, index, f"imported-{NAME}", model, None, facts)


def _load(file: ListFile) -> object:
    import torch

    _check_archive(file)
    try:
        # not the pickle module: an interpreter of the few opcodes and constructors that tensors and containers need
        return torch.load(io.BytesIO(file.content), map_location="cpu", weights_only=True)
    except Exception as cause:
        # hostile bytes make it raise almost anything; its own message is not passed on, for it advises to unpickle
        raise InputError(
            f"{file.path} holds something other than plain lists of tensors ({type(cause).__name__}), so it was refused and "
            "nothing in it was executed; save it as a list of lists of LongTensor, or write the neurons as JSON"
        ) from cause


def _check_archive(file: ListFile) -> None:
    """Raise InputError unless the file is a zip archive, as torch.save writes it, that stays small when it is unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as cause:
        raise InputError(f"{file.path} is no archive of torch.save ({cause}); save it again with torch 1.6 or newer") from cause
    if unpacked > MOST_BYTES:
        raise InputError(f"{file.path} unpacks to {unpacked:,} bytes, and a list of neurons to at most {MOST_BYTES:,}")


def _chosen(file: ListFile, content: object, part: int | None) -> "list[Tensor]":
    """One language's tensors, one a layer."""
    if not isinstance(content, list) or not content:
        raise InputError(
            f"{file.path} holds no list, but a {type(content).__name__}; "
            "LAPE's files hold a list of languages, each a list of layers"
        )
    if not isinstance(content[0], list):
        if part is not None:
            raise InputError(f"{file.path} holds one list of neurons, so there is no part {part} to choose; leave --part out")
        return content
    if part is None or not 0 <= part < len(content):
        asked = "none was chosen" if part is None else f"there is no part {part}"
        raise InputError(f"{file.path} holds {len(content)} lists of neurons, and {asked}; give --part 0 to {len(content) - 1}")
    if not isinstance(content[part], list):
        raise file.refuse(f"part {part}", f"expected a list of layers, got a {type(content[part]).__name__}")
    return content[part]


def _indices(file: ListFile, layer: int, tensor: object, model: ModelIdentity) -> list[int]:
    import torch

    where = f"layer {layer}"
    if not isinstance(tensor, torch.Tensor):
        raise file.refuse(where, f"expected a tensor of indices, got a {type(tensor).__name__}")
    if tensor.dtype != torch.int64 or tensor.dim() != 1 or tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise file.refuse(where, f"expected a flat int64 tensor of indices, got {tensor.dtype} of shape {list(tensor.shape)}")
    # before tolist: a view with stride 0 has any length at no cost in the file
    if len(tensor) > model.d_ff:
        raise file.refuse(where, f"{len(tensor)} indices, and {model.name} has {model.d_ff} neurons a layer")
    return tensor.tolist()
