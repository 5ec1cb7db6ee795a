"""Checkpoints that are damaged, empty or something else: a message that names them, and no code of theirs runs."""

import os
import pickle
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from tiny_models import tiny, word_tokenizer
from trimtab.errors import ModelError
from trimtab.model import open_model


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (os.environ["TRIMTAB_TEST_PAYLOAD"],)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model's folder."""
    path = tmp_path / "model"
    tiny("qwen3").save_pretrained(path)
    word_tokenizer(eos_token="w1").save_pretrained(path)
    return path


def test_a_pickle_that_holds_code_is_refused_without_advice_to_run_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_TEST_PAYLOAD", str(tmp_path / "ran"))
    (folder / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(2), "code": Payload()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="get the checkpoint as safetensors") as caught:
        open_model(folder)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(ModelError) as caught:
        open_model(folder)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_damaged_files_of_a_checkpoint(folder: Path, name: str) -> None:
    whole, random = (folder / name).read_bytes(), Random(0)
    for content in (b"", whole[: len(whole) // 2], random.randbytes(300), b"[" * 100_000, b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"):
        (folder / name).write_bytes(content)
        with pytest.raises(ModelError, match="model"):
            open_model(folder)


def test_damaged_gguf_files(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path, random = tmp_path / "a.gguf", Random(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_tensor("token_embd.weight", np.zeros((8, 4), np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    whole = path.read_bytes()
    contents = [b"", b"GGUF", random.randbytes(200), *(whole[:length] for length in range(0, len(whole), len(whole) // 12))]
    contents += [whole[:at] + b"\xff" * 8 + whole[at + 8 :] for at in range(4, 60, 8)]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"a\.gguf|cannot open"):
            open_model(path)
