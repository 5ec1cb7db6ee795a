"""Adapters in PEFT's format, LoRA and IA3: the files, and loading them with peft."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError, StoreError
from trimtab.export.checkpoint import Checkpoint
from trimtab.export.engines import TransformersEngine
from trimtab.export.target import ADAPTER_CONFIG, Engine, EngineOptions, Written, layer_edits, not_installed
from trimtab.model import LanguageModel
from trimtab.steering import Steering
from trimtab.store import save_tensors, write_json

WEIGHTS = "adapter_model.safetensors"


def write_adapter(
    folder: Path, checkpoint: Checkpoint, settings: Mapping[str, object], tensors: Mapping[str, NDArray[np.float32]]
) -> None:
    """Write an adapter; ``tensors`` are named from the down projection's path on.

    Every key that loaders read stands in the configuration, and none that only one version of peft knows.
    """
    config = {
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": checkpoint.name,
        "revision": checkpoint.revision,
        "inference_mode": True,
        "target_modules": [checkpoint.suffix],
        "fan_in_fan_out": checkpoint.down[0].transposed,
        "modules_to_save": None,
        **settings,
    }
    write_json(folder / ADAPTER_CONFIG, config)
    save_tensors(folder / WEIGHTS, {f"base_model.model.{name}": value for name, value in tensors.items()}, {})


@contextmanager
def peft_engine(folder: Path, model: LanguageModel) -> Iterator[Engine]:
    """The base model with the adapter, as ``PeftModel.from_pretrained`` loads it."""
    try:
        from peft import PeftModel
    except ModuleNotFoundError as cause:
        raise not_installed("peft", "an adapter", cause) from cause
    try:
        adapted = PeftModel.from_pretrained(model.hf_model, str(folder))
    except (ValueError, RuntimeError, OSError) as cause:
        raise StoreError(f"peft cannot load {folder}: {' '.join(str(cause).split())[:300]}; export it again") from cause
    try:
        yield TransformersEngine(f"peft {version('peft')}", adapted.eval(), off=lambda _: adapted.disable_adapter())
    finally:
        adapted.base_model.unload()  # type: ignore[intervention]


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
