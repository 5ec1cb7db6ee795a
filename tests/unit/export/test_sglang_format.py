"""An exported LoRA keeps to what SGLang's loader reads. A test of the format alone: SGLang itself is not run.

The expectations are those of ``python/sglang/srt/lora`` in sgl-project/sglang. ``lora_config.py`` reads ``target_modules``,
``r`` and ``lora_alpha`` of adapter_config.json and sets entries of ``rank_pattern``, ``alpha_pattern`` and added tokens apart;
``utils.py`` takes the last part of a target's name and knows ``down_proj``; ``lora.py`` finds the layer by ``layers.N.`` and
the matrix by ``lora_A`` or ``lora_B`` in a tensor's name; ``mem_pool.py`` copies A as ``[r, d_ff]`` and B as ``[d_model, r]``.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from export_samples import open_tiny, steering_of
from tiny_models import D_FF, D_MODEL, N_LAYERS
from trimtab.export.exporting import export_steering


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gemma2", "phi3", "olmo2"])
def test_a_lora_is_what_sglang_loads(save_tiny: Callable[..., Path], tmp_path: Path, family: str) -> None:
    export_steering(steering_of(open_tiny(save_tiny(family))), "lora", tmp_path / "lora")
    config = json.loads((tmp_path / "lora/adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert isinstance(config["target_modules"], list)
    assert {name.split(".")[-1] for name in config["target_modules"]} == {"down_proj"}
    assert config["lora_alpha"] / config["r"] == 1.0
    assert not config.get("rank_pattern")
    assert not config.get("alpha_pattern")
    assert not config.get("use_dora")
    assert not (tmp_path / "lora/added_tokens.json").exists()
    found = {}
    for name, tensor in load_file(tmp_path / "lora/adapter_model.safetensors").items():
        layer = re.search(r"layers\.(\d+)\.", name)
        assert layer is not None
        assert "down_proj" in name
        found[int(layer[1]), "A" if "lora_A" in name else "B"] = tensor.shape
    rank = config["r"]
    assert found == {(i, side): (rank, D_FF) if side == "A" else (D_MODEL, rank) for i in range(N_LAYERS) for side in "AB"}


@pytest.mark.parametrize(("family", "name"), [("gpt2", "c_proj"), ("gpt_neox", "dense_4h_to_h")])
def test_families_that_sglang_has_no_lora_for(save_tiny: Callable[..., Path], tmp_path: Path, family: str, name: str) -> None:
    """Their down projections have other names, which docs/deploy.md says."""
    export_steering(steering_of(open_tiny(save_tiny(family))), "lora", tmp_path / "lora")
    targets = json.loads((tmp_path / "lora/adapter_config.json").read_text())["target_modules"]
    assert [target.split(".")[-1] for target in targets] == [name]
