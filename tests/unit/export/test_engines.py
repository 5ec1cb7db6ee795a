"""Who opens an export: the target's own loader, or vLLM where it is installed; and where the results stand."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from export_samples import QUESTIONS, steering_of
from sealed_exports import sealed_again
from trimtab.errors import InputError, ModelError
from trimtab.export.engines import VllmEngine
from trimtab.export.exporting import TARGETS, export_steering, opener_of
from trimtab.export.record import Verification, read_export, render_card
from trimtab.export.target import Answered
from trimtab.export.verify import verify_export
from trimtab.model import LanguageModel
from trimtab.vllm_plugin.config import installed


def test_a_target_is_opened_by_its_own_loader_unless_told() -> None:
    assert all(opener_of(name, "own") == target.open for name, target in TARGETS.items())
    for name in set(TARGETS) - {"lora", "merged"}:
        with pytest.raises(InputError, match=f"vLLM does not load an export to {name}; it loads lora, merged"):
            opener_of(name, "vllm")


@pytest.mark.skipif(installed() is not None, reason="vLLM is installed")
@pytest.mark.parametrize("target", ["lora", "merged"])
def test_without_vllm_there_is_one_message(model: LanguageModel, tmp_path: Path, target) -> None:
    steering = steering_of(model)
    export_steering(steering, target, tmp_path / target)
    with pytest.raises(ModelError, match="vLLM is not installed"):
        verify_export(tmp_path / target, model, steering, QUESTIONS, max_new_tokens=4, engine="vllm")
    assert read_export(tmp_path / target).elsewhere == {}


def test_modules_of_a_lora_are_vllms_alone(model: LanguageModel, tmp_path: Path) -> None:
    steering = steering_of(model)
    export_steering(steering, "lora", tmp_path / "lora")
    with pytest.raises(InputError, match="give engine vllm, and a LoRA"):
        verify_export(tmp_path / "lora", model, steering, QUESTIONS, max_new_tokens=4, lora_modules=["down_proj"])


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_a_lora_whose_keys_are_of_another_model_is_seen(model: LanguageModel, tmp_path: Path) -> None:
    """peft warns, and goes on with the base model."""
    steering = steering_of(model)
    export_steering(steering, "lora", tmp_path / "lora")
    weights = tmp_path / "lora" / "adapter_model.safetensors"
    save_file({name.replace("layers.", "blocks."): each for name, each in load_file(weights).items()}, weights, {"format": "pt"})
    sealed_again(tmp_path / "lora")
    seen = verify_export(tmp_path / "lora", model, steering, QUESTIONS, max_new_tokens=4).verification
    assert seen is not None
    assert (seen.ok, seen.size) == (False, 0.0)


def test_both_sides_of_a_comparison_are_computed_once_for_a_sequence() -> None:
    asked = []

    def compute(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(tokens)
        return tokens * 1.0, tokens * 2.0

    engine = VllmEngine("vllm 0", compute)
    for ids in ([1, 2], [3, 4]):
        sequence = Answered(torch.tensor(ids), 1)
        assert engine.bare(sequence).tolist() == ids
        assert engine.steered(sequence).tolist() == [2 * i for i in ids]
        assert engine.bare(sequence).tolist() == ids
    assert [tokens.tolist() for tokens in asked] == [[1, 2], [3, 4]]


def test_the_card_shows_every_engine(model: LanguageModel, tmp_path: Path) -> None:
    record = export_steering(steering_of(model), "lora", tmp_path / "lora")
    assert "Not verified yet" in render_card(record)
    seen = Verification(
        engine="vllm 0.32.0",
        dtype="float32",
        prompts=2,
        positions=9,
        effect=2e-6,
        tolerance=1e-3,
        size=0.1,
        tokens=9,
        tokens_differing=0,
        near_ties=0,
    )
    other = seen.model_copy(update={"engine": "peft 0.18", "effect": 0.5})
    card = render_card(record.model_copy(update={"verification": other, "elsewhere": {"vllm": seen}}))
    assert card.index("FAILED: reloaded with peft 0.18") < card.index("Passed: reloaded with vllm 0.32.0")
    assert "Not verified yet" not in card
