"""Adapters in PEFT's format: the files, and loading them with peft."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import StoreError
from trimtab.export.checkpoint import Checkpoint
from trimtab.export.target import Engine, not_installed
from trimtab.export.transformers_engine import TransformersEngine
from trimtab.model import LanguageModel
from trimtab.store import save_tensors, write_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


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
    write_json(folder / CONFIG, config)
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
