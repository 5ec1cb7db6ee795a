"""Hooks on the down projections, set after the weights are loaded and before a graph is compiled, which holds what it finds."""

from typing import cast

from torch import Tensor, nn

from trimtab.vllm_plugin.layer_table import LayerTable

NAME = "trimtab"
"""Under which a down projection holds its table."""


def hook(module: nn.Module, table: LayerTable) -> None:
    """Put a table on a down projection and let every forward pass through it."""
    module.add_module(NAME, table)
    if table.steers_input or table.reads or table.records:
        module.register_forward_pre_hook(_before)
    if table.steers_output:
        module.register_forward_hook(_after)


def _before(module: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
    table = cast("LayerTable", module.trimtab)
    return (table.edit_input(cast("Tensor", inputs[0])), *inputs[1:])


def _after(module: nn.Module, inputs: tuple[object, ...], output: object) -> object:  # noqa: ARG001
    table = cast("LayerTable", module.trimtab)
    if isinstance(output, tuple):  # vLLM's linear layers return their output and a bias that was not added
        return (table.edit_output(cast("Tensor", output[0])), *output[1:])
    return table.edit_output(cast("Tensor", output))
