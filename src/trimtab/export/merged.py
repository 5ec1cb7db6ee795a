"""A checkpoint of its own: the columns of the steered neurons scaled, the shifts in the bias of the down projection."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers import __version__ as transformers_version

from trimtab.errors import InputError, StoreError
from trimtab.export.checkpoint import Checkpoint, EditRows, copy_file
from trimtab.export.engines import TransformersEngine
from trimtab.export.target import Engine, EngineOptions, LayerEdit, Written, layer_edits, output_shift
from trimtab.model import LanguageModel
from trimtab.steering import Steering

_COPIED = ("*.json", "*.model", "*.txt", "*.jinja", "*.py", "LICENSE*", "NOTICE*")


class Merged:
    """``W' = W diag(1 + s gain)`` and ``b' = b + s W shift``, rounded to the dtype of the checkpoint.

    Files keep their names and layout and are streamed, so memory does not grow with the model.
    """

    needs_fingerprint = False  # it is taken while the weights pass

    def check(self, steering: Steering, checkpoint: Checkpoint) -> None:
        """Refuse shifts where the down projection has no bias, in which they would have to stand."""
        if steering.shift.any() and any(down.bias is None for down in checkpoint.down):
            raise InputError(
                f"merged cannot express the shifts of this steering: the down projections of {checkpoint.config.model_type} "
                "have no bias. Fix: export to gguf or lm-eval, which carry shifts, or leave them out with --drop shift"
            )

    def write(self, steering: Steering, checkpoint: Checkpoint, folder: Path) -> Written:
        """Copy the checkpoint, changed."""
        _check_space(checkpoint, folder)
        edits = _edits(steering, checkpoint)
        samples: dict[str, bytes] = {}
        for file in checkpoint.files:
            tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if tensor.file == file}
            copy_file(file, folder / file.name, tensors, edits, samples)
        for pattern in _COPIED:
            for path in checkpoint.folder.glob(pattern):
                shutil.copyfile(path, folder / path.name)
        size = sum(tensor.n_bytes for tensor in checkpoint.tensors.values())
        facts = {"files": len(checkpoint.files), "bytes": size, "weights": checkpoint.dtype}
        return Written(facts, 'AutoModelForCausalLM.from_pretrained("PATH")  # or: vllm serve PATH', samples)

    @contextmanager
    def open(self, folder: Path, model: LanguageModel, options: EngineOptions) -> Iterator[Engine]:  # noqa: ARG002
        """The merged checkpoint beside the base, both in transformers."""
        try:
            hf_model = AutoModelForCausalLM.from_pretrained(folder, dtype=model.hf_model.dtype)
        except (OSError, ValueError, RuntimeError) as cause:
            raise StoreError(f"transformers cannot load {folder}: {' '.join(str(cause).split())[:300]}") from cause
        # the base may have been opened with another attention than the default, whose rounding is another
        hf_model.set_attn_implementation(model.hf_model.config._attn_implementation or "eager")
        hf_model.eval().to(model.device)  # type: ignore[arg-type]
        yield TransformersEngine(f"transformers {transformers_version}", hf_model, bare=model.hf_model)


def _edits(steering: Steering, checkpoint: Checkpoint) -> dict[str, EditRows]:
    """What happens to each changed tensor, by its name."""
    edits: dict[str, EditRows] = {}
    for edit in layer_edits(steering):
        down = checkpoint.down[edit.layer]
        if edit.gain.any():
            edits[down.weight] = _scaled(edit, down.transposed)
        if edit.shift.any() and down.bias is not None:
            edits[down.bias] = _shifted(torch.from_numpy(output_shift(edit, checkpoint)))
    return edits


def _scaled(edit: LayerEdit, transposed: bool) -> EditRows:
    index, factor = torch.from_numpy(edit.index), 1.0 + torch.from_numpy(edit.gain)

    def scale(rows: Tensor, first: int) -> None:
        if transposed:
            here = (index >= first) & (index < first + len(rows))
            chosen = index[here] - first
            rows[chosen] = (rows[chosen].float() * factor[here, None]).to(rows.dtype)
        else:
            rows[:, index] = (rows[:, index].float() * factor).to(rows.dtype)

    return scale


def _shifted(shift: Tensor) -> EditRows:
    def add(rows: Tensor, first: int) -> None:
        rows += shift[first : first + len(rows)].to(rows.dtype)

    return add


def _check_space(checkpoint: Checkpoint, folder: Path) -> None:
    needed = sum(file.stat().st_size for file in checkpoint.files)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StoreError(
            f"the merged checkpoint needs {needed / 1e9:.1f} GB, and the disk of {folder.parent} has {free / 1e9:.1f} GB free; "
            "free space, or give -o on another disk"
        )
