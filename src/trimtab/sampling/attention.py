"""Attention of one new token per row, without copying keys and values for every group of query heads.

With grouped-query attention transformers repeats keys and values whenever a padding mask is given, which for one new token moves
more bytes than the attention itself. The queries of a group read the same keys, so they can stand where positions would.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

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
