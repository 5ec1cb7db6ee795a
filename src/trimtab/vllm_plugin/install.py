"""Put the plugin into a worker whose model is loaded and not yet compiled."""

import logging
from typing import cast

import torch
from torch import nn

from trimtab.errors import ModelError
from trimtab.steering import Steering
from trimtab.store.artifact import load_steering
from trimtab.vllm_plugin.config import PluginConfig
from trimtab.vllm_plugin.engine import EngineSteering
from trimtab.vllm_plugin.projections import down_projections
from trimtab.vllm_plugin.rank import Rank
from trimtab.vllm_plugin.recording import Recording
from trimtab.vllm_plugin.refusals import check_engine, check_sizes, check_steering
from trimtab.vllm_plugin.request_slots import RequestSlots
from trimtab.vllm_plugin.step_buffers import StepBuffers
from trimtab.vllm_plugin.tables import SlotTables, plan_room
from trimtab.vllm_plugin.versions import PLUGIN, check_version

logger = logging.getLogger(__name__)

LAYOUT = "trimtab_layout"
"""Entry of ``additional_config`` that makes graphs compiled for other tables useless: vLLM hashes it into their key."""


def install(model: nn.Module, vllm_config: object, config: PluginConfig, device: torch.device) -> EngineSteering:
    """Hook the model and load the steerings of the configuration, in order, into slots 1, 2 ...

    Raises:
        ConfigError, ModelError: an engine, a model or a steering that this does not work with.
    """
    check_version()
    check_engine(vllm_config, config)  # type: ignore[arg-type]  # vLLM's own class
    hf_config = vllm_config.model_config.hf_text_config  # type: ignore[attr-defined]
    parallel, scheduler = vllm_config.parallel_config, vllm_config.scheduler_config  # type: ignore[attr-defined]
    steerings = {name: read_steering(path, name, config, hf_config) for name, path in config.steerings.items()}
    n_layers, d_model, d_ff = hf_config.num_hidden_layers, hf_config.hidden_size, hf_config.intermediate_size
    down = down_projections(model, n_layers, config.side)
    rank = Rank(_rank(parallel.tensor_parallel_size), parallel.tensor_parallel_size, d_ff)
    step = StepBuffers.make(scheduler.max_num_batched_tokens, device)
    room = plan_room(tuple(steerings.values()), config, rank, n_layers)
    recording = None if config.record is None else Recording(config.record, n_layers, scheduler.max_num_seqs, rank.width, device)
    tables = SlotTables(config, down, room, step, rank, vllm_config.model_config.dtype)  # type: ignore[attr-defined]
    tables.install(d_model, recording)
    if not tables.layers:
        raise ModelError(
            "the trimtab plugin has nothing to hook: no steering is given and neurons_per_layer is 0. "
            "Fix: name a steering, or leave room for some"
        )
    for slot, (name, steering) in enumerate(steerings.items(), 1):
        tables.load(slot, steering, name)
    cast("dict[str, object]", vllm_config.additional_config)[LAYOUT] = f"{PLUGIN};{config.side};{config.monitor};{tables.layout}"  # type: ignore[attr-defined]
    requests = RequestSlots(scheduler.max_num_seqs + 1, device)
    logger.info("trimtab: %d layers hooked, %d steerings loaded, side %s", len(tables.layers), len(steerings), config.side)
    return EngineSteering(tables, step, requests, recording, config.monitor)


def read_steering(path: str, name: str, config: PluginConfig, hf_config: object) -> Steering:
    """An artifact that fits this model and can be computed in an engine.

    Raises:
        StoreError: no artifact there, or a damaged one.
        ModelError: of another architecture, or with a gate that no engine can run.
    """
    steering = load_steering(path)
    check_sizes(steering.model, hf_config, name)
    check_steering(steering, name, config)
    return steering


def _rank(count: int) -> int:
    if count == 1:
        return 0
    from vllm.distributed import get_tensor_model_parallel_rank  # pyright: ignore[reportMissingImports]

    return get_tensor_model_parallel_rank()
