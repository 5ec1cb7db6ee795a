"""A control vector for llama.cpp: one direction a layer, added after the FFN at every position."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from trimtab.errors import InputError
from trimtab.export.checkpoint import Checkpoint
from trimtab.export.gguf_model import write_base
from trimtab.export.layers import layer_edits, output_shift
from trimtab.export.llama_engine import llama_engine
from trimtab.export.target import Engine, EngineOptions, Written, not_installed
from trimtab.model import LanguageModel
from trimtab.steering import Steering
from trimtab.store import replace_file

FILE = "control-vector.gguf"
ADDS_FFN_PLAINLY = ("qwen2", "qwen3", "llama", "mistral", "phi3", "gpt2", "gpt_neox")
"""Families whose FFN output enters the residual unscaled and without a norm, and for which llama.cpp applies control vectors."""


class GgufVector:
    """``direction.l = s W[:, S] @ shift``, float32, from the unquantised weights.

    llama.cpp has no direction for layer 0.
    """

    needs_fingerprint = True

    def check(self, steering: Steering, checkpoint: Checkpoint) -> None:  # noqa: ARG002
        """Refuse a family whose FFN output is changed before it enters the residual."""
        family = checkpoint.config.model_type
        if family not in ADDS_FFN_PLAINLY:
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
        vectors = {edit.layer: output_shift(edit, checkpoint) for edit in layer_edits(steering)}
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
        found = {str(tensor.name): np.array(tensor.data, np.float32) for tensor in GGUFReader(folder / FILE).tensors}
        directions = {int(name.removeprefix("direction.")): vector for name, vector in found.items()}
        with TemporaryDirectory() as scratch:
            base = options.base_gguf or write_base(model, Path(scratch) / "base.gguf")
            with llama_engine(base, directions, model.n_layers) as engine:
                yield engine
