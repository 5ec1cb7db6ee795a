"""Proof at the start, on the graphs that will serve: every hook steers, and slot 0 does not."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trimtab.errors import ModelError
from trimtab.vllm_plugin.engine import EngineSteering
from trimtab.vllm_plugin.layer_table import LayerTable

TOKENS = 8
_SHIFT = 1e3


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What was found.

    Args:
        layers: those whose hook changed the output.
        identical: whether slot 0 left it bit for bit as it was.
        counted: whether each layer counted the tokens that it steered.
    """

    layers: tuple[int, ...]
    identical: bool
    counted: bool


def self_test(steering: EngineSteering, forward: Callable[[], Tensor]) -> SelfTest:
    """Run forwards of dummy tokens with a large shift in each layer by itself.

    Args:
        steering: no request runs yet.
        forward: the model on :data:`TOKENS` dummy tokens, its hidden states.

    Raises:
        ModelError: a layer whose shift changes nothing (a graph compiled without it, a kernel that passes it by), or an unsteered
            forward that differs.
    """
    steering.testing = True
    try:
        return _self_test(steering, forward)
    finally:
        steering.testing = False
        steering.wipe()


def _self_test(steering: EngineSteering, forward: Callable[[], Tensor]) -> SelfTest:
    tables = steering.tables
    layers = [layer for layer, table in tables.layers.items() if table.steers_input or table.steers_output]
    plain = _run(steering, forward, 0)
    identical = torch.equal(plain, _run(steering, forward, 0))
    before = {layer: int(tables.layers[layer].fired) for layer in layers}
    moved = [
        layer
        for layer in layers
        if not torch.equal(plain, _shifted(tables.layers[layer], tables.test_row, partial(_run, steering, forward)))
    ]
    counted = all(int(tables.layers[layer].fired) - before[layer] == TOKENS * len(layers) for layer in layers)
    if set(layers) - set(moved):
        raise ModelError(
            f"self-test: a shift of {_SHIFT:g} in layers {sorted(set(layers) - set(moved))} does not change the output, so "
            "steering would silently do nothing there. Fix: delete vLLM's compile cache (VLLM_CACHE_ROOT) or set "
            "VLLM_DISABLE_COMPILE_CACHE=1; if it stays, the model passes its down projections by: serve it without steering"
        )
    if not identical:
        raise ModelError(
            "self-test: the same tokens give other bits twice, so an unsteered request cannot be compared; "
            "switch self_test off in the plugin's configuration if the engine is known to be nondeterministic"
        )
    return SelfTest(tuple(moved), identical, counted)


def _run(steering: EngineSteering, forward: Callable[[], Tensor], row: int) -> Tensor:
    step = steering.step
    step.rows[:TOKENS] = row
    step.weight[:TOKENS] = 1.0
    step.steered.fill_(TOKENS if row else 0)
    return forward().detach()[:TOKENS].clone()


def _shifted(table: LayerTable, row: int, run: Callable[[int], Tensor]) -> Tensor:
    entry = table.output_shift if table.steers_output else table.shift
    entry[row] = _SHIFT
    try:
        return run(row)
    finally:
        entry[row] = 0.0
