"""PEFT IA3 on the down projection: one factor for each of its inputs."""

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.export.checkpoint import Checkpoint
from trimtab.export.layers import layer_edits
from trimtab.export.target import Engine, EngineOptions, Written
from trimtab.export.targets.peft_files import peft_engine, write_adapter
from trimtab.model import LanguageModel
from trimtab.steering import Steering


class Ia3:
    """``W (l * a)`` with ``l = 1 + s gain`` on the steered neurons and 1 elsewhere."""

    needs_fingerprint = True

    def check(self, steering: Steering, checkpoint: Checkpoint) -> None:
        """Every gain can be a factor."""

    def write(self, steering: Steering, checkpoint: Checkpoint, folder: Path) -> Written:
        """Write adapter_config.json and adapter_model.safetensors, float32."""
        edits = {edit.layer: edit for edit in layer_edits(steering)}
        tensors: dict[str, NDArray[np.float32]] = {}
        for layer, down in enumerate(checkpoint.down):
            factor = np.ones((1, checkpoint.d_ff), np.float32)
            if edit := edits.get(layer):
                factor[0, edit.index] += edit.gain
            tensors[f"{down.module}.ia3_l"] = factor
        settings = {"peft_type": "IA3", "feedforward_modules": [checkpoint.suffix], "init_ia3_weights": True}
        write_adapter(folder, checkpoint, settings, tensors)
        return Written({}, 'PeftModel.from_pretrained(model, "PATH")  # peft')

    def open(self, folder: Path, model: LanguageModel, options: EngineOptions) -> AbstractContextManager[Engine]:  # noqa: ARG002
        """Load it with peft."""
        return peft_engine(folder, model)
