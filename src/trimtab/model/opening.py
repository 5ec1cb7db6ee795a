"""Open a model and its tokenizer, ready to be recorded and steered."""

import copy
import hashlib
import html
import logging
import pickle
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.utils.hub import cached_file

from trimtab.errors import ModelError
from trimtab.model.adapters import FfnLayout, find_ffn
from trimtab.model.identity import identify, tokenizer_fingerprint
from trimtab.model.probes import input_device
from trimtab.neurons import ModelIdentity
from trimtab.testbed.models import resolve

logger = logging.getLogger(__name__)

GGUF = ".gguf"
GGUF_PACKAGES = ("gguf", "accelerate")
"""What transformers reads a GGUF file with."""
PLAIN_TEMPLATE = "{{ bos_token or '' }}{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
"""The chat template of a GGUF file that has none: the messages, a line each."""
_header_lock = RLock()
_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class LanguageModel:
    """A model in eval mode without gradients, with its tokenizer, its FFN layout and its identity."""

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
            raise ModelError(
                "this model is in training mode, where dropout makes every forward another; call model.eval() first",
                code="training-mode",
            )
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
        return (
            f"LanguageModel {sizes.name}: {sizes.architecture}, {dtype} on {self.device}\n"
            f"{sizes.n_layers} layers x {sizes.width_text} = {sizes.n_neurons:,} neurons, d_model {sizes.d_model:,}, "
            f"vocabulary {sizes.vocab_size:,}\n"
            f"fingerprint {sizes.fingerprint}" + (f", revision {sizes.revision}" if sizes.revision else "")
        )

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"

    @property
    def device(self) -> torch.device:
        """Where inputs go; the first device of a model spread over several."""
        return input_device(self.hf_model)

    @property
    def d_ff(self) -> int:
        return self.layout.d_ff

    @property
    def n_layers(self) -> int:
        return self.layout.n_layers

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        """Hash of the tokenizer, computed once."""
        return tokenizer_fingerprint(self.tokenizer)


def open_model(
    source: str | Path,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Open a causal language model from a hub id, a folder, a GGUF file or the bundled ones.

    A GGUF file is dequantised, with the tokenizer and the chat template that it holds; llama.cpp, which quantises activations
    too, rounds otherwise. A wrapper of text and images that is no causal model of transformers opens for text.

    Args:
        source: hub id such as ``Qwen/Qwen3-1.7B``, a folder written by ``save_pretrained``, a GGUF file, a folder that holds one,
            one on the hub as ``ORG/REPO/FILE.gguf``, or ``testbed:NAME``, a bundled model.
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
    origin = _origin(resolve(name), revision, trust_remote_code)
    placement = _placement(device)
    on_cpu = placement is not None and placement.type == "cpu"
    with _header_read_once() if origin.gguf else nullcontext():
        model = _load_model(origin, "float32" if dtype == "auto" and on_cpu else dtype, placement)
        tokenizer = _load_tokenizer(origin)
    model.eval().requires_grad_(False)
    if model.generation_config is not None and model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    if _loses_soft_cap(model):
        model.set_attn_implementation("eager")
    layout = find_ffn(model)
    commit = getattr(model.config, "_commit_hash", None)  # set by transformers for hub checkpoints only
    revision = commit or revision or origin.digest
    return LanguageModel(model, tokenizer, layout, identify(model, name, revision, layout=layout))


def open_tokenizer(
    source: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer that :func:`open_model` opens for the same source, without the weights.

    Raises:
        ModelError: a missing or unreadable tokenizer.
    """
    return _load_tokenizer(_origin(resolve(_checked_source(source)), revision, trust_remote_code))


def checkpoint_dtype(source: str | Path, revision: str | None = None, trust_remote_code: bool = False) -> str:
    """The dtype that a checkpoint is stored in, as ``auto`` takes it where there is a GPU.

    Raises:
        ModelError: an unreadable checkpoint, or one that does not say.
    """
    config = _config(_origin(resolve(_checked_source(source)), revision, trust_remote_code))
    dtype = str(config.get_text_config().dtype).removeprefix("torch.")
    if dtype not in _DTYPES:
        raise ModelError(f"the checkpoint of {source!r} says dtype {dtype}; name one of {', '.join(_DTYPES[1:])} as model.dtype")
    return dtype


def _checked_source(source: str | Path) -> str:
    is_path = isinstance(source, Path) or source.startswith((".", "/", "~"))
    try:
        folder = Path(source).expanduser()
        folder.exists()
    except (OSError, RuntimeError) as cause:  # a name too long, and the home of nobody
        raise ModelError(
            f"{str(source)[:80]!r} is no model ({cause.args[-1]}); give a folder or a hub id like Qwen/Qwen3-1.7B"
        ) from cause
    if str(source).endswith(GGUF) and folder.is_file():
        return str(folder)
    if is_path and not folder.is_dir():
        what = "GGUF file" if folder.suffix == GGUF else "model folder"
        raise ModelError(
            f"{what} {folder} does not exist; give a folder written by save_pretrained, or a hub id like Qwen/Qwen3-1.7B",
            code="no-folder",
        )
    return str(folder) if is_path else str(source)


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a checkpoint is read from: a repository or folder, and the GGUF file in it, if it is one."""

    source: str
    revision: str | None
    trust_remote_code: bool
    gguf: str | None = None

    @property
    def digest(self) -> str | None:
        """``gguf:`` and a hash of a GGUF file of this machine; None for anything else."""
        path = Path(self.source) / self.gguf if self.gguf else None
        if path is None or not path.is_file():
            return None
        with path.open("rb") as file:
            return f"gguf:{hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()}"

    def options(self) -> dict[str, object]:
        """Keyword arguments for ``from_pretrained`` of transformers."""
        options: dict[str, object] = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        return options | ({"gguf_file": self.gguf} if self.gguf else {})


def _origin(source: str, revision: str | None, trust_remote_code: bool) -> _Origin:
    path = Path(source)
    if source.endswith(GGUF):
        _require_gguf()
        folder, _, name = source.rpartition("/")
        if not path.is_file() and folder.count("/") != 1:
            raise ModelError(f"GGUF file {source} does not exist; give a file of this machine, or ORG/REPO/FILE.gguf on the hub")
        return _Origin(folder or ".", revision, trust_remote_code, name)
    files = sorted(path.glob(f"*{GGUF}")) if path.is_dir() and not (path / "config.json").exists() else []
    if len(files) > 1:
        raise ModelError(f"{source} holds {len(files)} GGUF files: {', '.join(file.name for file in files)}; name one of them")
    if files:
        _require_gguf()
    return _Origin(source, revision, trust_remote_code, files[0].name if files else None)


def _require_gguf() -> None:
    if missing := [name for name in GGUF_PACKAGES if find_spec(name) is None]:
        raise ModelError(
            f"a GGUF file needs the package {' and '.join(missing)}; install it: pip install 'trimtab[gguf]'", code="no-gguf"
        )


@contextmanager
def _header_read_once() -> Iterator[None]:
    """Within, the header of a GGUF file is parsed once. One thread at a time: another would give back the reader of the first.

    transformers parses it for the configuration, for the weights and for the tokenizer anew, entry by entry in Python: 16 seconds
    each time for the 262,144 tokens of Gemma 3.
    """
    import gguf

    with _header_lock:
        reader = gguf.GGUFReader
        gguf.GGUFReader = cache(reader)  # type: ignore[misc]  # transformers looks it up there at every call
        try:
            yield
        finally:
            gguf.GGUFReader = reader


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
            f"device {device!r} asked for, but torch sees {torch.cuda.device_count()} CUDA devices; use --device cpu or auto",
            code="no-such-device",
        )
    return placement


DAMAGED = (KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError, MemoryError, struct.error)
"""What readers raise for damaged files, whose headers they take at their word."""
_UNREADABLE = (OSError, ValueError, ImportError, RuntimeError, SafetensorError, *DAMAGED)
"""What transformers and the readers below it raise for a checkpoint that cannot be opened."""


def _config(origin: _Origin) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(origin.source, **origin.options())
    except _UNREADABLE as error:
        raise _cannot_open("model", origin.source, error) from error


def _load_model(origin: _Origin, dtype: str, placement: torch.device | None) -> PreTrainedModel:
    source, config = origin.source, _config(origin)
    wrapper = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING
    loader = AutoModelForImageTextToText if wrapper and not config.is_encoder_decoder else AutoModelForCausalLM
    try:
        model, report = loader.from_pretrained(  # type: ignore[misc]
            source,
            dtype=dtype,
            device_map="auto" if placement is None else None,
            output_loading_info=True,
            **origin.options(),
        )
        if origin.gguf:
            # the weights are plain floats by now, and a checkpoint saved of them must not say otherwise
            model.config.__dict__.pop("quantization_config", None)
            model.is_quantized, model.hf_quantizer = False, None
        if placement is not None:
            model.to(placement)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{source} does not fit on {placement or 'all devices together'}: {error}. Use --device balanced or a smaller dtype",
            code="too-large",
        ) from error
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"the weights of {source} are a pickle that holds more than tensors, and unpickling it would run code; "
            "get the checkpoint as safetensors, or save it as that where you trust it",
            code="pickled-weights",
        ) from error
    except _UNREADABLE as error:
        raise _cannot_open("model", source, error) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelError(
            f"{source} lacks {len(missing)} of its weights, which would stay random: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}. Download the checkpoint again, or open it with its own architecture",
            code="missing-weights",
        )
    return model


def _loses_soft_cap(model: PreTrainedModel) -> bool:
    """Gemma 2 caps its attention logits, which transformers' sdpa leaves out without a word and its own attention does not."""
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    return capped is not None and model.config._attn_implementation == "sdpa"


def _load_tokenizer(origin: _Origin) -> PreTrainedTokenizerBase:
    source = origin.source
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", **origin.options())
    except _UNREADABLE as error:
        raise _cannot_open("tokenizer", source, error) from error
    if not set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids):
        # transformers makes an empty tokenizer of the right class when a folder has none
        raise ModelError(
            f"{source} has no tokenizer files (its vocabulary is empty); save the tokenizer into the same folder",
            code="no-tokenizer",
        )
    if origin.gguf:
        _as_the_file_says(tokenizer, origin)
    return _made_to_pad(tokenizer, source)


def _as_the_file_says(tokenizer: PreTrainedTokenizerBase, origin: _Origin) -> None:
    """Put the beginning token before a text where the file asks for it, and give a base model a plain chat template."""
    from transformers.integrations.gguf.reader import read_gguf_metadata

    path = str(cached_file(origin.source, cast("str", origin.gguf), revision=origin.revision))
    asked = read_gguf_metadata(path)[0].get("tokenizer.ggml.add_bos_token")
    if asked is not None and asked != _begins_with_bos(tokenizer):
        tokenizer.add_bos_token = bool(asked)
        if asked != _begins_with_bos(tokenizer):
            raise ModelError(
                f"{origin.gguf} says add_bos_token = {bool(asked)}, which transformers' tokenizer of it does not do; "
                "open the model's own repository instead"
            )
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
        logger.warning("%s holds no chat template, as of a base model: it is given the plain text of the messages", origin.gguf)


def _begins_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    return tokenizer.bos_token_id is not None and tokenizer.encode("")[:1] == [tokenizer.bos_token_id]


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
    reason = [line for line in str(error).strip().splitlines() if line.strip()]
    fix = (
        "install the package it names"
        if isinstance(error, ImportError)
        else f"check the id, download it first while online (hf download {source}), or give a folder written by save_pretrained"
    )
    return ModelError(
        f"cannot open the {what} of {source!r}: {reason[0] if reason else type(error).__name__}\nFix: {fix}", code="cannot-open"
    )
