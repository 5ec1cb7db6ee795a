"""A mixture of experts done the slow and obvious way: one token after the other, one expert after the other."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tiny_models import D_FF, N_EXPERTS

D_EXPERT = D_FF // N_EXPERTS


class Visit(NamedTuple):
    """One token in one expert; ``token`` counts over the rows of the batch one after the other."""

    token: int
    expert: int
    weight: Tensor
    activation: Tensor


def visits(experts: nn.Module, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Iterator[Visit]:
    """Every token in each of its experts, with the input of the down projection there, ``[d_expert]``."""
    for token in range(hidden.shape[0]):
        for slot in range(chosen.shape[1]):
            expert = int(chosen[token, slot])
            gate = experts.gate_up_proj[expert][:D_EXPERT] @ hidden[token]
            up = experts.gate_up_proj[expert][D_EXPERT:] @ hidden[token]
            yield Visit(token, expert, weights[token, slot], experts.act_fn(gate) * up)


def output(experts: nn.Module, args: tuple[Tensor, ...], edit: Callable[[Visit], Tensor]) -> Tensor:
    """The experts' output ``[token, d_model]`` when each activation becomes what ``edit`` makes of it."""
    total = torch.zeros_like(args[0])
    for visit in visits(experts, *args):
        total[visit.token] += visit.weight * (experts.down_proj[visit.expert] @ edit(visit))
    return total


def side_by_side(experts: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
    """Activations ``[token, d_ff]``, NaN where a token is not routed to an expert."""
    wide = torch.full((args[0].shape[0], D_FF), torch.nan)
    for visit in visits(experts, *args):
        wide[visit.token, visit.expert * D_EXPERT : (visit.expert + 1) * D_EXPERT] = visit.activation
    return wide
