"""The steering adapters of an engine, and how a request gets one: names become slots, and cached blocks are kept apart.

All of it happens in the process that admits requests. A name becomes a slot once, when a request arrives; the workers hear of
slots alone. A slot that is removed takes no more requests and is given away only after this process has forgotten every request
that was resolved to it. An unload sent then reaches the engine after the end of each of them, because both travel on one
connection, in order.

vLLM finds a cached block by the tokens up to its end and by extra keys. Two of them are ours:

- a ``cache_salt`` for every request that has a steering, from its digest, strength, scope and gate. It separates steerings from
  each other and from none, from the first block on.
- a key of the request's own for each block that reaches into steered positions, unless the scope is ``all``. Generated tokens
  are computed steered where a prompt with the same tokens would not be (and a gate decides anew for it), so such a block must
  serve nobody but the request itself, after a preemption.
"""

import hashlib
import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol
from weakref import WeakSet

from trimtab.errors import InputError, TrimtabError
from trimtab.steering import Steering
from trimtab.vllm_plugin.config import NONE, PluginConfig
from trimtab.vllm_plugin.options import KEYS, Adapter, DoseGuard, RequestOptions, ResolvedOptions, resolve
from trimtab.vllm_plugin.refusals import check_weights, read_steering

logger = logging.getLogger(__name__)


class Lease(dict[str, object]):
    """A request's ``extra_args``. The request holds its slot as long as anything refers to this object."""

    __slots__ = ("__weakref__",)

    def __hash__(self) -> int:  # type: ignore[override]  # a weak set tells leases apart by identity
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __deepcopy__(self, memo: dict[int, object]) -> "Lease":
        return self  # vLLM clones a request's parameters; the clone is the same request

    def __copy__(self) -> "Lease":
        return self


@dataclass(frozen=True, slots=True)
class Reservation:
    """A steering that has a slot and that the workers do not hold yet.

    Args:
        adapter: with its slot.
        steering: as it was read.
    """

    adapter: Adapter
    steering: Steering


class Adapters:
    """The loaded steerings by name, and the slot of each. Safe to use from several threads.

    Attributes:
        default: name of the steering of requests that name none.
        entered: requests by name of their steering, since the start.
        guard: of their doses.
        over_dose: requests above its limit that were steered with the strength they asked for or a smaller one, by name.

    Example:
        >>> adapters = Adapters(PluginConfig())
        >>> dict(adapters.loaded())
        {}
    """

    def __init__(self, config: PluginConfig, check: Callable[[Steering, str], None] = lambda *_: None) -> None:
        """Start without any steering.

        Args:
            config: of the engine.
            check: raises for a steering that was made for other weights, given it and its name.
        """
        self.config, self._check = config, check
        self.default = config.default
        self.entered: Counter[str] = Counter()
        self.guard = DoseGuard(config.max_dose, config.over_dose)
        self.over_dose: Counter[str] = Counter()
        self._lock = threading.RLock()  # a lease can die, and so touch its weak set, in any thread
        self._loaded: dict[str, Adapter] = {}
        self._draining: dict[int, Adapter] = {}
        self._reserved: dict[int, str] = {}
        self._leases: dict[int, WeakSet[Lease]] = {slot: WeakSet() for slot in range(config.max_steerings + 1)}

    @property
    def records_prompts(self) -> bool:
        """Whether a recorded request needs the moments of its whole prompt."""
        return self.config.record is not None and bool({"prompt", "all"} & set(self.config.record.scopes))

    def loaded(self) -> Mapping[str, Adapter]:
        """The steerings that requests can name."""
        with self._lock:
            return MappingProxyType(dict(self._loaded))

    def draining(self) -> Mapping[int, Adapter]:
        """Removed steerings whose slots are not free yet, by slot."""
        with self._lock:
            return MappingProxyType(dict(self._draining))

    def requests(self, slot: int) -> int:
        """Return the number of requests that hold a slot."""
        with self._lock:
            return len(self._leases[slot])

    def reserve(self, name: str, path: str, steering: Steering) -> Reservation:
        """Give a steering a free slot, before the workers load it.

        Raises:
            InputError: a name that is taken or cannot be one, no free slot, or a dose that the guard refuses.
            MismatchError: it was made for other weights.
        """
        self._check(steering, name)
        with self._lock:
            if name in self._loaded or name in self._reserved.values():
                raise InputError(f"a steering {name!r} is loaded already; unload it first, or choose another name")
            if not name or name == NONE or not name.isprintable():
                raise InputError(f"{name!r} cannot be the name of a steering; accepted: printable text other than {NONE!r}")
            taken = {adapter.slot for adapter in self._loaded.values()} | set(self._draining) | set(self._reserved)
            free = next((slot for slot in range(1, self.config.max_steerings + 1) if slot not in taken), None)
            if free is None:
                waiting = ", ".join(
                    f"{adapter.name!r} ({self.requests(slot)} requests)" for slot, adapter in self._draining.items()
                )
                raise InputError(
                    f"all {self.config.max_steerings} slots are taken by {', '.join(self._loaded) or 'none'}"
                    + (f", and these are still in use: {waiting}; try again when their requests have ended" if waiting else "")
                    + ". Unload a steering, or start the engine with a larger max_steerings",
                    code="no-steering-slot",
                )
            adapter = Adapter.of(name, free, path, steering)
            if name == self.config.watch and not adapter.runs:
                raise InputError(
                    f"{name!r} cannot watch unsteered requests: its gate is {adapter.gate}, and none that decides again at each "
                    "token; accepted: a steering behind a running gate"
                )
            self.guard.check(adapter)
            if self.guard.limit is not None and adapter.dose is None:
                logger.warning("the dose of %r was not measured, so max_dose does not hold for it", name)
            self._reserved[free] = name
            return Reservation(adapter, steering)

    def add(self, reservation: Reservation) -> Adapter:
        """Let requests name a steering that all workers have loaded."""
        with self._lock:
            del self._reserved[reservation.adapter.slot]
            self._loaded[reservation.adapter.name] = reservation.adapter
            return reservation.adapter

    def abandon(self, reservation: Reservation) -> None:
        """Free the slot of a steering that the workers have refused."""
        with self._lock:
            del self._reserved[reservation.adapter.slot]

    def remove(self, name: str) -> Adapter:
        """Take no more requests for a steering; its slot drains.

        Raises:
            InputError: none of that name, or the engine's default.
        """
        with self._lock:
            if name not in self._loaded:
                raise InputError(
                    f"no steering {name!r} is loaded; loaded: {', '.join(self._loaded) or 'none'}", code="steering-not-loaded"
                )
            if name == self.default:
                raise InputError(
                    f"{name!r} is the default of requests that name no steering; start the engine with another default"
                )
            if name == self.config.watch:
                raise InputError(f"{name!r} watches unsteered requests; start the engine with another steering to watch them")
            adapter = self._loaded.pop(name)
            self._draining[adapter.slot] = adapter
            return adapter

    def drained(self) -> tuple[int, ...]:
        """Return removed slots that no request holds any more: unload them from the workers, then call :meth:`forget`."""
        with self._lock:
            return tuple(slot for slot in self._draining if not len(self._leases[slot]))

    def forget(self, slot: int) -> None:
        """Free a drained slot that the workers have emptied."""
        with self._lock:
            del self._draining[slot]

    def admit(self, extra_args: Mapping[str, object] | None, whole: bool = True) -> tuple[ResolvedOptions, Lease | None]:
        """Resolve a request that has arrived.

        Args:
            extra_args: of the request.
            whole: whether its prompt is known; where outputs become prompts, nothing watches it.

        Returns:
            What the workers are told, and the request's ``extra_args`` from now on: ours replaced by the resolved ones, everybody
            else's as they were; None where nothing is left.

        Raises:
            InputError: naming the key, the value and what is accepted.
        """
        with self._lock:
            options = RequestOptions.parse(extra_args, self._loaded)
            resolved = resolve(options, self.default, self._loaded, self.guard, self.config.watch if whole else None)
            self._note_dose(options, resolved)
            if resolved.record and self.config.record is None:
                raise InputError("record 1 cannot be used: this engine was started without `record`; accepted: 0")
            kept = {key: value for key, value in (extra_args or {}).items() if key not in KEYS}
            lease = Lease(kept | resolved.entries())
            if resolved.steers:
                self._leases[resolved.slot].add(lease)
            return resolved, lease if lease else None

    def _note_dose(self, options: RequestOptions, resolved: ResolvedOptions) -> None:
        """Count a request above the limit, and log the first of each steering: a client could fill the log."""
        adapter = self._loaded.get(options.steering or self.default or NONE)
        if adapter is None or not resolved.gate:
            return
        asked = adapter.strength if options.strength is None else options.strength
        if self.guard.exceeds(adapter.dose, asked):
            if not self.over_dose[adapter.name]:
                logger.warning(
                    "strength %g of %r is above max_dose %s; such requests are steered at %g and counted in /metrics",
                    asked,
                    adapter.name,
                    self.guard.limit,
                    resolved.strength,
                )
            self.over_dose[adapter.name] += 1

    def enter(self, resolved: ResolvedOptions) -> None:
        """Count a request under the name of its steering, once vLLM has accepted it; see ``entered``."""
        if not resolved.edits:
            return
        with self._lock:
            self.entered.update(adapter.name for adapter in self._loaded.values() if adapter.slot == resolved.slot)


_current: list[Adapters] = []


def current_adapters() -> Adapters:
    """Return the adapters of this process's engine; of the latest if it made several.

    Raises:
        InputError: no engine was started with the plugin.
    """
    if not _current:
        raise InputError(
            "no engine of this process runs with the trimtab plugin; start it with the arguments of "
            "trimtab.vllm_plugin.config.engine_arguments, or through open_llm"
        )
    return _current[-1]


def published() -> bool:
    """Tell whether an engine of this process runs with the plugin."""
    return bool(_current)


def publish(made: Adapters) -> None:
    """Make these the adapters of this process."""
    _current[:] = [made]


SALT_PREFIX = "trimtab:"
"""Of the cache salts that the plugin makes."""


class SamplingLike(Protocol):
    """The part of vLLM's SamplingParams that is read here."""

    extra_args: dict[str, object] | None


class RequestLike(Protocol):
    """The part of vLLM's Request that is read here."""

    request_id: str
    num_prompt_tokens: int
    sampling_params: SamplingLike | None


ExtraKeys = Callable[[RequestLike, int, int, int], tuple[tuple[object, ...] | None, int]]
"""vLLM's ``generate_block_hash_extra_keys(request, start, end, start_mm_idx)``."""


def cache_salt(own: str | None, resolved: ResolvedOptions) -> str | None:
    """Return a request's ``cache_salt``, made from the caller's own and from what steers it.

    Raises:
        InputError: a caller's salt that looks like one of these.
    """
    if own is not None and own.startswith(SALT_PREFIX):
        raise InputError(f"cache_salt {own!r} cannot be used; accepted: one that does not begin with {SALT_PREFIX!r}")
    if not resolved.edits:
        return own
    parts = [own, resolved.digest, resolved.strength, resolved.scope, resolved.gate]
    return SALT_PREFIX + hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def with_own_blocks(generate: ExtraKeys) -> ExtraKeys:
    """Wrap vLLM's function: a block that only one request computes in this way also gets that request's own key."""

    def generate_block_hash_extra_keys(
        request: RequestLike, start_token_idx: int, end_token_idx: int, start_mm_idx: int
    ) -> tuple[tuple[object, ...] | None, int]:
        keys, next_mm_idx = generate(request, start_token_idx, end_token_idx, start_mm_idx)
        resolved = ResolvedOptions.of(request.sampling_params.extra_args if request.sampling_params else None)
        alone = resolved.edits and resolved.scope != "all"
        if alone and end_token_idx > resolved.first_position(request.num_prompt_tokens):
            keys = (*(keys or ()), ("trimtab_request", request.request_id))
        return keys, next_mm_idx

    return generate_block_hash_extra_keys


ATTRIBUTE = "trimtab_adapters"
"""Attribute of an engine's input processor that holds its adapters."""


def follow_input_processor(processor: Any, config: PluginConfig) -> None:
    """Wrap ``process_inputs`` of this one input processor, through which every request passes, offline and served."""
    from vllm.utils.async_utils import make_async  # pyright: ignore[reportMissingImports]

    model_config = processor.vllm_config.model_config
    hf_config = model_config.hf_text_config

    def check(steering: Steering, name: str) -> None:
        check_weights(steering, model_config.model, hf_config.tie_word_embeddings, name, config.force_model)

    adapters = Adapters(config, check)
    for name, path in config.steerings.items():
        adapters.add(adapters.reserve(name, path, read_steering(path, name, config, hf_config)))
    setattr(processor, ATTRIBUTE, adapters)
    publish(adapters)
    original = processor.process_inputs

    def process_inputs(request_id: str, prompt: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        return _admit(adapters, original, request_id, prompt, params, args, kwargs)

    processor.process_inputs = process_inputs
    # the one made before calls the original
    processor.process_inputs_async = make_async(process_inputs, executor=processor.renderer._executor)
    _hold_slots()


def separate_blocks() -> None:
    """Give the cached blocks of steered requests keys of their own, in this process. Keys of other requests do not change."""
    from vllm.v1.core import block_pool, kv_cache_utils  # pyright: ignore[reportMissingImports]

    generate = kv_cache_utils.generate_block_hash_extra_keys
    if generate.__module__ != kv_cache_utils.__name__:
        return  # done already
    ours = with_own_blocks(generate)
    kv_cache_utils.generate_block_hash_extra_keys = ours
    block_pool.generate_block_hash_extra_keys = ours


def _admit(adapters: Adapters, original: Any, request_id: str, prompt: Any, params: Any, args: Any, kwargs: Any) -> Any:
    from vllm.exceptions import VLLMValidationError  # pyright: ignore[reportMissingImports]
    from vllm.sampling_params import SamplingParams  # pyright: ignore[reportMissingImports]

    if not isinstance(params, SamplingParams):
        return original(request_id, prompt, params, *args, **kwargs)
    try:
        resolved, lease = adapters.admit(params.extra_args, whole=not kwargs.get("resumable"))
        if resolved.steers and kwargs.get("resumable"):
            raise InputError(
                "a resumable session cannot be steered, because its outputs become prompts; "
                "accepted: whole prompts, or steering 'none'"
            )
        if resolved.entries() or set(params.extra_args or ()) & set(KEYS):
            params = params.clone()
            params.extra_args = lease
        if resolved.record and adapters.records_prompts:
            params.skip_reading_prefix_cache = True  # tokens that are not computed cannot be summed up
        request = original(request_id, prompt, params, *args, **kwargs)
        request.cache_salt = cache_salt(request.cache_salt, resolved)
        adapters.enter(resolved)
    except TrimtabError as refusal:
        raise VLLMValidationError(str(refusal), parameter="vllm_xargs") from refusal
    return request


def _hold_slots() -> None:
    """Keep a request's lease alive in the output processor's state of it, in every engine of this process that has the plugin.

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
