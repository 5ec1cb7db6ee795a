"""Where an architecture keeps its FFN neurons: a table of families, and a structural search that has to prove itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from trimtab.errors import ModelError
from trimtab.model.probes import prove


@dataclass(frozen=True, slots=True)
class FfnLayout:
    """The down projections of a model: their inputs are the neurons.

    Args:
        family: ``config.model_type``.
        base: the decoder stack without the language-model head; its output has ``last_hidden_state``.
        down: one down projection per layer, in layer order.
        d_ff: width of a down projection's input.
        d_model: width of its output.
        found_by: ``adapter`` (the table below) or ``search`` (found by shape, then proved).
    """

    family: str
    base: nn.Module
    down: tuple[nn.Module, ...]
    d_ff: int
    d_model: int
    found_by: Literal["adapter", "search"]


@dataclass(frozen=True, slots=True)
class FamilyPaths:
    """Attribute paths: the decoder stack from the model, the blocks from the stack, the down projection from a block."""

    base: str
    blocks: str
    down: str


_LLAMA_LIKE = FamilyPaths(base="model", blocks="layers", down="mlp.down_proj")
FAMILIES: Mapping[str, FamilyPaths] = MappingProxyType(
    {"qwen2": _LLAMA_LIKE, "qwen3": _LLAMA_LIKE, "llama": _LLAMA_LIKE, "mistral": _LLAMA_LIKE}
)

_WIDTH_NAMES = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
_EXPERT_NAMES = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def find_ffn(model: PreTrainedModel) -> FfnLayout:
    """Locate the decoder stack and the down projection of every layer.

    Families of :data:`FAMILIES` are read from the table. Any other decoder is searched by shape, and what is found counts only
    if :func:`trimtab.model.doctor.prove` shows that every hook fires and changes the logits (one short forward a layer).

    Raises:
        ModelError: not a causal language model, a mixture of experts, or no unambiguous down projection in some block.

    Example:
        >>> layout = find_ffn(model)
        >>> len(layout.down), layout.d_ff
        (28, 6144)
    """
    if not isinstance(model, PreTrainedModel):
        raise ModelError(
            f"expected a transformers PreTrainedModel, got {type(model).__name__}; "
            "unwrap it first (PEFT: model.merge_and_unload(), torch.compile: pass the model you compiled)"
        )
    config = model.config.get_text_config()
    if model.config.is_encoder_decoder or model.get_output_embeddings() is None:
        raise ModelError(f"{type(model).__name__} is not a decoder with a language-model head; open it with AutoModelForCausalLM")
    _refuse_experts(config)
    paths = FAMILIES.get(model.config.model_type)
    if paths is not None:
        return _from_table(model, config, paths)
    layout = _search(model, config)
    prove(model, layout)
    return layout


def linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """``(in, out)`` of a linear layer, None for any other module."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return module.weight.shape[0], module.weight.shape[1]
    # quantised linears of several libraries share no base class, only these two attributes
    width, out = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return (width, out) if isinstance(width, int) and isinstance(out, int) else None


def _refuse_experts(config: PretrainedConfig) -> None:
    for name in _EXPERT_NAMES:
        if getattr(config, name, None):
            raise ModelError(
                f"model type {config.model_type!r} is a mixture of experts ({name} = {getattr(config, name)}), whose neurons "
                "live inside the experts; trimtab steers dense FFN blocks only so far. Use a dense model"
            )


def _from_table(model: PreTrainedModel, config: PretrainedConfig, paths: FamilyPaths) -> FfnLayout:
    try:
        base = model.get_submodule(paths.base)
        down = tuple(block.get_submodule(paths.down) for block in base.get_submodule(paths.blocks).children())
    except AttributeError as error:
        raise ModelError(
            f"{type(model).__name__} says it is of family {config.model_type!r}, but {error}; "
            f"expected {paths.base}.{paths.blocks}.<layer>.{paths.down}. Open the model with AutoModelForCausalLM"
        ) from error
    return FfnLayout(config.model_type, base, down, _ffn_width(config), config.hidden_size, "adapter")


def _ffn_width(config: PretrainedConfig) -> int:
    given = {name: value for name in _WIDTH_NAMES if (value := getattr(config, name, None)) is not None}
    if not given:
        return 4 * config.hidden_size  # what GPT-2, GPT-J and Bloom define for a config that names no width
    name, width = next(iter(given.items()))
    if not isinstance(width, int):
        raise ModelError(
            f"config.{name} of model type {config.model_type!r} is {width!r}; "
            "trimtab needs one FFN width for all layers, so this architecture cannot be steered"
        )
    return width


def _search(model: PreTrainedModel, config: PretrainedConfig) -> FfnLayout:
    d_ff, d_model = _ffn_width(config), config.hidden_size
    down: list[nn.Module] = []
    problems: list[str] = []
    for layer, block in enumerate(_repeated_blocks(model, config)):
        linears = {name: (module, shape) for name, module in block.named_modules() if (shape := linear_shape(module))}
        hits = [name for name, (_, shape) in linears.items() if shape == (d_ff, d_model)]
        if len(hits) == 1:
            down.append(linears[hits[0]][0])
            continue
        listed = ", ".join(f"{name} {shape[0]}->{shape[1]}" for name, (_, shape) in linears.items())
        problems.append(f"block {layer}: {len(hits)} matches ({', '.join(hits) or 'none'}) among [{listed or 'no linear layer'}]")
    if problems:
        raise ModelError(
            f"no unambiguous FFN in model type {config.model_type!r}: looked for the one linear layer {d_ff}->{d_model} "
            f"(intermediate size to hidden size) in each block, but\n  " + "\n  ".join(problems) + "\n"
            f"Families known by name: {', '.join(FAMILIES)}. Add this one to trimtab.model.adapters.FAMILIES"
        )
    return FfnLayout(config.model_type, model.base_model, tuple(down), d_ff, d_model, "search")


def _repeated_blocks(model: PreTrainedModel, config: PretrainedConfig) -> nn.ModuleList:
    lists = {name: module for name, module in model.base_model.named_modules() if isinstance(module, nn.ModuleList)}
    longest = max((len(module) for module in lists.values()), default=0)
    names = [name for name, module in lists.items() if len(module) == longest]
    if len(names) != 1 or longest != config.num_hidden_layers:
        found = ", ".join(f"{name} of {len(module)}" for name, module in lists.items())
        raise ModelError(
            f"cannot tell the decoder blocks of model type {config.model_type!r}: looked for the one longest list of "
            f"{config.num_hidden_layers} blocks, found {found or 'no list of blocks'}. "
            f"Families known by name: {', '.join(FAMILIES)}. Add this one to trimtab.model.adapters.FAMILIES"
        )
    return lists[names[0]]
