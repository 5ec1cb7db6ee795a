"""llama.cpp, through llama-cpp-python: logits of token ids with and without a control vector.

llama-cpp-python has no loader of control-vector files (that stands in llama.cpp's programs), so the directions are read with the
gguf package and handed to ``llama_set_adapter_cvec``, as ``llama-cli --control-vector`` does.
"""

import ctypes
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.errors import InputError, ModelError
from trimtab.export.target import Answered, Engine, not_installed

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
        self._vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))

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
            logits = np.ctypeslib.as_array(pointer, shape=(length, self._vocab)).copy()
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
        raise not_installed("llama-cpp-python", "llama.cpp", cause) from cause
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
