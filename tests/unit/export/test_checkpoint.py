"""Checkpoints read from their files agree with the opened model."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_models import FAMILIES, MIXTURES
from trimtab.errors import ModelError
from trimtab.export.checkpoint import open_checkpoint
from trimtab.model import down_weights, open_model


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in MIXTURES])
@pytest.mark.parametrize("tied", [False, True])
def test_identity_and_columns_are_those_of_the_opened_model(save_tiny: Callable[..., Path], family: str, tied: bool) -> None:
    folder = save_tiny(family, tied=tied)
    model, checkpoint = open_model(folder), open_checkpoint(str(folder))
    assert checkpoint.identity == model.identity
    index = np.array([7, 2, 40])
    np.testing.assert_array_equal(checkpoint.columns(1, index), down_weights(model, [1])[1][:, index])
    assert [model.hf_model.get_submodule(down.module) for down in checkpoint.down] == list(model.layout.down)


def test_the_suffix_does_not_catch_the_attention_of_gpt2(save_tiny: Callable[..., Path]) -> None:
    assert open_checkpoint(str(save_tiny("gpt2"))).suffix == "mlp.c_proj"


@pytest.mark.parametrize("family", MIXTURES)
def test_a_mixture_is_refused(save_tiny: Callable[..., Path], family: str) -> None:
    with pytest.raises(ModelError, match="mixture of experts, which no target can express"):
        open_checkpoint(str(save_tiny(family)))


def test_a_quantised_checkpoint_is_refused(save_tiny: Callable[..., Path]) -> None:
    folder = save_tiny("qwen3")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "awq", "bits": 4}}))
    with pytest.raises(ModelError, match="quantised checkpoint"):
        open_checkpoint(str(folder))


def test_a_missing_down_projection_and_a_truncated_file_are_named(save_tiny: Callable[..., Path]) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_tiny("qwen3")
    path = folder / "model.safetensors"
    whole = load_file(path)
    name = "model.layers.1.mlp.down_proj.weight"
    save_file({key: value.clone() for key, value in whole.items() if key != name}, path)
    with pytest.raises(ModelError, match=f"no tensor {name}"):
        open_checkpoint(str(folder))
    save_file({**{k: v.clone() for k, v in whole.items()}, name: whole[name].to(torch.int8)}, path)
    with pytest.raises(ModelError, match=r"down_proj.weight as I8 .*quantised or foreign"):
        open_checkpoint(str(folder))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="truncated or not a safetensors file"):
        open_checkpoint(str(folder))
    path.unlink()
    with pytest.raises(ModelError, match="no safetensors files"):
        open_checkpoint(str(folder))
