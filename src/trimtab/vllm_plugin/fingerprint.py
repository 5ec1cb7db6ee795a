"""Whether a checkpoint has the weights that a steering was made for, from its files: the engine's own weights are fused."""

import json
import logging
import struct
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from trimtab.errors import MismatchError
from trimtab.model.identity import sample_bytes, sample_stride, weight_fingerprint
from trimtab.steering import Steering

logger = logging.getLogger(__name__)

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_TIED = "lm_head.weight"


def check_weights(steering: Steering, model: str, tied: bool, name: str, force: bool) -> None:
    """Refuse a steering of other weights.

    Args:
        model: the checkpoint's folder, or a hub id whose files are in the local cache.
        tied: whether the unembedding is the embedding.
        force: accept other weights, a fine-tune for example.

    Raises:
        MismatchError: other weights, or weights that cannot be compared.
    """
    found = checkpoint_fingerprint(model, tied)
    if found == steering.model.fingerprint:
        return
    difference = "cannot be compared, since they are not plain safetensors" if found is None else f"have the fingerprint {found}"
    if not force:
        raise MismatchError(
            f"steering {name!r} was made for {steering.model.name} with fingerprint {steering.model.fingerprint}; "
            f"the weights of {model} {difference}. "
            f"Fix: serve {steering.model.name}, or accept them with force_model in the plugin's configuration"
        )
    logger.warning(
        "forced: steering %r was made for weights %s; those of %s %s", name, steering.model.fingerprint, model, difference
    )


@lru_cache(maxsize=8)
def checkpoint_fingerprint(hf_model: str, tied: bool) -> str | None:
    """As :func:`trimtab.model.identity.identify` finds it; None where the files hold other than plain weights."""
    files = sorted(_folder(hf_model).glob("*.safetensors"))
    samples: list[tuple[str, list[int], bytes]] = []
    for file in files:
        with file.open("rb") as model:
            (size,) = struct.unpack("<Q", model.read(8))
            header = json.loads(model.read(size))
        for name, entry in header.items():
            if name == "__metadata__" or (tied and name == _TIED):
                continue
            if entry["dtype"] not in _DTYPES:
                return None
            start, end = entry["data_offsets"]
            mapped = np.memmap(file, np.uint8, mode="c", offset=8 + size + start, shape=(end - start,))
            flat = torch.from_numpy(mapped).view(_DTYPES[entry["dtype"]])
            samples.append((name, entry["shape"], sample_bytes(flat[:: sample_stride(len(flat))])))
    return weight_fingerprint(samples) if samples else None


def _folder(model: str) -> Path:
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model, allow_patterns=["*.safetensors"], local_files_only=True))
