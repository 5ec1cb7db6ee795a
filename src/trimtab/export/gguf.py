"""GGUF control vectors, and llama.cpp, which reads them, through llama-cpp-python.

llama-cpp-python has no loader of control-vector files (that stands in llama.cpp's programs), so the directions are read with the
gguf package and handed to ``llama_set_adapter_cvec``, as ``llama-cli --control-vector`` does.
"""

import ctypes
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.errors import InputError, ModelError
from trimtab.export.checkpoint import Checkpoint
from trimtab.export.target import Answered, Engine, EngineOptions, Written, not_installed, residual_pushes
from trimtab.model import LanguageModel
from trimtab.model.opening import DAMAGED
from trimtab.steering import Steering
from trimtab.store import replace_file
from trimtab.store.atomic import one_line

_CONTEXT = 2048


class LlamaEngine:
    """A model in llama.cpp and the directions of a control vector, from layer 1 on.

    Args:
        llama: the module ``llama_cpp``.
        context: its context, with a batch as long as itself.
        directions: float32 ``[layer - 1, d_model]``.
    """

    def __init__(self, llama: Any, model: Any, context: Any, directions: NDArray[np.float32]) -> None:
        self.name = f"llama-cpp-python {llama.__version__}"
        self._llama, self._context, self._directions = llama, context, np.ascontiguousarray(directions)
        self.vocabulary = llama.llama_model_get_vocab(model)
        self._size = llama.llama_vocab_n_tokens(self.vocabulary)

    def bare(self, sequence: Answered) -> Tensor:
        """Unsteered logits."""
        self._set(None)
        return self._logits(sequence.tokens)

    def steered(self, sequence: Answered) -> Tensor:
        """Logits under the control vector."""
        self._set(self._directions)
        return self._logits(sequence.tokens)

    def _set(self, directions: NDArray[np.float32] | None) -> None:
        size = self._directions.size
        pointer = None if directions is None else directions.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        layers, width = self._directions.shape
        if self._llama.llama_set_adapter_cvec(self._context, pointer, size, width, 1, layers):
            raise ModelError(f"llama.cpp refuses a control vector of width {width}; is the GGUF file of another model?")

    def _logits(self, tokens: Tensor) -> Tensor:
        llama, length = self._llama, len(tokens)
        if length > _CONTEXT:
            raise InputError(f"a prompt of {length} tokens is longer than the {_CONTEXT} that are compared; give shorter ones")
        llama.llama_memory_clear(llama.llama_get_memory(self._context), True)
        batch = llama.llama_batch_init(length, 0, 1)
        try:
            batch.n_tokens = length
            for place, token in enumerate(tokens.tolist()):
                batch.token[place], batch.pos[place], batch.logits[place] = token, place, 1
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            if code := llama.llama_decode(self._context, batch):
                raise ModelError(f"llama.cpp failed to read {length} tokens (code {code}); is the GGUF file of another model?")
            pointer = llama.llama_get_logits(self._context)
            logits = np.ctypeslib.as_array(pointer, shape=(length, self._size)).copy()
        finally:
            llama.llama_batch_free(batch)
        return torch.from_numpy(logits)


@contextmanager
def llama_engine(base: Path, directions: Mapping[int, NDArray[np.float32]], n_layers: int) -> Iterator[Engine]:
    """Open a GGUF file on the CPU in float32.

    Args:
        directions: float32 ``[d_model]`` by layer, from 1 on.

    Raises:
        InputError: llama-cpp-python is not installed.
        ModelError: llama.cpp cannot read the file.
    """
    try:
        import llama_cpp as llama  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as cause:
        raise not_installed("llama-cpp-python", "llama.cpp", cause, "llama_cpp") from cause
    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL)  # it prints what it allocates
    table = np.zeros((n_layers - 1, len(next(iter(directions.values())))), np.float32)
    for layer, vector in directions.items():
        table[layer - 1] = vector
    llama.llama_backend_init()
    settings = llama.llama_model_default_params()
    settings.n_gpu_layers = 0
    model = llama.llama_model_load_from_file(str(base).encode(), settings)
    if not model:
        raise ModelError(f"llama.cpp cannot read {base}; give a GGUF file of the base model")
    context_settings = llama.llama_context_default_params()
    context_settings.n_ctx = context_settings.n_batch = context_settings.n_ubatch = _CONTEXT
    context_settings.type_k = context_settings.type_v = llama.GGML_TYPE_F32
    context_settings.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama.llama_init_from_model(model, context_settings)
    try:
        if not context:
            raise ModelError(f"llama.cpp has no room for a context of {_CONTEXT} tokens with {base}")
        yield LlamaEngine(llama, model, context, table)
    finally:
        if context:
            llama.llama_free(context)
        llama.llama_model_free(model)


WRITABLE: Mapping[str, str] = MappingProxyType({"qwen2": "qwen2", "qwen3": "qwen3"})
"""Families by the name that llama.cpp gives them; both rotate halves, as transformers does, so no weight is permuted."""
_GLOBAL = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_base(model: LanguageModel, path: Path) -> Path:
    """Write an opened model in float32.

    Raises:
        InputError: a family that is not in :data:`WRITABLE`, or gguf is not installed.
    """
    family = model.hf_model.config.model_type
    if family not in WRITABLE:
        raise InputError(
            f"trimtab writes {', '.join(WRITABLE)} as GGUF, not {family}; convert the base model with llama.cpp's "
            "convert_hf_to_gguf.py --outtype f32 and give the file with --base-gguf"
        )
    try:
        from gguf import GGUFWriter
    except ModuleNotFoundError as cause:
        raise not_installed("gguf", "the base model in llama.cpp", cause) from cause
    config = model.hf_model.config
    writer = GGUFWriter(path, WRITABLE[family])
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    for name, parameter in model.hf_model.named_parameters(remove_duplicate=True):
        writer.add_tensor(gguf_name(name), _array(parameter))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_name(name: str) -> str:
    """The name of a parameter in GGUF.

    Example:
        >>> gguf_name("model.layers.3.mlp.down_proj.weight")
        'blk.3.ffn_down.weight'
    """
    module, _, kind = name.rpartition(".")
    if module in _GLOBAL:
        return f"{_GLOBAL[module]}.{kind}"
    layer, _, inner = module.removeprefix("model.layers.").partition(".")
    if inner not in _BLOCK:
        raise InputError(f"no GGUF name is known for the parameter {name}; give a converted file with --base-gguf")
    return f"blk.{layer}.{_BLOCK[inner]}.{kind}"


def _array(parameter: Tensor):
    return parameter.detach().float().cpu().numpy()


FILE = "control-vector.gguf"
ADDS_FFN_PLAINLY = ("qwen2", "qwen3", "llama", "mistral", "phi3", "gpt2", "gpt_neox")
"""Families whose FFN output enters the residual unscaled and without a norm, and for which llama.cpp applies control vectors."""


_DAMAGED = (OSError, ValueError, *DAMAGED)
"""What gguf raises for a file that is truncated, empty or something else."""
_CONVERT = "give the base model as llama.cpp's convert_hf_to_gguf.py writes it"


def check_base(path: Path, model: LanguageModel) -> None:
    """Read the header of a base model's GGUF file before llama.cpp is given it, which may end the process over a damaged one.

    Every tensor that the header names must lie whole in the file, and layers, width and vocabulary must be the model's. What the
    weights are is not looked at: nothing says what they should be.

    Raises:
        InputError: gguf is not installed, or the file is truncated, empty, something else or another model's; it is named.
    """
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError as cause:
        raise not_installed("gguf", "the base model in llama.cpp", cause) from cause
    try:
        reader = GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items() if len(field.data) == 1}
        tensors = {str(tensor.name): [int(size) for size in tensor.shape] for tensor in reader.tensors}
    except _DAMAGED as cause:
        raise InputError(f"{path} cannot be read as GGUF ({one_line(cause)}); {_CONVERT}") from cause
    family, identity = fields.get("general.architecture"), model.identity
    found = {
        "layers": fields.get(f"{family}.block_count"),
        "width": fields.get(f"{family}.embedding_length"),
        "vocabulary": tensors.get("token_embd.weight", [None])[-1],
    }
    wanted = {"layers": identity.n_layers, "width": identity.d_model, "vocabulary": identity.vocab_size}
    if other := [f"{what} {found[what]}, not {wanted[what]}" for what in wanted if found[what] != wanted[what]]:
        raise InputError(f"{path} is no GGUF file of {identity.name}: {', '.join(other)}; {_CONVERT}")


class GgufVector:
    """``direction.l = s (W[:, S] @ shift + direction)``, float32, from the unquantised weights.

    llama.cpp adds ``direction.l`` to the output of block l, counted from 0, and has none for layer 0.
    """

    needs_fingerprint = True

    def check(self, steering: Steering, checkpoint: Checkpoint) -> None:
        """Refuse a family whose FFN output is changed before it enters the residual, where there are shifts of neurons."""
        family = checkpoint.config.model_type
        if steering.has_neurons and family not in ADDS_FFN_PLAINLY:
            raise InputError(
                f"a control vector cannot express a steering of {family}: its FFN output passes a norm or a scale before it "
                f"enters the residual. Known: {', '.join(ADDS_FFN_PLAINLY)}. Export to lm-eval, which adds before the norm"
            )

    def write(self, steering: Steering, checkpoint: Checkpoint, folder: Path) -> Written:
        """Write control-vector.gguf."""
        try:
            from gguf import GGUFWriter
        except ModuleNotFoundError as cause:
            raise not_installed("gguf", "a control vector", cause) from cause
        vectors = residual_pushes(steering, checkpoint)
        with replace_file(folder / FILE) as temporary:
            writer = GGUFWriter(temporary, "controlvector")
            writer.add_string("controlvector.model_hint", checkpoint.config.model_type)
            writer.add_uint32("controlvector.layer_count", len(checkpoint.down))
            for layer, vector in vectors.items():
                writer.add_tensor(f"direction.{layer}", vector)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
        return Written({"directions": len(vectors)}, f"llama-cli -m BASE.gguf --control-vector PATH/{FILE}")

    @contextmanager
    def open(self, folder: Path, model: LanguageModel, options: EngineOptions) -> Iterator[Engine]:
        """The base model in llama.cpp, from ``options.base_gguf`` or written for the occasion."""
        try:
            from gguf import GGUFReader
        except ModuleNotFoundError as cause:
            raise not_installed("gguf", "a control vector", cause) from cause
        try:
            found = {str(tensor.name): np.array(tensor.data, np.float32) for tensor in GGUFReader(folder / FILE).tensors}
            directions = {int(name.removeprefix("direction.")): vector for name, vector in found.items()}
        except _DAMAGED as cause:
            raise InputError(f"{folder / FILE} cannot be read as GGUF ({one_line(cause)}); export the steering again") from cause
        odd = [
            layer
            for layer, vector in directions.items()
            if not 1 <= layer < model.n_layers or vector.shape != (model.identity.d_model,)
        ]
        if odd or not directions:
            raise InputError(
                f"{folder / FILE} holds {len(directions)} directions, {len(odd)} of them for no layer of {model.identity.name} "
                f"or of another width than {model.identity.d_model}; export the steering again"
            )
        with TemporaryDirectory() as scratch:
            base = options.base_gguf or write_base(model, Path(scratch) / "base.gguf")
            with llama_engine(base, directions, model.n_layers) as engine:
                yield engine
