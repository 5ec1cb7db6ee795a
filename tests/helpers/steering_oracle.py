"""Steering done the slow and obvious way: one Python loop over rows, positions and neurons, without a cache."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

import expert_oracle
from trimtab.gate import ALWAYS, Gate
from trimtab.model import find_ffn, identify
from trimtab.steering import PositionScope, Steering

LAYERS = np.array([0, 1, 1, 2, 2, 2])
INDEX = np.array([5, 0, 47, 3, 11, 30])


def steering_for(
    model: PreTrainedModel,
    *,
    gain: Sequence[float] = (0.0, 0.5, -1.0, 0.0, 2.0, 0.0),
    strength: float = 1.5,
    scope: PositionScope = "generated",
    gate: Gate = ALWAYS,
) -> Steering:
    """Six neurons over three layers, strong enough to turn greedy tokens."""
    shift = np.array([2.0, -3.0, 1.0, 4.0, -2.0, 3.0], np.float32)
    return Steering(LAYERS, INDEX, np.array(gain, np.float32), shift, strength, scope, gate, identify(model, "tiny", None))


def logistic_gate(threshold: float = 0.5, mode: str = "hard", bias: float = 0.0) -> Gate:
    """Reads neurons of all three layers, some of them steered ones."""
    weight = np.array([0.8, -1.1, 0.6, 0.9, -0.7], np.float32)
    return Gate("logistic", mode, np.array([0, 1, 1, 2, 2]), np.array([5, 9, 0, 30, 40]), weight, bias, threshold)


@contextmanager
def naive_steering(model: PreTrainedModel, steering: Steering, coefficient: Sequence[float], steered: Tensor) -> Iterator[None]:
    """``coefficient`` per row; ``steered`` is bool ``[batch, seq]`` over the positions of a forward without a cache."""

    def hook_of(layer: int):
        def hook(_, args):
            before, after = args[0], args[0].clone()
            for row in range(before.shape[0]):
                for position in range(before.shape[1]):
                    for k in range(len(steering)):
                        if steering.layer[k] == layer and steered[row, position]:
                            a = before[row, position, steering.index[k]].item()
                            change = coefficient[row] * (float(steering.gain[k]) * a + float(steering.shift[k]))
                            after[row, position, steering.index[k]] = a + change
            return (after,)

        return hook

    def experts_hook_of(layer: int):
        def edited(visit: expert_oracle.Visit) -> Tensor:
            row, position = divmod(visit.token, steered.shape[1])
            after = visit.activation.clone()
            for k in range(len(steering)):
                expert, within = divmod(int(steering.index[k]), expert_oracle.D_EXPERT)
                if (steering.layer[k], expert) == (layer, visit.expert) and steered[row, position]:
                    a = visit.activation[within].item()
                    after[within] = a + coefficient[row] * (float(steering.gain[k]) * a + float(steering.shift[k]))
            return after

        return lambda experts, args, _: expert_oracle.output(experts, args, edited)

    layout = find_ffn(model)
    if layout.mixture:
        handles = [module.register_forward_hook(experts_hook_of(layer)) for layer, module in enumerate(layout.modules)]
    else:
        handles = [down.register_forward_pre_hook(hook_of(layer)) for layer, down in enumerate(layout.down)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def every_activation(model: PreTrainedModel, ids: Sequence[int]) -> NDArray[np.float64]:
    """Every activation of one sequence run alone, ``[token, layer, d_ff]``; NaN in experts that a token is not routed to."""
    seen: list[Tensor] = []
    layout = find_ffn(model)

    def keep(module, args):
        seen.append(expert_oracle.side_by_side(module, args) if layout.mixture else args[0].flatten(0, -2))

    handles = [module.register_forward_pre_hook(keep) for module in layout.modules]
    try:
        whole_logits(model, torch.tensor([list(ids)]))
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(seen, 1).double().numpy()


def naive_probability(model: PreTrainedModel, gate: Gate, prompt: Sequence[int]) -> float:
    """p(fail) of one prompt alone, without padding, from recorded activations and the gate's own numpy formula."""
    last = every_activation(model, prompt)[-1]
    features = np.nan_to_num(last[gate.layer, gate.index].astype(np.float32))  # no activation adds nothing
    return float(gate.probability(features[None])[0])


def prompts(lengths: Sequence[int], side: str = "left", extra: int = 0, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random ids and mask ``[batch, width]``, each row of its own length plus ``extra`` more tokens, padded on one side."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths) + extra
    ids, mask = torch.zeros(len(lengths), width, dtype=torch.int64), torch.zeros(len(lengths), width, dtype=torch.int64)
    for row, length in enumerate(lengths):
        total = length + extra
        columns = slice(width - total, width) if side == "left" else slice(0, total)
        ids[row, columns] = torch.randint(1, 97, (total,), generator=generator)
        mask[row, columns] = 1
    return ids, mask


def _position_ids(mask: Tensor) -> Tensor:
    return (mask.cumsum(1) - 1).clamp(min=0)


@torch.no_grad()
def whole_logits(model: PreTrainedModel, ids: Tensor, mask: Tensor | None = None, use_cache: bool = False) -> Tensor:
    """Logits of one forward over everything."""
    mask = torch.ones_like(ids) if mask is None else mask
    return model(input_ids=ids, attention_mask=mask, position_ids=_position_ids(mask), use_cache=use_cache).logits


@torch.no_grad()
def stepwise_logits(model: PreTrainedModel, ids: Tensor, mask: Tensor, prompt_width: int) -> Tensor:
    """The same logits from a prefill of the first columns and one cached forward per further column."""
    cache, pieces = DynamicCache(), []
    positions = _position_ids(mask)
    spans = [slice(0, prompt_width), *(slice(column, column + 1) for column in range(prompt_width, ids.shape[1]))]
    for span in spans:
        output = model(
            input_ids=ids[:, span],
            attention_mask=mask[:, : span.stop],
            position_ids=positions[:, span],
            past_key_values=cache,
            use_cache=True,
        )
        pieces.append(output.logits)
    return torch.cat(pieces, 1)
