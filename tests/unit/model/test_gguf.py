"""A GGUF file opens with the weights, the tokenizer and the chat template that it holds."""

import re
import tomllib
from pathlib import Path
from threading import Event, Thread

import gguf
import numpy as np
import pytest
import torch

from tiny_models import tiny
from trimtab.errors import InputError, ModelError
from trimtab.export.exporting import export_steering
from trimtab.gate import ALWAYS
from trimtab.model import check_model, down_weights, open_model, open_tokenizer, opening
from trimtab.model.opening import GGUF_PACKAGES, _header_read_once
from trimtab.steering import Steering

WORDS = [f"w{number}" for number in range(94)]
TOKENS = ["<unk>", "<s>", "</s>", *WORDS]


def _write(path: Path, template: str | None = None, add_bos: bool = False) -> Path:
    """A tiny Llama as llama.cpp keeps it: rotary rows of a head interleaved, and a tokenizer without merges."""
    model, config = tiny("llama"), tiny("llama").config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(256)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(8)
    writer.add_key_length(8)
    writer.add_value_length(8)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3] + [1] * len(WORDS))
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_token_merges([])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(add_bos)
    if template is not None:
        writer.add_chat_template(template)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    parts = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for name, parameter in model.named_parameters():
        stem, value = name.removesuffix(".weight"), parameter.numpy()
        if stem.startswith("model.layers."):
            layer, part = stem.removeprefix("model.layers.").split(".", 1)
            stem = f"blk.{layer}.{parts[part]}"
            if part.endswith(("q_proj", "k_proj")):
                heads = value.shape[0] // 8
                value = value.reshape(heads, 2, 4, -1).swapaxes(1, 2).reshape(value.shape)
        writer.add_tensor(f"{names.get(stem, stem)}.weight", np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_and_a_folder_that_holds_it(tmp_path: Path) -> None:
    file = _write(tmp_path / "tiny.gguf", template="{{ messages[0].content }}!")
    model = open_model(file, device="cpu")
    ids = torch.arange(3, 12)[None]
    torch.testing.assert_close(model.hf_model(ids).logits, tiny("llama")(ids).logits, rtol=1e-4, atol=1e-4)
    assert model.tokenizer.chat_template == "{{ messages[0].content }}!"
    assert (model.identity.revision or "").startswith("gguf:")
    assert check_model(model).ok
    assert open_tokenizer(file).get_vocab() == model.tokenizer.get_vocab()
    again = open_model(str(tmp_path), device="cpu")
    assert (again.identity.fingerprint, again.identity.revision) == (model.identity.fingerprint, model.identity.revision)
    _write(tmp_path / "other.gguf")
    with pytest.raises(ModelError, match=r"holds 2 GGUF files: other\.gguf, tiny\.gguf; name one of them"):
        open_model(tmp_path)


@pytest.mark.parametrize("add_bos", [True, False])
def test_the_beginning_token_is_as_the_file_says_and_a_base_model_gets_a_plain_template(
    tmp_path: Path, add_bos: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = open_model(_write(tmp_path / "base.gguf", add_bos=add_bos), device="cpu")
    assert model.tokenizer.encode("") == ([1] if add_bos else [])
    assert "base.gguf holds no chat template" in caplog.text
    chat = model.tokenizer.apply_chat_template([{"role": "user", "content": "w5"}], tokenize=False, add_generation_prompt=True)
    assert chat == "<s>w5\n"


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"GGUF file .*absent\.gguf does not exist"):
        open_model(tmp_path / "absent.gguf")
    with pytest.raises(ModelError, match=r"GGUF file absent\.gguf does not exist"):
        open_model("absent.gguf")


@pytest.mark.parametrize("package", GGUF_PACKAGES)
def test_without_a_package_it_says_what_to_install(tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh environment with the extra alone has no accelerate unless the extra names it."""
    monkeypatch.setattr(opening, "find_spec", lambda name: None if name == package else True)
    with pytest.raises(ModelError, match=rf"the package {package}; install it: pip install 'trimtab\[gguf\]'"):
        open_model(_write(tmp_path / "tiny.gguf"))
    extras = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert package in {re.split(r"[<>=]", requirement)[0] for requirement in extras["gguf"]}


def test_a_steering_ships_back_to_the_same_file_as_a_control_vector(tmp_path: Path) -> None:
    file = _write(tmp_path / "tiny.gguf")
    model = open_model(file, device="cpu")
    shift = np.array([2.0, -3.0, 1.5], np.float32)
    steering = Steering(np.array([1, 1, 2]), np.array([3, 40, 7]), 0 * shift, shift, 2.0, "all", ALWAYS, model.identity)
    export_steering(steering, "gguf", tmp_path / "vector")
    tensors = gguf.GGUFReader(tmp_path / "vector" / "control-vector.gguf").tensors
    found = {str(tensor.name): np.array(tensor.data) for tensor in tensors}
    weights = down_weights(model, [1, 2])
    np.testing.assert_allclose(found["direction.1"], 2 * weights[1][:, [3, 40]] @ shift[:2], rtol=1e-5)
    np.testing.assert_allclose(found["direction.2"], 2 * weights[2][:, [7]] @ shift[2:], rtol=1e-5)
    with pytest.raises(InputError, match="is a GGUF file, of which an export to merged makes no use"):
        export_steering(steering, "merged", tmp_path / "merged")


def test_the_header_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry by entry in Python, which takes long for a large vocabulary."""
    parsed: list[str] = []
    reader = gguf.GGUFReader

    def counted(path: str) -> gguf.GGUFReader:
        parsed.append(str(path))
        return reader(path)

    monkeypatch.setattr(gguf, "GGUFReader", counted)
    open_model(_write(tmp_path / "tiny.gguf"), device="cpu")
    assert len(parsed) <= 1
    assert gguf.GGUFReader is counted


def test_two_threads_that_open_files_leave_the_reader_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, opens, goes_on = gguf.GGUFReader, Event(), Event()
    monkeypatch.setattr(gguf, "GGUFReader", reader)  # put back whatever happens

    def open_first() -> None:
        with _header_read_once():
            opens.set()
            goes_on.wait(0.2)

    first = Thread(target=open_first)
    first.start()
    opens.wait()
    with _header_read_once():
        goes_on.set()
        first.join()
    assert gguf.GGUFReader is reader
