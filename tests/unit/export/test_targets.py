"""Every target, loaded with its own loader, does what the hooks do; and its files are what its format asks for."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from export_samples import QUESTIONS, open_tiny, steering_of
from tiny_models import D_FF, D_MODEL, FAMILIES, MIXTURES, N_LAYERS
from trimtab.directions import Directions
from trimtab.errors import InputError
from trimtab.export.exporting import export_steering
from trimtab.export.peft import RANKS, rank_of
from trimtab.export.verify import verify_export
from trimtab.gate import ALWAYS
from trimtab.interventions import ENHANCEMENT
from trimtab.model import LanguageModel
from trimtab.steering import Steering
from trimtab.store.import_lists import read_neurons

DENSE = [family for family in FAMILIES if family not in MIXTURES]
SHIFTS = (3.0, -2.0, 4.0, 1.5)


@pytest.mark.parametrize("family", DENSE)
@pytest.mark.parametrize("target", ["lora", "ia3", "merged"])
def test_multiplicative_targets_equal_the_hooks(save_tiny: Callable[..., Path], tmp_path: Path, family: str, target) -> None:
    model = open_tiny(save_tiny(family))
    steering = steering_of(model)
    export_steering(steering, target, tmp_path / "export")
    seen = verify_export(tmp_path / "export", model, steering, QUESTIONS, max_new_tokens=6).verification
    assert seen is not None
    assert seen.ok
    assert seen.effect < 1e-5
    assert seen.size > 1e-3
    assert seen.tokens_differing == 0


def test_the_base_model_is_as_it_was_after_verifying(model: LanguageModel, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in model.hf_model.state_dict().items()}
    steering = steering_of(model)
    for target in ("lora", "ia3"):
        export_steering(steering, target, tmp_path / target)
        verify_export(tmp_path / target, model, steering, QUESTIONS, max_new_tokens=4)
    after = model.hf_model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_lora_has_one_rank_one_hot_rows_and_scaled_columns(model: LanguageModel, tmp_path: Path) -> None:
    record = export_steering(steering_of(model), "lora", tmp_path / "lora")
    config = json.loads((tmp_path / "lora/adapter_config.json").read_text())
    tensors = load_file(tmp_path / "lora/adapter_model.safetensors")
    assert record.facts["max_lora_rank"] == config["r"] == config["lora_alpha"] == 8
    assert (config["bias"], config["modules_to_save"], config["target_modules"]) == ("none", None, ["down_proj"])
    assert "rank_pattern" not in config
    assert "--max-lora-rank 8" in record.usage
    assert len(tensors) == 2 * N_LAYERS
    prefix = "base_model.model.model.layers.1.mlp.down_proj"
    a, b = tensors[f"{prefix}.lora_A.weight"], tensors[f"{prefix}.lora_B.weight"]
    assert (tuple(a.shape), tuple(b.shape)) == ((8, D_FF), (D_MODEL, 8))
    assert torch.nonzero(a).tolist() == [[0, 47], [1, 0]]
    weight = model.hf_model.get_parameter("model.layers.1.mlp.down_proj.weight")
    torch.testing.assert_close(b[:, 0], 0.75 * -1.0 * weight[:, 47])
    torch.testing.assert_close(b[:, 1], 0.75 * 2.0 * weight[:, 0])
    assert not b[:, 2:].any()


@pytest.mark.parametrize(("most", "rank"), [(1, 8), (8, 8), (9, 16), (257, 320), (512, 512)])
def test_the_rank_is_the_smallest_that_holds_the_largest_layer(model: LanguageModel, most: int, rank: int) -> None:
    assert rank in RANKS
    assert rank_of(_many(model, most)) == rank


def test_a_rank_that_nobody_serves_is_refused(model: LanguageModel) -> None:
    with pytest.raises(InputError, match=r"513 steered neurons.*export to merged or ia3"):
        rank_of(_many(model, 513))


def _many(model: LanguageModel, n: int) -> Steering:
    one = steering_of(model)
    wide = replace(one.model, d_ff=1024)
    return replace(
        one,
        layer=np.ones(n, np.int64),
        index=np.arange(n),
        gain=np.ones(n, np.float32),
        shift=np.zeros(n, np.float32),
        model=wide,
    )


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_merged_carries_shifts_where_there_is_a_bias(save_tiny: Callable[..., Path], tmp_path: Path, family: str) -> None:
    model = open_tiny(save_tiny(family))
    steering = steering_of(model, shifts=SHIFTS)
    export_steering(steering, "merged", tmp_path / "merged")
    seen = verify_export(tmp_path / "merged", model, steering, QUESTIONS, max_new_tokens=6).verification
    assert seen is not None
    assert seen.effect < 1e-5


def test_merged_refuses_shifts_without_a_bias(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="qwen3 have no bias"):
        export_steering(steering_of(model, shifts=SHIFTS), "merged", tmp_path / "merged")
    assert list(tmp_path.glob("*merged*")) == []


def test_merged_changes_the_columns_and_no_other_byte(model: LanguageModel, tmp_path: Path) -> None:
    export_steering(steering_of(model), "merged", tmp_path / "merged")
    before = load_file(Path(model.identity.name) / "model.safetensors")
    after = load_file(tmp_path / "merged/model.safetensors")
    assert before.keys() == after.keys()
    for name in before:
        different = torch.nonzero(
            (before[name] != after[name]).any(0) if before[name].dim() == 2 else before[name] != after[name]
        )
        layer = int(name.split(".")[2]) if name.endswith("down_proj.weight") else -1
        assert different.flatten().tolist() == {0: [5], 1: [0, 47], 2: [30]}.get(layer, [])
    assert (tmp_path / "merged/tokenizer.json").is_file()


def test_merged_streams_in_pieces_and_across_shards(
    save_tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny("gpt2")
    model = open_tiny(folder)
    steering = steering_of(model, shifts=SHIFTS)
    export_steering(steering, "merged", tmp_path / "whole")
    model.hf_model.save_pretrained(folder, max_shard_size="30KB")
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr("trimtab.export.checkpoint.PIECE", 1000)
    export_steering(steering, "merged", tmp_path / "pieces")
    shards = sorted((tmp_path / "pieces").glob("*.safetensors"))
    assert len(shards) > 2
    whole = load_file(tmp_path / "whole/model.safetensors")
    pieces = {name: value for shard in shards for name, value in load_file(shard).items()}
    assert whole.keys() == pieces.keys()
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)


@pytest.mark.parametrize("target", ["adaras-csv", "json"])
@pytest.mark.parametrize("scope", ["generated", "all"])
def test_lists_read_back_as_the_same_steering(model: LanguageModel, tmp_path: Path, target, scope) -> None:
    steering = steering_of(model, gains=(0, 0, 0, 0), shifts=(1 / 3, -2e-7, 4e8, 0.1), strength=0.3, scope=scope)
    record = export_steering(steering, target, tmp_path / "list")
    (file,) = (tmp_path / "list").glob("neurons.*")
    again = Steering.of(read_neurons(file, model.identity), strength=0.3, scope=scope)
    assert again.digest == steering.digest
    assert f"--strength 0.3 --scope {scope}" in record.usage
    small = steering_of(model, gains=(0, 0, 0, 0), shifts=SHIFTS, scope=scope)
    export_steering(small, target, tmp_path / "small")
    seen = verify_export(tmp_path / "small", model, small, QUESTIONS, max_new_tokens=4).verification
    assert seen is not None
    assert seen.effect == 0


@pytest.mark.parametrize(("gain", "intervention"), [(-1.0, "ablate"), (ENHANCEMENT, "scale")])
def test_json_carries_the_gains_of_an_intervention(model: LanguageModel, tmp_path: Path, gain: float, intervention: str) -> None:
    steering = steering_of(model, gains=(gain,) * 4)
    record = export_steering(steering, "json", tmp_path / "list")
    assert f"--intervention {intervention} " in record.usage
    seen = verify_export(tmp_path / "list", model, steering, QUESTIONS, max_new_tokens=4).verification
    assert seen is not None
    assert seen.ok


def test_json_refuses_gains_of_no_intervention(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="those of ablate or scale"):
        export_steering(steering_of(model), "json", tmp_path / "list")


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "gpt2", "gpt_neox"])
def test_the_dictionary_of_lm_eval_equals_the_hooks(save_tiny: Callable[..., Path], tmp_path: Path, family: str) -> None:
    pytest.importorskip("lm_eval")
    model = open_tiny(save_tiny(family))
    steering = steering_of(model, gains=(0, 0, 0, 0), shifts=SHIFTS)
    with pytest.raises(InputError, match="--allow-pickle"):
        export_steering(steering, "lm-eval", tmp_path / "export")
    export_steering(steering, "lm-eval", tmp_path / "export", allow_pickle=True)
    with pytest.raises(InputError, match="--allow-pickle"):
        verify_export(tmp_path / "export", model, steering, QUESTIONS)
    seen = verify_export(tmp_path / "export", model, steering, QUESTIONS, max_new_tokens=6, allow_pickle=True).verification
    assert seen is not None
    assert seen.effect < 1e-5


def test_a_control_vector_holds_the_shifts_at_the_output(model: LanguageModel, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    steering = steering_of(model, gains=(0, 0, 0, 0), shifts=SHIFTS)
    record = export_steering(steering, "gguf", tmp_path / "gguf", drop=["layer-0"])
    reader = gguf.GGUFReader(tmp_path / "gguf/control-vector.gguf")
    found = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    assert found.keys() == {"direction.1", "direction.2"}
    weight = model.hf_model.get_parameter("model.layers.1.mlp.down_proj.weight").double().numpy()
    np.testing.assert_allclose(found["direction.1"], 0.75 * (-2.0 * weight[:, 47] + 4.0 * weight[:, 0]), rtol=1e-5)
    assert reader.fields["controlvector.model_hint"].contents() == "qwen3"
    assert reader.fields["controlvector.layer_count"].contents() == N_LAYERS
    first = np.linalg.norm(0.75 * 3.0 * model.hf_model.get_parameter("model.layers.0.mlp.down_proj.weight").numpy()[:, 5])
    norms = first + sum(np.linalg.norm(vector) for vector in found.values())
    assert record.facts["share of the shifts dropped with layer 0"] == pytest.approx(first / norms)


@pytest.mark.parametrize("family", ["qwen3", "qwen2"])
def test_a_control_vector_in_llama_cpp_equals_the_hooks(save_tiny: Callable[..., Path], tmp_path: Path, family: str) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("llama_cpp")
    # llama.cpp's kernels ask for rows that are a multiple of 32
    model = open_tiny(save_tiny(family, intermediate_size=64))
    shift = np.array([3.0, -4.0], np.float32)
    steering = Steering(np.array([1, 2]), np.array([5, 60]), np.zeros(2, np.float32), shift, 0.5, "all", ALWAYS, model.identity)
    export_steering(steering, "gguf", tmp_path / "gguf")
    seen = verify_export(tmp_path / "gguf", model, steering, QUESTIONS, max_new_tokens=6).verification
    assert seen is not None
    assert seen.ok
    assert seen.effect < 1e-4


@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_a_control_vector_holds_directions_too(save_tiny: Callable[..., Path], tmp_path: Path, family: str) -> None:
    gguf = pytest.importorskip("gguf")
    model = open_tiny(save_tiny(family))
    vectors = np.random.default_rng(0).normal(size=(2, model.identity.d_model)).astype(np.float32)
    along = Directions(np.array([1, 2]), vectors, "mean-difference", model.identity).steering(0.75, scope="all")
    export_steering(along, "gguf", tmp_path / "gguf")
    found = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(tmp_path / "gguf/control-vector.gguf").tensors}
    np.testing.assert_array_equal(np.stack([found["direction.1"], found["direction.2"]]), np.float32(0.75) * vectors)


@pytest.mark.parametrize("with_neurons", [False, True])
def test_directions_in_llama_cpp_equal_the_hooks_after_the_same_blocks(
    save_tiny: Callable[..., Path], tmp_path: Path, with_neurons: bool
) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("llama_cpp")
    model = open_tiny(save_tiny("qwen3", intermediate_size=64))
    vectors = np.random.default_rng(0).normal(size=(2, model.identity.d_model)).astype(np.float32)
    steering = Directions(np.array([1, 2]), vectors, "mean-difference", model.identity).steering(0.5, scope="all")
    if with_neurons:
        shift = np.array([3.0, -4.0], np.float32)
        steering += Steering(np.array([1, 2]), np.array([5, 60]), 0 * shift, shift, 0.5, "all", ALWAYS, model.identity)
    export_steering(steering, "gguf", tmp_path / "gguf")
    seen = verify_export(tmp_path / "gguf", model, steering, QUESTIONS, max_new_tokens=6).verification
    assert seen is not None
    assert seen.ok
    assert seen.effect < 1e-4


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "olmo2"])
def test_a_norm_after_the_ffn_refuses_a_control_vector(save_tiny: Callable[..., Path], tmp_path: Path, family: str) -> None:
    model = open_tiny(save_tiny(family))
    steering = steering_of(model, gains=(0, 0, 0, 0), shifts=SHIFTS, first_layer=False)
    with pytest.raises(InputError, match="passes a norm or a scale"):
        export_steering(steering, "gguf", tmp_path / "gguf")
