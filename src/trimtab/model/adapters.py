"""Where an architecture keeps its FFN neurons: a table of families, and a structural search that has to prove itself."""

import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from trimtab.errors import ModelError
from trimtab.model.experts import experts_shape
from trimtab.model.probes import prove

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True, slots=True)
class FfnLayout:
    """The down projections of a model: their inputs are the neurons. Read and change them through :func:`hook_neurons`.

    Args:
        family: ``config.model_type``.
        base: the decoder stack without the language-model head; its output has ``last_hidden_state``.
        modules: one per layer, in layer order: the down projection, or with ``mixture`` the module that holds all experts.
        d_ff: width of a down projection's input; of all experts of a layer side by side.
        d_model: width of its output.
        found_by: ``adapter`` (the table below) or ``search`` (found by shape, then proved).
        n_experts: experts of a layer, 1 for a dense model.
        mixture: whether the model is a mixture of experts, see :mod:`trimtab.model.experts`.
    """

    family: str
    base: nn.Module
    modules: tuple[nn.Module, ...]
    d_ff: int
    d_model: int
    found_by: Literal["adapter", "search"]
    n_experts: int = 1
    mixture: bool = False

    def __repr__(self) -> str:
        experts = f", {self.n_experts} experts" if self.mixture else ""
        return f"FfnLayout({self.family}: {self.n_layers} layers x {self.d_ff:,} by {self.found_by}{experts})"

    @property
    def n_layers(self) -> int:
        return len(self.modules)

    @property
    def down(self) -> tuple[nn.Module, ...]:
        """The down projection of each layer of a dense model; raises ModelError for a mixture of experts, which has none."""
        if self.mixture:
            raise ModelError(
                f"model type {self.family!r} is a mixture of experts, on which this does not work; use a dense model"
            )
        return self.modules


@dataclass(frozen=True, slots=True)
class FamilyPaths:
    """Attribute paths: the decoder stack from the model, the blocks from the stack, the neurons' module from a block.

    ``ffn`` leads to the down projection, or with ``mixture`` to the module that holds all experts.
    """

    base: str
    blocks: str
    ffn: str
    mixture: bool = False


_LLAMA_LIKE = FamilyPaths(base="model", blocks="layers", ffn="mlp.down_proj")
_MIXTURE = FamilyPaths(base="model", blocks="layers", ffn="mlp.experts", mixture=True)
FAMILIES: Mapping[str, FamilyPaths] = MappingProxyType(
    {
        "qwen2": _LLAMA_LIKE,
        "qwen3": _LLAMA_LIKE,
        "llama": _LLAMA_LIKE,
        "mistral": _LLAMA_LIKE,
        "gemma2": _LLAMA_LIKE,
        "gemma3_text": _LLAMA_LIKE,
        "gemma3": FamilyPaths(base="model.language_model", blocks="layers", ffn="mlp.down_proj"),  # with its vision tower
        "phi3": _LLAMA_LIKE,
        "olmo2": _LLAMA_LIKE,
        "gpt2": FamilyPaths(base="transformer", blocks="h", ffn="mlp.c_proj"),
        "gpt_neox": FamilyPaths(base="gpt_neox", blocks="layers", ffn="mlp.dense_4h_to_h"),
        "qwen3_moe": _MIXTURE,
        "mixtral": _MIXTURE,
    }
)

_OPEN_IT = "Open the model with AutoModelForCausalLM"
_WIDTH_NAMES = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
_EXPERT_NAMES = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def find_ffn(model: "PreTrainedModel | PeftModel") -> FfnLayout:
    """Locate the decoder stack and the down projection of every layer.

    Families of :data:`FAMILIES` are read from the table. Any other decoder is searched by shape, and what is found counts only
    if :func:`trimtab.model.check.prove` shows that every hook fires and changes the logits (one short forward a layer).

    Raises:
        ModelError: not a causal language model, a mixture of experts that the table lacks or that has dense layers too, or no
            unambiguous down projection in some block.

    Example:
        >>> layout = find_ffn(model)
        >>> len(layout.down), layout.d_ff
        (28, 6144)
    """
    model = unwrapped(model)
    config = model.config.get_text_config()
    if model.config.is_encoder_decoder or model.get_output_embeddings() is None:
        raise ModelError(f"{type(model).__name__} is not a decoder with a language-model head; open it with AutoModelForCausalLM")
    paths = FAMILIES.get(model.config.model_type)
    if paths is not None:
        return _from_table(model, config, paths)
    _refuse_without_cache(model)
    _refuse_experts(config)
    layout = _search(model, config)
    prove(model, layout)
    return layout


def unwrapped(model: "PreTrainedModel | PeftModel") -> PreTrainedModel:
    """The transformers model in which the adapters of a PeftModel sit, which runs with them; any other model as it is.

    Raises:
        ModelError: neither of both, or adapters that put virtual tokens before the prompt.
    """
    if isinstance(model, PreTrainedModel):
        return model
    if "peft" in sys.modules:  # an object of a class that nobody imported does not exist
        from peft import PeftModel

        if isinstance(model, PeftModel):
            if model.active_peft_config.is_prompt_learning:
                raise ModelError("this PeftModel puts virtual tokens before the prompt, which cannot be steered; use LoRA or IA3")
            return unwrapped(model.get_base_model())  # type: ignore[arg-type]
    raise ModelError(
        f"expected a transformers PreTrainedModel or a PeftModel, got {type(model).__name__}; "
        "of torch.compile pass the model you compiled"
    )


def _refuse_without_cache(model: PreTrainedModel) -> None:
    """Without a key-value cache a decode step looks like a prompt of one token, and a scope cannot tell them apart."""
    names = {*inspect.signature(model.forward).parameters, *inspect.signature(model.get_decoder().forward).parameters}
    if "past_key_values" not in names:
        kept = [name for name in ("state", "cache_params", "mems", "past_buckets_states") if name in names]
        raise ModelError(
            f"model type {model.config.model_type!r} keeps no key-value cache"
            + (f" (its state is in {kept[0]!r})" if kept else "")
            + ", from which trimtab tells prompt and response apart; state-space and recurrent models are not supported"
        )


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
                f"model type {config.model_type!r} is a mixture of experts ({name} = {getattr(config, name)}) that trimtab does "
                f"not know; known: {', '.join(name for name, paths in FAMILIES.items() if paths.mixture)}, and dense models"
            )


def _from_table(model: PreTrainedModel, config: PretrainedConfig, paths: FamilyPaths) -> FfnLayout:
    family = model.config.model_type
    try:
        base = model.get_submodule(paths.base)
        ffn = tuple(block.get_submodule(paths.ffn) for block in base.get_submodule(paths.blocks).children())
    except AttributeError as error:
        raise ModelError(
            f"{type(model).__name__} says it is of family {family!r}, but {error}; "
            f"expected {paths.base}.{paths.blocks}.<layer>.{paths.ffn}. "
            + ("Models with dense layers among sparse ones cannot be steered" if paths.mixture else _OPEN_IT)
        ) from error
    if not paths.mixture:
        return FfnLayout(family, base, ffn, _ffn_width(config), config.hidden_size, "adapter")
    shapes = {experts_shape(experts) for experts in ffn}
    if len(shapes) != 1:
        raise ModelError(
            f"the layers of this {family!r} differ in their experts: {sorted(shapes)}; trimtab needs one shape for all"
        )
    shape = shapes.pop()
    d_ff = shape.n_experts * shape.d_expert
    return FfnLayout(family, base, ffn, d_ff, shape.d_model, "adapter", shape.n_experts, mixture=True)


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
    d_model = config.hidden_size
    stack, blocks = _repeated_blocks(model, config)
    d_ff = _width_of_modules(blocks, d_model) or _ffn_width(config)
    down: list[nn.Module] = []
    problems: list[str] = []
    for layer, block in enumerate(blocks):
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
    return FfnLayout(config.model_type, stack, tuple(down), d_ff, d_model, "search")


_MIXERS = re.compile("atten|attn|mixer|mamba|ssm|conv|delta|rwkv", re.IGNORECASE)


def _width_of_modules(blocks: nn.ModuleList, d_model: int) -> int | None:
    """The width of what maps d_model up and back beside the token mixers, if every block has one such width and it is the same.

    A configuration may name another width than the modules have (LFM2 rounds it), or a list of them.
    """
    widths = []
    for block in blocks:
        found = set()
        for owner in block.modules():
            if _MIXERS.search(type(owner).__name__):
                continue
            shapes = [shape for child in owner.children() if (shape := linear_shape(child))]
            if len(shapes) < 2:  # one square layer maps up and back by itself, as BERT's attention output does
                continue
            ups = {out for width, out in shapes if width == d_model}
            found |= {width for width, out in shapes if out == d_model and ups & {width, 2 * width}}
        widths.append(found)
    return widths[0].pop() if len(widths[0]) == 1 and all(found == widths[0] for found in widths) else None


def _repeated_blocks(model: PreTrainedModel, config: PretrainedConfig) -> tuple[nn.Module, nn.ModuleList]:
    """The module that runs the decoder's blocks, and the blocks. OPT never runs its own base model, only what is in it."""
    decoder = model.get_decoder()
    lists = {name: module for name, module in decoder.named_modules() if isinstance(module, nn.ModuleList)}
    longest = max((len(module) for module in lists.values()), default=0)
    names = [name for name, module in lists.items() if len(module) == longest]
    if len(names) != 1 or longest != config.num_hidden_layers:
        found = ", ".join(f"{name} of {len(module)}" for name, module in lists.items())
        raise ModelError(
            f"cannot tell the decoder blocks of model type {config.model_type!r}: looked for the one longest list of "
            f"{config.num_hidden_layers} blocks, found {found or 'no list of blocks'}. "
            f"Families known by name: {', '.join(FAMILIES)}. Add this one to trimtab.model.adapters.FAMILIES"
        )
    return decoder.get_submodule(names[0].rpartition(".")[0]), lists[names[0]]
