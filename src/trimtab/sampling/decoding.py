"""What one step of decoding needs: the settings, how tokens are drawn, and the cache and the attention of one new token a row.

A sequence depends on its own seed and never on its neighbours in the batch. The cache's buffers are allocated once, instead of
copied at every token. With grouped-query attention transformers repeats keys and values whenever a padding mask is given, which
for one new token moves more bytes than the attention itself; the queries of a group read the same keys, so here they stand where
positions would.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask


class SamplingSettings(BaseModel):
    """``temperature`` 0 is greedy. ``batch_tokens`` bounds rows x (longest prompt + max_new_tokens) of one batch.

    ``batch_tokens`` is part of the stored plan: another batch size changes the last bits of the logits, so a resumed run keeps
    it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(default=8, ge=1, description="Traces per problem.")
    temperature: float = Field(default=0.7, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_new_tokens: int = Field(default=1024, ge=1)
    seed: int = 0
    stop: tuple[str, ...] = Field(default=(), description="A response also ends with the first token that contains one of these.")
    batch_tokens: int = Field(default=65_536, ge=1)

    def greedy(self) -> "SamplingSettings":
        """The same limits, one greedy trace per problem."""
        return self.model_copy(update={"n": 1, "temperature": 0.0, "top_p": 1.0})


NEAR_TIE = 1e-3
"""Two float32 logits so close that rounding may decide between them."""
_GOLDEN, _MIX_1, _MIX_2 = -7046029254386353131, -4658895280553007687, -7723592293110705685
_UNIT = 2.0**-53


def row_seed(run_seed: int, problem_id: str, sample: int) -> int:
    """A 63-bit seed for one sequence: a hash of (run, problem, sample)."""
    digest = hashlib.blake2b(f"{run_seed}/{problem_id}/{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def uniforms(seeds: Tensor, step: int) -> Tensor:
    """One float64 in [0, 1) per row: splitmix64 of (seed, step), a counter-based generator that needs no state.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    mixed = seeds + _wrap(_GOLDEN * (step + 1))
    mixed = (mixed ^ _shift_right(mixed, 30)) * _MIX_1
    mixed = (mixed ^ _shift_right(mixed, 27)) * _MIX_2
    mixed = mixed ^ _shift_right(mixed, 31)
    return _shift_right(mixed, 11).to(torch.float64) * _UNIT


def draw_tokens(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """Next token ids ``[row]`` from logits ``[row, vocabulary]`` by inverting the cumulative distribution at ``uniform``.

    With ``top_p < 1`` only the smallest set of most likely tokens whose probability reaches ``top_p`` remains.
    """
    if temperature == 0.0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits.double() / temperature, -1)
    order = None
    if top_p < 1.0:
        probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
    cumulative = probabilities.cumsum(-1)
    target = uniform.to(cumulative.device)[:, None] * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, target, right=True).clamp_(max=logits.shape[-1] - 1)
    return (chosen if order is None else order.gather(-1, chosen)).squeeze(-1)


def _wrap(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


def _shift_right(value: Tensor, bits: int) -> Tensor:
    return (value >> bits) & ((1 << (64 - bits)) - 1)


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

    @property
    def filled(self) -> tuple[Tensor, Tensor]:
        """Keys and values so far, views ``[row, head, position, head_dim]``."""
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Go on with these rows."""
        if self._buffers is None:
            return
        length = self.get_seq_length()
        keys, values = (buffer.new_empty(len(beam_idx), *buffer.shape[1:]) for buffer in self._buffers)
        for new, old in zip((keys, values), self._buffers, strict=True):  # what is not filled is neither read nor written
            new[:, :, :length] = old[:, :, :length].index_select(0, beam_idx.to(old.device))
        self._buffers = keys, values
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]


def sees_everything(config: PretrainedConfig, capacity: int) -> bool:
    """Whether every layer attends to all of this many columns: it has no window, or one that is at least as wide."""
    layers = DynamicCache(config=config).layers
    return bool(layers) and all(
        type(layer) is DynamicLayer or (type(layer) is DynamicSlidingWindowLayer and capacity <= layer.sliding_window)
        for layer in layers
    )


def new_cache(config: PretrainedConfig, capacity: int) -> DynamicCache:
    """A cache for one batch: preallocated where :func:`sees_everything`, the model's own dynamic cache otherwise."""
    cache = DynamicCache(config=config)
    if sees_everything(config, capacity):
        cache.layers[:] = [PreallocatedLayer(capacity) for _ in cache.layers]
    return cache


def keep_rows(cache: DynamicCache, rows: Tensor) -> None:
    """Drop every row of the batch but these, in recurrent and convolution states too."""
    with torch.inference_mode():
        cache.reorder_cache(rows)  # type: ignore[arg-type]


NAME = "trimtab_grouped_sdpa"


def grouped_sdpa(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: object
) -> tuple[Tensor, None]:
    """transformers' ``sdpa``, with a decode step computed by groups; every other step is handed on.

    Args:
        query: ``[batch, heads, seq, head_dim]``.
        key, value: ``[batch, key_value_heads, key, head_dim]``.
        attention_mask: ``[batch, 1, seq, key]`` or None.

    Returns:
        ``[batch, seq, heads, head_dim]`` and None.
    """
    batch, heads, length, width = query.shape
    groups = key.shape[1]
    if length > 1 or groups == heads or options.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)  # type: ignore[arg-type]
    stacked = query.reshape(batch, groups, heads // groups, width)
    scale: float | None = options.get("scaling")  # type: ignore[assignment]
    mixed = nn.functional.scaled_dot_product_attention(stacked, key, value, attention_mask, scale=scale)
    return mixed.reshape(batch, 1, heads, width), None


@contextmanager
def grouped_attention(model: PreTrainedModel) -> Iterator[None]:
    """Use :func:`grouped_sdpa` in a model that uses ``sdpa``; any other attention is left as it is."""
    if model.config._attn_implementation != "sdpa":
        yield
        return
    AttentionInterface.register(NAME, grouped_sdpa)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = "sdpa"
