"""Engines, models and steerings that the plugin refuses before the engine starts, rather than in its answers."""

import json
import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, cast

import numpy as np
import torch

from trimtab.errors import ConfigError, MismatchError, ModelError
from trimtab.gate import Gate, RandomOpening, RunningGate
from trimtab.model.identity import sample_bytes, sample_stride, weight_fingerprint
from trimtab.neurons import ModelIdentity
from trimtab.steering import Steering
from trimtab.store.artifact import load_steering
from trimtab.vllm_plugin.config import PluginConfig


class EngineConfig(Protocol):
    """vLLM's configuration; its parts are read by name in :data:`_SETTINGS`."""

    parallel_config: object
    scheduler_config: object
    cache_config: object
    compilation_config: object
    model_config: object


@dataclass(frozen=True, slots=True)
class _Setting:
    """A setting of the engine that moves tokens or layers away from where the hooks expect them."""

    path: str
    accepted: object
    why: str
    fix: str


_SETTINGS = (
    _Setting(
        "speculative_config", None, "draft tokens are rows of the batch that may be thrown away", "leave out --speculative-config"
    ),
    _Setting("kv_transfer_config", None, "a prompt computed elsewhere has no gate score here", "leave out --kv-transfer-config"),
    _Setting(
        "parallel_config.pipeline_parallel_size",
        1,
        "a rank holds stubs in place of the others' layers",
        "use --tensor-parallel-size instead of --pipeline-parallel-size",
    ),
    _Setting(
        "parallel_config.data_parallel_size",
        1,
        "one engine only would know a steering that is loaded at run time",
        "leave out --data-parallel-size and start one engine per replica",
    ),
    _Setting(
        "parallel_config._api_process_count",
        1,
        "one API server only would know a steering that is loaded at run time",
        "leave out --api-server-count and start one server per replica",
    ),
    _Setting(
        "parallel_config.prefill_context_parallel_size",
        1,
        "a prompt's tokens are spread over ranks",
        "set --prefill-context-parallel-size 1",
    ),
    _Setting(
        "parallel_config.use_ubatching",
        False,
        "a layer sees a part of the batch at a time",
        "leave out --enable-dbo and --ubatch-size",
    ),
    _Setting(
        "cache_config.kv_sharing_fast_prefill",
        False,
        "later layers skip the prompt's tokens",
        "leave out --kv-sharing-fast-prefill",
    ),
    _Setting("model_config.runner_type", "generate", "a pooling model generates nothing", "serve a generative model"),
)


def check_engine(vllm_config: EngineConfig, config: PluginConfig) -> None:
    """Refuse settings of the engine under which a steering would not act as described.

    Raises:
        ConfigError: naming the setting, its value, the reason and the fix.
    """
    for setting in _SETTINGS:
        value: object = vllm_config
        for part in setting.path.split("."):
            value = getattr(value, part)
        if value != setting.accepted:
            raise ConfigError(
                f"steering does not work with {setting.path} = {value!r:.100}, only with {setting.accepted!r}: {setting.why}. "
                f"Fix: {setting.fix}, or start the engine without the trimtab plugin",
                code="engine-option",
            )
    if config.record is not None and getattr(vllm_config.scheduler_config, "async_scheduling", False):
        raise ConfigError(
            "recording does not work with async scheduling: a step scheduled ahead forwards a token that is in no trace. "
            "Fix: --no-async-scheduling (async_scheduling=False)"
        )


def check_steering(steering: Steering, name: str, config: PluginConfig) -> None:
    """Refuse a steering that an engine cannot compute.

    Raises:
        ModelError: a gate that reads more than the last prompt token, directions of the residual stream, or an intervention that
            the output side cannot express.
    """
    gate = steering.gate
    if isinstance(gate, RandomOpening):
        raise ModelError(
            f"the gate of {name!r} draws a token by the prompt's ids, which no artifact tells an engine. Fix: attach the "
            "steering to the transformers model, or let study.evaluate run it, whose engine draws for each request"
        )
    question = gate.question if isinstance(gate, RunningGate) else gate
    if question is not None and question.reads and not (isinstance(question, Gate) and question.pooling == "last"):
        raise ModelError(
            f"the gate of {name!r} is {gate.label}; an engine runs only linear gates on the last prompt token, because "
            "cached and chunked prompts are never in one forward. "
            "Fix: fit the gate with pooling 'last', or steer with gate 'always'",
            code="gate-in-engine",
        )
    if steering.has_directions:
        raise ModelError(
            f"steering {name!r} adds a direction to the residual stream, which the engine does not do: it steers neurons. "
            "Fix: attach it to the transformers model, or export it with trimtab export --target gguf"
        )
    if not len(steering):
        raise ModelError(f"steering {name!r} has no neurons; select at least one")
    if config.side == "output" and steering.gain.any():
        raise ModelError(
            f"steering {name!r} multiplies activations (gain), which cannot be added to a down projection's output. "
            "Fix: side 'input', or the intervention 'add'"
        )


_SIZES: Mapping[str, str] = MappingProxyType(
    {"n_layers": "num_hidden_layers", "d_model": "hidden_size", "d_ff": "intermediate_size", "vocab_size": "vocab_size"}
)


def check_sizes(identity: ModelIdentity, hf_text_config: object, name: str) -> None:
    """Refuse a steering of another architecture.

    Raises:
        ModelError: naming every size that differs.
    """
    if identity.n_experts != 1:
        raise ModelError(
            f"steering {name!r} is of a mixture of experts, whose fused kernel hands over no neuron. "
            "Fix: a dense model, or export the steering as a LoRA or merged weights",
            code="experts-in-engine",
        )
    if identity.widths is not None:
        raise ModelError(
            f"steering {name!r} is of a model whose layers have different numbers of neurons, {identity.width_text}, which an "
            "engine cannot be told. Fix: attach it to the transformers model"
        )
    sizes = {field: cast("int", getattr(hf_text_config, theirs, None)) for field, theirs in _SIZES.items()}
    different = [
        f"{field}: made for {getattr(identity, field)}, here {size}"
        for field, size in sizes.items()
        if getattr(identity, field) != size
    ]
    if different:
        raise ModelError(
            f"steering {name!r} was made for {identity.name}, which this model is not: {'; '.join(different)}. "
            f"Fix: serve {identity.name}, or load a steering of this model"
        )


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
            f"Fix: serve {steering.model.name}, or accept them with force_model in the plugin's configuration",
            code="other-weights",
        )
    logger.warning(
        "forced: steering %r was made for weights %s; those of %s %s", name, steering.model.fingerprint, model, difference
    )


@lru_cache(maxsize=8)
def checkpoint_fingerprint(model: str, tied: bool) -> str | None:
    """Return the fingerprint as :func:`trimtab.model.identity.identify` does; None if the files hold other than plain weights."""
    files = sorted(_folder(model).glob("*.safetensors"))
    samples: list[tuple[str, list[int], bytes]] = []
    for file in files:
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(size))
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


def read_steering(path: str, name: str, config: PluginConfig, hf_config: object) -> Steering:
    """Read an artifact, and check that it fits this model and that an engine can compute it.

    Raises:
        StoreError: no artifact there, or a damaged one.
        ModelError: of another architecture, or with a gate that no engine can run.
    """
    steering = load_steering(path)
    check_sizes(steering.model, hf_config, name)
    check_steering(steering, name, config)
    return steering
