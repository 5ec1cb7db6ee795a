"""The dictionary that lm-evaluation-harness's model ``steered`` adds to the outputs of modules.

Its loader unpickles (``torch.load(..., weights_only=False)``), so nothing of this is written unless asked for by name; trimtab
itself reads the file with the loader of weights alone, which runs no code.
"""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from trimtab.errors import InputError, StoreError
from trimtab.export.checkpoint import Checkpoint
from trimtab.export.layers import layer_edits, output_shift
from trimtab.export.target import Engine, EngineOptions, Written
from trimtab.export.transformers_engine import TransformersEngine
from trimtab.model import LanguageModel
from trimtab.steering import Steering
from trimtab.store import replace_file

FILE = "steer.pt"


class LmEvalDict:
    """``W[:, S] @ shift`` added to the output of each down projection, at every position."""

    needs_fingerprint = True

    def check(self, steering: Steering, checkpoint: Checkpoint) -> None:
        """Every shift reaches the output."""

    def write(self, steering: Steering, checkpoint: Checkpoint, folder: Path) -> Written:
        """Write steer.pt, a pickle; the caller has asked for it by name."""
        # the harness looks for modules of model.base_model, whose paths lack the first piece
        entries = {
            checkpoint.down[edit.layer].module.partition(".")[2]: {
                "steering_vector": torch.from_numpy(output_shift(edit, checkpoint)),
                "steering_coefficient": 1.0,
                "action": "add",
                "bias": None,
                "head_index": None,
            }
            for edit in layer_edits(steering)
        }
        with replace_file(folder / FILE) as temporary:
            torch.save(entries, temporary)
        usage = f"lm_eval --model steered --model_args pretrained={checkpoint.name},steer_path=PATH/{FILE} --tasks gsm8k"
        return Written({"pickled": True}, usage)

    @contextmanager
    def open(self, folder: Path, model: LanguageModel, options: EngineOptions) -> Iterator[Engine]:
        """The harness's own way of steering, on the entries of the file."""
        if not options.allow_pickle:
            raise InputError(f"{folder / FILE} is a pickle, which the harness unpickles; to open it, say --allow-pickle")
        try:
            from lm_eval.models.hf_steered import SteeredModel, steer
        except ModuleNotFoundError as cause:
            raise InputError(
                f"this needs lm-evaluation-harness, and {cause.name} is not installed; run: pip install 'trimtab[lm-eval]'"
            ) from cause
        entries = _read(folder / FILE)
        vectors = {name: entry["steering_vector"].to(model.device, model.hf_model.dtype) for name, entry in entries.items()}

        add = SteeredModel.add  # type: ignore[attr-defined]  # the registry's decorator hides its type
        hooks = {name: partial(add, vector=vector, head_index=None) for name, vector in vectors.items()}
        yield TransformersEngine(f"lm_eval {version('lm_eval')}", model.hf_model, on=lambda _: steer(model.hf_model, hooks))


def _read(path: Path) -> dict[str, dict[str, Tensor]]:
    try:
        return torch.load(path, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as cause:
        raise StoreError(f"{path} is missing or not the file that was exported ({cause}); export it again") from cause
