"""Open a model and its tokenizer, ready to be recorded and steered."""

import copy
import html
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from trimtab.errors import ModelError
from trimtab.model.adapters import FfnLayout, find_ffn
from trimtab.model.identity import identify, tokenizer_fingerprint
from trimtab.neurons import ModelIdentity
from trimtab.testbed.models import resolve

_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class LanguageModel:
    """A model in eval mode without gradients, its tokenizer, where its neurons are, and who it is."""

    hf_model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layout: FfnLayout
    identity: ModelIdentity

    @classmethod
    def of(cls, hf_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str | None = None) -> "LanguageModel":
        """A model and a tokenizer that are loaded already; neither is changed.

        The tokenizer is copied, pads on the left, and pads with its end token where it has no pad token.

        Args:
            hf_model: in eval mode.
            tokenizer: of this model.
            name: what files will call the model, by default ``hf_model.name_or_path`` or else the name of its class.

        Raises:
            ModelError: a model in training mode or with an attention that leaves out its soft cap, a tokenizer that cannot pad,
                or no FFN that can be steered.

        Example:
            >>> model = LanguageModel.of(AutoModelForCausalLM.from_pretrained(...).eval(), tokenizer)  # doctest: +SKIP
        """
        if hf_model.training:
            raise ModelError("this model is in training mode, where dropout makes every forward another; call model.eval() first")
        if _loses_soft_cap(hf_model):
            raise ModelError(
                f"the sdpa attention of {hf_model.config.model_type!r} leaves out attn_logit_softcapping; "
                'call model.set_attn_implementation("eager") first'
            )
        name = name or hf_model.name_or_path or type(hf_model).__name__
        own = _made_to_pad(copy.deepcopy(tokenizer), name)
        own.padding_side = "left"
        layout = find_ffn(hf_model)
        return cls(hf_model, own, layout, identify(hf_model, name, None, layout=layout))

    def __repr__(self) -> str:
        sizes = self.identity
        dtype = str(self.hf_model.dtype).removeprefix("torch.")
        width = f"{sizes.n_experts} experts x {sizes.d_expert:,}" if sizes.n_experts > 1 else f"{sizes.d_ff:,}"
        return (
            f"LanguageModel {sizes.name}: {sizes.architecture}, {dtype} on {self.device}\n"
            f"{sizes.n_layers} layers x {width} = {sizes.n_neurons:,} neurons, d_model {sizes.d_model:,}, "
            f"vocabulary {sizes.vocab_size:,}\n"
            f"fingerprint {sizes.fingerprint}" + (f", revision {sizes.revision}" if sizes.revision else "")
        )

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"

    @property
    def device(self) -> torch.device:
        """Where inputs go; the first device of a model spread over several."""
        return self.hf_model.device

    @property
    def d_ff(self) -> int:
        return self.layout.d_ff

    @property
    def n_layers(self) -> int:
        return self.layout.n_layers

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        """Hash of what turns text into ids; hashed once."""
        return tokenizer_fingerprint(self.tokenizer)


def open_model(
    source: str | Path,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Open a causal language model from a hub id, a folder or the bundled ones.

    Args:
        source: hub id such as ``Qwen/Qwen3-1.7B``, a folder written by ``save_pretrained``, or ``testbed:NAME``, a bundled model.
        revision: branch, tag or commit on the hub.
        dtype: ``auto`` is the checkpoint's own dtype, but float32 on a CPU; or ``float32``, ``bfloat16``, ``float16``.
        device: ``auto`` is ``cuda`` where there is one, else ``cpu``; or any torch device, or ``balanced`` to spread the layers.
        trust_remote_code: allow a repository to run its own code.

    Raises:
        ModelError: missing, incomplete or unreadable checkpoint, unknown dtype or device, or no FFN that can be steered.

    Example:
        >>> model = open_model("Qwen/Qwen3-1.7B")  # doctest: +SKIP
        >>> model.n_layers, model.d_ff  # doctest: +SKIP
        (28, 6144)
    """
    if dtype not in _DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}; accepted: {', '.join(_DTYPES)}")
    name = _checked_source(source)
    source = resolve(name)
    placement = _placement(device)
    on_cpu = placement is not None and placement.type == "cpu"
    model = _load_model(source, revision, "float32" if dtype == "auto" and on_cpu else dtype, placement, trust_remote_code)
    tokenizer = _load_tokenizer(source, revision, trust_remote_code)
    model.eval().requires_grad_(False)
    if model.generation_config is not None and model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    if _loses_soft_cap(model):
        model.set_attn_implementation("eager")
    layout = find_ffn(model)
    commit = getattr(model.config, "_commit_hash", None)  # set by transformers for hub checkpoints only
    return LanguageModel(model, tokenizer, layout, identify(model, name, commit or revision, layout=layout))


def checkpoint_dtype(source: str | Path, revision: str | None = None, trust_remote_code: bool = False) -> str:
    """The dtype that a checkpoint is stored in, as ``auto`` takes it where there is a GPU.

    Raises:
        ModelError: an unreadable checkpoint, or one that does not say.
    """
    name = resolve(_checked_source(source))
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        raise _cannot_open("model", name, error) from error
    dtype = str(config.get_text_config().dtype).removeprefix("torch.")
    if dtype not in _DTYPES:
        raise ModelError(f"the checkpoint of {source!r} says dtype {dtype}; name one of {', '.join(_DTYPES[1:])} as model.dtype")
    return dtype


def _checked_source(source: str | Path) -> str:
    is_path = isinstance(source, Path) or source.startswith((".", "/", "~"))
    folder = Path(source).expanduser()
    if is_path and not folder.is_dir():
        raise ModelError(
            f"model folder {folder} does not exist; give a folder written by save_pretrained, or a hub id like Qwen/Qwen3-1.7B"
        )
    return str(folder) if is_path else str(source)


def _placement(device: str) -> torch.device | None:
    """The one device asked for, None for layers spread over all of them."""
    if device == "balanced":
        return None
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        placement = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"unknown device {device!r}; accepted: auto, cpu, cuda, cuda:N, mps, balanced") from error
    if placement.type == "cuda" and (placement.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"device {device!r} asked for, but torch sees {torch.cuda.device_count()} CUDA devices; use --device cpu or auto"
        )
    return placement


def _load_model(
    source: str, revision: str | None, dtype: str, placement: torch.device | None, trust_remote_code: bool
) -> PreTrainedModel:
    try:
        model, report = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
            source,
            revision=revision,
            dtype=dtype,
            device_map="auto" if placement is None else None,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
        if placement is not None:
            model.to(placement)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{source} does not fit on {placement or 'all devices together'}: {error}. Use --device balanced or a smaller dtype"
        ) from error
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise _cannot_open("model", source, error) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelError(
            f"{source} lacks {len(missing)} of its weights, which would stay random: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}. Download the checkpoint again, or open it with its own architecture"
        )
    return model


def _loses_soft_cap(model: PreTrainedModel) -> bool:
    """Gemma 2 caps its attention logits, which transformers' sdpa leaves out without a word and its own attention does not."""
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    return capped is not None and model.config._attn_implementation == "sdpa"


def _load_tokenizer(source: str, revision: str | None, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision, trust_remote_code=trust_remote_code, padding_side="left"
        )
    except (OSError, ValueError, ImportError) as error:
        raise _cannot_open("tokenizer", source, error) from error
    if not set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids):
        # transformers makes an empty tokenizer of the right class when a folder has none
        raise ModelError(f"{source} has no tokenizer files (its vocabulary is empty); save the tokenizer into the same folder")
    return _made_to_pad(tokenizer, source)


def _made_to_pad(tokenizer: PreTrainedTokenizerBase, source: str) -> PreTrainedTokenizerBase:
    """The tokenizer, with its end token as pad token where it has none."""
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError(
                f"the tokenizer of {source} has neither a pad nor an eos token, so batches cannot be padded; set one of them"
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _cannot_open(what: str, source: str, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()
    fix = (
        "install the package it names"
        if isinstance(error, ImportError)
        else f"check the id, download it first while online (hf download {source}), or give a folder written by save_pretrained"
    )
    return ModelError(f"cannot open the {what} of {source!r}: {reason[0] if reason else type(error).__name__}\nFix: {fix}")
