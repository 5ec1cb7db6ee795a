"""Where an architecture keeps its FFN neurons: a table of families, and a structural search that has to prove itself."""

import inspect
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from trimtab.errors import ModelError
from trimtab.model.experts import experts_shape, holds_experts
from trimtab.model.probes import prove

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True, slots=True)
class LayerFfn:
    """The neurons of one layer.

    Args:
        module: the down projection, or the module that holds all experts; None in a layer without neurons, as the mixers of
            Nemotron-H are.
        width: of the down projection's input; of all experts side by side; 0 without neurons.
        n_experts: of a layer of experts, see :mod:`trimtab.model.experts`; 0 for a dense one.
    """

    module: nn.Module | None
    width: int
    n_experts: int = 0

    @property
    def sparse(self) -> bool:
        """Whether experts make the neurons."""
        return self.n_experts > 0


@dataclass(frozen=True, slots=True)
class FfnLayout:
    """The down projections of a model: their inputs are the neurons. Read and change them through :func:`hook_neurons`.

    Args:
        family: ``config.model_type``.
        base: the decoder stack without the language-model head; its output has ``last_hidden_state``.
        layers: the neurons of each layer, in order.
        d_model: width of a down projection's output.
        found_by: ``adapter`` (the table below) or ``search`` (found by shape, then proved).
        unseen: further FFNs, such as shared experts, whose neurons are neither recorded nor steered; in words.

    Raises:
        ModelError: no layer has neurons, or layers of experts differ in their sizes or are narrower than a dense one.
    """

    family: str
    base: nn.Module
    layers: tuple[LayerFfn, ...]
    d_model: int
    found_by: Literal["adapter", "search"]
    unseen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not any(layer.width for layer in self.layers):
            raise ModelError(f"no layer of this {self.family!r} has neurons")
        sparse = {(layer.n_experts, layer.width) for layer in self.layers if layer.sparse}
        widest = max(layer.width for layer in self.layers if not layer.sparse) if len(sparse) and not self.sparse_only else 0
        if len(sparse) > 1 or any(width < widest for _, width in sparse):
            sizes = ", ".join(f"{n} experts of {width // n}" for n, width in sorted(sparse))
            raise ModelError(
                f"the layers of this {self.family!r} differ in their experts: {sizes}, dense layers up to {widest} wide; trimtab "
                "needs one size of experts, which side by side are at least as wide as a dense layer"
            )

    def __repr__(self) -> str:
        experts = f", {self.n_experts} experts" if self.mixture else ""
        return f"FfnLayout({self.family}: {self.n_layers} layers x {self.d_ff:,} by {self.found_by}{experts})"

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def d_ff(self) -> int:
        """Neurons of the widest layer; of all experts of a layer side by side."""
        return max(layer.width for layer in self.layers)

    @property
    def widths(self) -> tuple[int, ...] | None:
        """Neurons of each layer, of which index 0 up to its width exist; None where all are d_ff wide."""
        widths = tuple(layer.width for layer in self.layers)
        return None if len(set(widths)) == 1 else widths

    @property
    def n_experts(self) -> int:
        """Experts of a layer that has some, 1 for a dense model."""
        return max(1, *(layer.n_experts for layer in self.layers))

    @property
    def mixture(self) -> bool:
        """Whether some layer is of experts."""
        return any(layer.sparse for layer in self.layers)

    @property
    def sparse_only(self) -> bool:
        """Whether every layer is of experts."""
        return all(layer.sparse for layer in self.layers)

    @property
    def modules(self) -> tuple[nn.Module | None, ...]:
        """The module that each layer's neurons are hooked at, None in a layer without."""
        return tuple(layer.module for layer in self.layers)

    @property
    def places(self) -> Iterator[tuple[int, LayerFfn, nn.Module]]:
        """The layers that have neurons: number, neurons and module."""
        for number, layer in enumerate(self.layers):
            if layer.module is not None:
                yield number, layer, layer.module

    @property
    def down(self) -> tuple[nn.Module, ...]:
        """The down projection of each layer of a dense model whose layers are alike; raises ModelError for any other."""
        if self.mixture:
            raise ModelError(
                f"model type {self.family!r} is a mixture of experts, on which this does not work; use a dense model"
            )
        if self.widths is not None:
            raise ModelError(
                f"the layers of this {self.family!r} have {sorted(set(self.widths))} neurons, and this works only where all have "
                "the same number; use another model"
            )
        return tuple(module for _, _, module in self.places)


@dataclass(frozen=True, slots=True)
class FamilyPaths:
    """Attribute paths: the decoder stack from the model, the blocks from the stack, the neurons' module from a block.

    ``ffn`` leads to the down projection. In a mixture each block is searched for its experts, or for the FFN of a dense one.
    """

    base: str
    blocks: str
    ffn: str
    mixture: bool = False


_LLAMA_LIKE = FamilyPaths(base="model", blocks="layers", ffn="mlp.down_proj")
_MIXTURE = FamilyPaths(base="model", blocks="layers", ffn="mlp", mixture=True)
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
        ModelError: not a causal language model, experts of an unknown form, or no unambiguous down projection in some block.

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


CACHES = ("cache", "past_key_values")
"""What forward calls its cache: transformers renamed it in 5.24, and takes both."""


def _refuse_without_cache(model: PreTrainedModel) -> None:
    """Without a key-value cache a decode step looks like a prompt of one token, and a scope cannot tell them apart."""
    names = {*inspect.signature(model.forward).parameters, *inspect.signature(model.get_decoder().forward).parameters}
    if names.isdisjoint(CACHES):
        kept = [name for name in ("state", "cache_params", "mems", "past_buckets_states") if name in names]
        raise ModelError(
            f"model type {model.config.model_type!r} keeps no key-value cache"
            + (f" (its state is in {kept[0]!r})" if kept else "")
            + ", from which trimtab tells prompt and response apart; state-space and recurrent models are not supported",
            code="no-key-value-cache",
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


def _from_table(model: PreTrainedModel, config: PretrainedConfig, paths: FamilyPaths) -> FfnLayout:
    family = model.config.model_type
    try:
        base = model.get_submodule(paths.base)
        blocks = tuple(base.get_submodule(paths.blocks).children())
        if paths.mixture:
            return _layout(family, base, blocks, config, "adapter")
        ffn = tuple(block.get_submodule(paths.ffn) for block in blocks)
    except AttributeError as error:
        raise ModelError(
            f"{type(model).__name__} says it is of family {family!r}, but {error}; "
            f"expected {paths.base}.{paths.blocks}.<layer>.{paths.ffn}. {_OPEN_IT}"
        ) from error
    layers = tuple(LayerFfn(module, _ffn_width(config)) for module in ffn)
    return FfnLayout(family, base, layers, config.hidden_size, "adapter")


def _ffn_width(config: PretrainedConfig) -> int:
    given = {name: value for name in _WIDTH_NAMES if (value := getattr(config, name, None)) is not None}
    if not given:
        return 4 * config.hidden_size  # what GPT-2, GPT-J and Bloom define for a config that names no width
    name, width = next(iter(given.items()))
    if not isinstance(width, int):
        raise ModelError(
            f"config.{name} of model type {config.model_type!r} is {width!r}, and a block has no one FFN of any of these widths, "
            "so this architecture cannot be steered"
        )
    return width


class _Found(NamedTuple):
    """What a block holds: its neurons, and by their paths in it the FFNs that are left out."""

    ffn: LayerFfn
    others: tuple[str, ...] = ()


def _search(model: PreTrainedModel, config: PretrainedConfig) -> FfnLayout:
    stack, blocks = _repeated_blocks(model, config)
    return _layout(config.model_type, stack, tuple(blocks), config, "search")


def _layout(
    family: str, base: nn.Module, blocks: Sequence[nn.Module], config: PretrainedConfig, found_by: Literal["adapter", "search"]
) -> FfnLayout:
    found: list[_Found] = []
    problems: list[str] = []
    for layer, block in enumerate(blocks):
        try:
            found.append(_ffn_of(block, config, config.hidden_size))
        except _NoFfnError as problem:
            problems.append(f"block {layer}: {problem}")
    if problems:
        width = f"{_ffn_width(config)}->{config.hidden_size}"
        raise ModelError(
            f"no unambiguous FFN in model type {config.model_type!r}: looked for experts, for the one pair of linear layers up "
            f"and down beside the attention, or for the one linear layer {width} (intermediate size to hidden size) in each "
            "block, but\n  " + "\n  ".join(problems) + "\n"
            f"Families known by name: {', '.join(FAMILIES)}. Add this one to trimtab.model.adapters.FAMILIES",
            code="unknown-architecture",
        )
    paths = Counter(path for block in found for path in block.others)
    others = tuple(f"{path} of {count} layers" for path, count in paths.items())
    return FfnLayout(family, base, tuple(block.ffn for block in found), config.hidden_size, found_by, others)


class _NoFfnError(Exception):
    """Why a block has no unambiguous FFN."""


_MIXERS = re.compile("(?i:atten|attn|mixer|mamba|conv|delta|rwkv|lightning|kda)|SSM|Ssm(?!a)")


def _ffn_of(block: nn.Module, config: PretrainedConfig, d_model: int) -> _Found:
    """The neurons of one block: of its experts, else of the one FFN beside its token mixers, else none.

    Widths are those of the modules, since a configuration may name another (LFM2 rounds it) or several.

    Raises:
        _NoFfnError: several candidates or none.
        ModelError: experts of an unknown form.
    """
    modules = _outside_mixers(block)
    pairs = _pairs(modules, d_model)
    held = {path: module for path, module in modules.items() if holds_experts(module)}
    experts = {path: module for path, module in held.items() if "shared" not in path}
    if len(experts) > 1:
        raise _NoFfnError(f"{len(experts)} modules of experts ({', '.join(experts)})")
    if experts:
        path, module = experts.popitem()
        shape = experts_shape(module)
        others = sorted({*pairs, *held} - {path, ""})
        return _Found(LayerFfn(module, shape.n_experts * shape.d_expert, shape.n_experts), tuple(others))
    named = {path: pair for path, pair in pairs.items() if pair.width in _named_widths(config)}
    chosen = pairs if len(pairs) == 1 else named
    if len(chosen) == 1:
        path, pair = next(iter(chosen.items()))
        _refuse_unknown_experts(modules, config, path)
        return _Found(LayerFfn(pair.down, pair.width))
    if not pairs and not _matrices(modules):
        return _Found(LayerFfn(None, 0))
    linears = {name: shape for name, module in block.named_modules() if (shape := linear_shape(module))}
    width = _ffn_width(config)
    hits = [name for name, shape in linears.items() if shape == (width, d_model)]
    if len(hits) != 1:
        listed = ", ".join(f"{name} {shape[0]}->{shape[1]}" for name, shape in linears.items())
        raise _NoFfnError(f"{len(hits)} matches ({', '.join(hits) or 'none'}) among [{listed or 'no linear layer'}]")
    _refuse_unknown_experts(modules, config, hits[0].rpartition(".")[0])
    return _Found(LayerFfn(block.get_submodule(hits[0]), width))


class _Pair(NamedTuple):
    """A down projection beside what projects up."""

    down: nn.Module
    width: int


def _pairs(modules: Mapping[str, nn.Module], d_model: int) -> dict[str, _Pair]:
    """By its path, every module whose own children map d_model up and back by one down projection."""
    found = {}
    for path, owner in modules.items():
        linears = [(child, shape) for child in owner.children() if (shape := linear_shape(child))]
        if len(linears) < 2:  # one square layer maps up and back by itself, as BERT's attention output does
            continue
        ups = {out for _, (width, out) in linears if width == d_model}
        down = [(child, width) for child, (width, out) in linears if out == d_model and ups & {width, 2 * width}]
        if len(down) == 1:
            found[path] = _Pair(*down[0])
    return found


def _outside_mixers(block: nn.Module) -> dict[str, nn.Module]:
    """The modules of a block by their paths, without those that mix tokens and what is in them."""
    found: dict[str, nn.Module] = {}
    for path, module in block.named_modules():
        inside = path and path.rpartition(".")[0] not in found
        if not inside and (not path or isinstance(module, Conv1D) or not _MIXERS.search(type(module).__name__)):
            found[path] = module
    return found


def _matrices(modules: Mapping[str, nn.Module]) -> list[str]:
    """Names of the parameters of these modules that are no vectors."""
    return [
        f"{path}.{name}".lstrip(".")
        for path, module in modules.items()
        for name, weight in module.named_parameters(recurse=False)
        if weight.dim() > 1
    ]


def _named_widths(config: PretrainedConfig) -> set[int]:
    """What the configuration calls a width of its FFNs, and twice that (Gemma 4 doubles some layers)."""
    given = [getattr(config, name, None) for name in (*_WIDTH_NAMES, "intermediate_size_mlp", "shared_intermediate_size")]
    flat = [width for value in given for width in (value if isinstance(value, list | tuple) else [value])]
    return {times * width for width in flat if isinstance(width, int) for times in (1, 2)}


def _refuse_unknown_experts(modules: Mapping[str, nn.Module], config: PretrainedConfig, ffn: str) -> None:
    """In a mixture a dense block holds nothing but its FFN and its mixers; anything else may be experts of an unknown form."""
    experts = next((f"{name} = {n}" for name in _EXPERT_NAMES if (n := getattr(config, name, None))), None)
    other = [name for name in _matrices(modules) if not name.startswith(f"{ffn}." if ffn else "")]
    if experts and other:
        raise ModelError(
            f"model type {config.model_type!r} is a mixture of experts ({experts}) of a form that trimtab does not know: beside "
            f"{ffn or 'its FFN'} a block holds {', '.join(other[:3])}{', ...' if len(other) > 3 else ''}"
        )


def _repeated_blocks(model: PreTrainedModel, config: PretrainedConfig) -> tuple[nn.Module, nn.ModuleList]:
    """The module that runs the decoder's blocks, and the blocks. OPT never runs its own base model, only what is in it."""
    decoder = model.get_decoder()
    lists = {name: module for name, module in decoder.named_modules() if isinstance(module, nn.ModuleList)}
    longest = max((len(module) for module in lists.values()), default=0)
    names = [name for name, module in lists.items() if len(module) == longest]
    names = [name for name in names if not any(name.startswith(f"{other}.") for other in names)]  # lists inside the blocks
    if len(names) != 1 or longest != config.num_hidden_layers:
        found = ", ".join(f"{name} of {len(module)}" for name, module in lists.items())
        raise ModelError(
            f"cannot tell the decoder blocks of model type {config.model_type!r}: looked for the one longest list of "
            f"{config.num_hidden_layers} blocks, found {found or 'no list of blocks'}. "
            f"Families known by name: {', '.join(FAMILIES)}. Add this one to trimtab.model.adapters.FAMILIES"
        )
    return decoder.get_submodule(names[0].rpartition(".")[0]), lists[names[0]]
