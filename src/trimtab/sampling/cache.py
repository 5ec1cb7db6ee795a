"""A key-value cache whose buffers are allocated once, instead of copied at every token."""

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """A dynamic layer with room for ``capacity`` positions; ``keys`` and ``values`` are views of the filled part."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Append states in place and return all of them."""
        if self._buffers is None:
            self.lazy_initialization(key_states, value_states)
            rows, heads, _, _ = key_states.shape
            self._buffers = (
                key_states.new_empty(rows, heads, self.capacity, key_states.shape[-1]),
                value_states.new_empty(rows, heads, self.capacity, value_states.shape[-1]),
            )
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        keys, values = self._buffers
        keys[:, :, start:end] = key_states
        values[:, :, start:end] = value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Go on with these rows."""
        if self._buffers is None:
            return
        length = self.get_seq_length()
        keys, values = (buffer.index_select(0, beam_idx.to(buffer.device)) for buffer in self._buffers)
        self._buffers = keys, values
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]


def new_cache(config: PretrainedConfig, capacity: int) -> DynamicCache:
    """A cache for one batch: preallocated where every layer attends to everything, the model's own dynamic cache otherwise."""
    cache = DynamicCache(config=config)
    if cache.layers and all(type(layer) is DynamicLayer for layer in cache.layers):
        cache.layers[:] = [PreallocatedLayer(capacity) for _ in cache.layers]
    return cache


def keep_rows(cache: DynamicCache, rows: Tensor) -> None:
    """Drop every row of the batch but these, in recurrent and convolution states too."""
    with torch.inference_mode():
        cache.reorder_cache(rows)  # type: ignore[arg-type]
