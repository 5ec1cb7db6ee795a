"""The down projections of a model as vLLM built it."""

import re

from torch import nn

from trimtab.errors import ModelError
from trimtab.vllm_plugin.config import Side

_PATH = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.mlp\.(?:down_proj|c_proj|dense_4h_to_h|fc2|fc_out)$")
_OTHER_TOWERS = re.compile(r"visual|vision|audio|image|draft")


def down_projections(model: nn.Module, n_layers: int, side: Side) -> tuple[nn.Module, ...]:
    """The module whose input a layer's neurons are, for each layer in order.

    Raises:
        ModelError: a layer without one, where experts are fused or a rank holds a stub; or one that is wrapped by LoRA.
    """
    found: dict[int, nn.Module] = {}
    for name, module in model.named_modules():
        match = _PATH.search(name)
        if match is not None and not _OTHER_TOWERS.search(name):
            found[int(match[1])] = module
    missing = [layer for layer in range(n_layers) if layer not in found]
    if missing:
        kinds = sorted({type(module).__name__ for module in model.modules() if re.search("MoE|Missing", type(module).__name__)})
        raise ModelError(
            f"no down projection in layers {missing[:8]} of {type(model).__name__}"
            + (f", which holds {', '.join(kinds)}: fused experts have no neurons to hook, stubs no layer" if kinds else "")
            + f". Known: modules whose path matches {_PATH.pattern}. "
            "Fix: a dense model without pipeline parallelism, or export the steering as merged weights"
        )
    modules = tuple(found[layer] for layer in range(n_layers))
    if side == "input" and any(is_lora(module) for module in modules):
        raise ModelError(
            "the down projections are wrapped by LoRA, which calls the weights past any hook on their input. "
            "Fix: side 'output' (additive steerings only), or leave out --enable-lora"
        )
    return modules


def is_lora(module: nn.Module) -> bool:
    """Whether vLLM has put an adapter's wrapper around a module."""
    return type(module).__name__.endswith("WithLoRA")
