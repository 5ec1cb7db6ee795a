"""The front process: names become slots, salts keep caches apart, and a request holds its slot until it is forgotten."""

import logging
from typing import Any

from trimtab.errors import InputError, TrimtabError
from trimtab.steering import Steering
from trimtab.vllm_plugin.config import PluginConfig
from trimtab.vllm_plugin.fingerprint import check_weights
from trimtab.vllm_plugin.install import read_steering
from trimtab.vllm_plugin.options import KEYS
from trimtab.vllm_plugin.registry import Lease, Registry, publish
from trimtab.vllm_plugin.salts import salted, with_own_blocks

logger = logging.getLogger(__name__)

ATTRIBUTE = "trimtab_registry"
"""Where an engine's input processor holds its registry."""


def follow_front(processor: Any, config: PluginConfig) -> None:
    """Wrap ``process_inputs`` of this one input processor, through which every request passes, offline and served."""
    from vllm.utils.async_utils import make_async  # pyright: ignore[reportMissingImports]

    model_config = processor.vllm_config.model_config
    hf_config = model_config.hf_text_config

    def check(steering: Steering, name: str) -> None:
        check_weights(steering, model_config.model, hf_config.tie_word_embeddings, name, config.force_model)

    registry = Registry(config, check)
    for name, path in config.steerings.items():
        registry.add(registry.reserve(name, path, read_steering(path, name, config, hf_config)))
    setattr(processor, ATTRIBUTE, registry)
    publish(registry)
    original = processor.process_inputs

    def process_inputs(request_id: str, prompt: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        return _admit(registry, original, request_id, prompt, params, args, kwargs)

    processor.process_inputs = process_inputs
    # the one made before calls the original
    processor.process_inputs_async = make_async(process_inputs, executor=processor.renderer._executor)
    _hold_slots()


def separate_blocks() -> None:
    """Give cached blocks of steered requests keys of their own, in this process. Other requests' keys stay as they are."""
    from vllm.v1.core import block_pool, kv_cache_utils  # pyright: ignore[reportMissingImports]

    generate = kv_cache_utils.generate_block_hash_extra_keys
    if generate.__module__ != kv_cache_utils.__name__:
        return  # done already
    ours = with_own_blocks(generate)
    kv_cache_utils.generate_block_hash_extra_keys = ours
    block_pool.generate_block_hash_extra_keys = ours


def _admit(registry: Registry, original: Any, request_id: str, prompt: Any, params: Any, args: Any, kwargs: Any) -> Any:
    from vllm.exceptions import VLLMValidationError  # pyright: ignore[reportMissingImports]
    from vllm.sampling_params import SamplingParams  # pyright: ignore[reportMissingImports]

    if not isinstance(params, SamplingParams):
        return original(request_id, prompt, params, *args, **kwargs)
    try:
        resolved, lease = registry.admit(params.extra_args)
        if resolved.steers and kwargs.get("resumable"):
            raise InputError(
                "a resumable session cannot be steered, because its outputs become prompts; "
                "accepted: whole prompts, or steering 'none'"
            )
        if resolved.entries() or set(params.extra_args or ()) & set(KEYS):
            params = params.clone()
            params.extra_args = lease
        if resolved.record and registry.records_prompts:
            params.skip_reading_prefix_cache = True  # tokens that are not computed cannot be summed up
        request = original(request_id, prompt, params, *args, **kwargs)
        request.cache_salt = salted(request.cache_salt, resolved)
        registry.enter(resolved)
    except TrimtabError as refusal:
        raise VLLMValidationError(str(refusal), parameter="vllm_xargs") from refusal
    return request


def _hold_slots() -> None:
    """The front's state of a request keeps its lease alive, in every engine of this process that has the plugin.

    The samples of a request with n > 1 share their parameters; beside the first one's state, their parent's keeps the lease.
    """
    from vllm.v1.engine.output_processor import OutputProcessor  # pyright: ignore[reportMissingImports]

    original = OutputProcessor.add_request
    if original.__module__ != OutputProcessor.__module__:
        return  # done already

    def add_request(self: Any, request: Any, *args: Any, **kwargs: Any) -> None:
        original(self, request, *args, **kwargs)
        params = request.sampling_params
        if params is not None and isinstance(params.extra_args, Lease):
            self.request_states[request.request_id].trimtab_lease = params.extra_args
            # an engine in this process would keep its last requests until it runs again
            params.extra_args = dict(params.extra_args)

    OutputProcessor.add_request = add_request
