"""Drawing tokens so that a sequence depends on its own seed and never on its neighbours in the batch."""

import hashlib

import torch
from torch import Tensor

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
