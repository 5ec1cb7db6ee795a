"""PEFT LoRA on the down projection: ``(W + B A) a`` with one-hot rows in A and scaled columns of W in B."""

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.export.checkpoint import Checkpoint
from trimtab.export.layers import layer_edits
from trimtab.export.target import Engine, EngineOptions, Written
from trimtab.export.targets.peft_files import peft_engine, write_adapter
from trimtab.model import LanguageModel
from trimtab.steering import Steering

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What engines that serve adapters accept; see vLLM's ``max_lora_rank``."""


class Lora:
    """``W a + s gain W[:, S] a_S``: row j of A picks neuron S_j, column j of B is ``s gain_j W[:, S_j]``.

    One rank for all layers, padded with zeros, and ``lora_alpha = r``: engines that ignore ``rank_pattern`` load it too.
    """

    needs_fingerprint = True

    def check(self, steering: Steering, checkpoint: Checkpoint) -> None:  # noqa: ARG002
        """Refuse more neurons in one layer than the largest rank."""
        rank_of(steering)

    def write(self, steering: Steering, checkpoint: Checkpoint, folder: Path) -> Written:
        """Write adapter_config.json and adapter_model.safetensors, float32."""
        rank = rank_of(steering)
        tensors: dict[str, NDArray[np.float32]] = {}
        edits = {edit.layer: edit for edit in layer_edits(steering)}
        for layer, down in enumerate(checkpoint.down):
            a = np.zeros((rank, checkpoint.d_ff), np.float32)
            b = np.zeros((checkpoint.d_model, rank), np.float32)
            if edit := edits.get(layer):
                rows = np.arange(len(edit.index))
                a[rows, edit.index] = 1.0
                b[:, rows] = edit.gain * checkpoint.columns(layer, edit.index)
            tensors |= {f"{down.module}.lora_A.weight": a, f"{down.module}.lora_B.weight": b}
        settings = {
            "peft_type": "LORA",
            "r": rank,
            "lora_alpha": rank,
            "lora_dropout": 0.0,
            "bias": "none",
            "use_rslora": False,
            "use_dora": False,
        }
        write_adapter(folder, checkpoint, settings, tensors)
        usage = (
            'PeftModel.from_pretrained(model, "PATH")  # peft\n'
            f"vllm serve {checkpoint.name} --enable-lora --max-lora-rank {rank} --lora-modules steered=PATH"
        )
        return Written({"rank": rank, "max_lora_rank": rank}, usage)

    def open(self, folder: Path, model: LanguageModel, options: EngineOptions) -> AbstractContextManager[Engine]:  # noqa: ARG002
        """Load it with peft."""
        return peft_engine(folder, model)


def rank_of(steering: Steering) -> int:
    """The smallest of :data:`RANKS` that holds every layer's neurons. Raises InputError above the largest."""
    most = int(np.bincount(steering.layer).max())
    for rank in RANKS:
        if rank >= most:
            return rank
    raise InputError(
        f"one layer has {most} steered neurons, and no engine serves an adapter of a rank above {RANKS[-1]}; "
        "export to merged or ia3, or steer fewer neurons"
    )
