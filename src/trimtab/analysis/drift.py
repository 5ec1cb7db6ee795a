"""How far a steering carries the model away, on the same tokens: the residual stream layer by layer, and the next token."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trimtab.analysis.passes import (
    BATCH_TOKENS,
    Readout,
    batches,
    find_readout,
    response_mask,
    steered_pass,
    with_response,
)
from trimtab.errors import InputError
from trimtab.model import LanguageModel
from trimtab.model.attach import GateOverride
from trimtab.model.hook_points import decoder_blocks, residual
from trimtab.recording.tokens import right_padded
from trimtab.stats.estimates import mean_estimates
from trimtab.stats.values import Estimate
from trimtab.steering import Steering
from trimtab.traces import Trace


@dataclass(frozen=True, slots=True)
class LayerDrift:
    """The residual stream after one layer, with s of the steered and u of the unsteered pass.

    Args:
        cosine: ``s . u / (norm(s) norm(u))``.
        distance: ``norm(s - u) / norm(u)``.
        norm_ratio: ``norm(s) / norm(u)``.
    """

    layer: int
    cosine: Estimate
    distance: Estimate
    norm_ratio: Estimate


@dataclass(frozen=True, slots=True)
class Drift:
    """Means over traces of the mean over a trace's response tokens, with 95 % intervals over problems.

    Args:
        kl_unsteered_steered: ``KL(unsteered || steered) = sum_v p_u(v) log(p_u(v) / p_s(v))`` of the next token, in nats: what
            the steered model misses of what the bare one says.
        kl_steered_unsteered: the other direction: how unlikely what the steered model says is to the bare one.
        changed: share of tokens after which the most likely next token is another.
        n_traces, n_tokens, left_out: response tokens that were compared; traces without one.
        gate, strength, scope: of the steering as it was applied.
    """

    layers: tuple[LayerDrift, ...]
    kl_unsteered_steered: Estimate
    kl_steered_unsteered: Estimate
    changed: Estimate
    n_traces: int
    n_tokens: int
    left_out: int
    gate: GateOverride
    strength: float
    scope: str

    def to_json(self) -> dict[str, object]:
        """A dictionary of plain numbers, lists and dictionaries."""
        return asdict(self)


@torch.inference_mode()
def drift(
    model: LanguageModel,
    traces: Sequence[Trace],
    steering: Steering,
    *,
    gate: GateOverride = "on",
    batch_tokens: int = BATCH_TOKENS,
    seed: int = 0,
) -> Drift:
    """Run every trace beside itself, one row with the steering and one at strength 0, which is the bare model bit for bit.

    Nothing per token outlives its batch.

    Args:
        traces: token sequences that both passes are given, such as unsteered generations.
        gate: ``on`` steers every trace, ``auto`` those on whose prompt the gate fires.
        batch_tokens: of one pass, both rows and padding included.
        seed: of the bootstrap.

    Raises:
        InputError: ids outside the vocabulary, or a residual stream that is NaN or zero.
        NotEnoughDataError: no response token, or fewer than two problems.
        ModelError: the model cannot be steered, or its blocks or logits are not understood.
    """
    kept, left_out = with_response(traces)
    readout, blocks = find_readout(model), decoder_blocks(model.layout)
    values, problems = [], []
    for batch in batches(model, kept, max(1, batch_tokens // 2)):
        values.append(_compare(model, batch, steering, gate, blocks, readout))
        problems += [trace.problem_id for trace in batch]
    rows = np.concatenate(values)
    if not np.isfinite(rows).all():
        raise InputError("the residual stream or the logits are NaN, infinite or zero somewhere; use dtype float32 or bfloat16")
    estimates = mean_estimates(rows, problems, seed=seed)
    layers = [LayerDrift(layer, *estimates[3 * layer : 3 * layer + 3]) for layer in range(len(blocks))]
    return Drift(
        tuple(layers),
        *estimates[3 * len(blocks) :],
        n_traces=len(rows),
        n_tokens=sum(len(trace.response_ids) - 1 for trace in kept),
        left_out=left_out,
        gate=gate,
        strength=steering.strength,
        scope=steering.scope,
    )


def _compare(
    model: LanguageModel,
    batch: Sequence[Trace],
    steering: Steering,
    gate: GateOverride,
    blocks: Sequence[nn.Module],
    readout: Readout,
) -> NDArray[np.float64]:
    """``[trace, 3 * layer + 3]``: three means a layer, and those of the next token."""
    ids = right_padded(model, batch)
    mask = response_mask(batch, ids.shape[1]).to(model.device)
    pairs = _Pairs(mask, len(blocks))
    strength = torch.tensor([0.0, steering.strength]).repeat_interleave(len(batch))
    with steered_pass(model, [*batch, *batch], steering, gate, strength), ExitStack() as hooks:
        for layer, block in enumerate(blocks):
            hooks.callback(block.register_forward_hook(pairs.hook(layer)).remove)
        last = model.layout.base(input_ids=ids.repeat(2, 1).to(model.device), use_cache=False).last_hidden_state
    return np.concatenate([pairs.collect(), _next_token(readout, last, mask)], axis=1)


class _Pairs:
    """Compares the halves of each block's output as it comes, and keeps three means a trace."""

    def __init__(self, mask: Tensor, n_layers: int) -> None:
        self._mask = mask
        self._means: list[Tensor | None] = [None] * n_layers

    def hook(self, layer: int):
        def compare(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:  # noqa: ARG001
            unsteered, steered = residual(output).float().chunk(2)
            norms = [side.norm(dim=-1) for side in (unsteered, steered, steered - unsteered)]
            cosine = (unsteered * steered).sum(-1) / (norms[0] * norms[1])
            mask = self._mask.to(cosine.device)
            # the last call counts: a gate that reads prompts runs the stack once before
            self._means[layer] = torch.stack(
                [_means(one, mask) for one in (cosine, norms[2] / norms[0], norms[1] / norms[0])], dim=1
            )

        return compare

    def collect(self) -> NDArray[np.float64]:
        """``[trace, 3 * layer]``."""
        return torch.cat([one.double().cpu() for one in self._means if one is not None], dim=1).numpy()


def _means(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the masked positions of each row; what stands at padding may be anything, so it is taken out."""
    return values.where(mask, 0.0).sum(1) / mask.sum(1)


def _next_token(readout: Readout, last: Tensor, mask: Tensor) -> NDArray[np.float64]:
    """``[trace, 3]``: both divergences and the share of changed tokens."""
    row, position = mask.to(last.device).nonzero(as_tuple=True)
    unsteered, steered = last.chunk(2)
    sums = torch.zeros(len(mask), 3, dtype=torch.float64)
    for chunk in readout.chunks(len(row)):
        where = row[chunk], position[chunk]
        u, s = (torch.log_softmax(readout.logits(side[where]), dim=-1) for side in (unsteered, steered))
        columns = ((u.exp() * (u - s)).sum(-1), (s.exp() * (s - u)).sum(-1), (u.argmax(-1) != s.argmax(-1)).float())
        sums.index_add_(0, row[chunk].cpu(), torch.stack(columns, dim=1).double().cpu())
    return (sums / mask.sum(1, keepdim=True).cpu()).numpy()
