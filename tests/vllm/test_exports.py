"""A LoRA and a merged checkpoint of the bundled reasoner, loaded by vLLM and compared with the hooks."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from live_engines import Figures
from sealed_exports import sealed_again
from tiny_testbed import some_problems
from trimtab.cli.verify import verify_command
from trimtab.export.exporting import export_steering
from trimtab.export.parts import TargetName
from trimtab.export.verify import verify_export
from trimtab.gate import ALWAYS
from trimtab.model import LanguageModel
from trimtab.steering import Steering
from trimtab.traces import Split

MODEL = "testbed:reasoner"
N = 60
QUESTIONS = [problem.question for problem in some_problems(6, Split.VALIDATION)]


@pytest.fixture(scope="module")
def silenced(reasoner: LanguageModel) -> Steering:
    """Neurons of all layers but the first, silenced at every position."""
    flat = np.random.default_rng(0).permutation(np.arange(reasoner.d_ff, reasoner.identity.n_neurons))[:N]
    gains, none = np.full(N, -1.0, np.float32), np.zeros(N, np.float32)
    return Steering(flat // reasoner.d_ff, flat % reasoner.d_ff, gains, none, 1.0, "all", ALWAYS, reasoner.identity)


@pytest.mark.parametrize("target", ["lora", "merged"])
def test_vllm_does_what_the_hooks_do(
    reasoner: LanguageModel, silenced: Steering, tmp_path: Path, target: TargetName, figures: Figures
) -> None:
    export_steering(silenced, target, tmp_path / target)
    record = verify_export(tmp_path / target, reasoner, silenced, QUESTIONS, max_new_tokens=48, engine="vllm")
    seen = record.elsewhere["vllm"]
    figures(f"effect of an exported {target} differs by {seen.effect:.1e}")
    assert seen.ok
    assert seen.effect < 1e-4  # 3.6e-6 and 3.4e-6 with 200 neurons on 20 problems
    assert seen.size > 0.01
    assert seen.tokens_differing == 0
    assert seen.engine.startswith("vllm 0.3")
    assert record.verification is None
    assert f"Passed: reloaded with {seen.engine}" in (tmp_path / target / "README.md").read_text()


@pytest.mark.parametrize(("target", "file", "tensor"), [("lora", "adapter_model", "lora_B"), ("merged", "model", "down_proj")])
def test_a_damaged_export_is_seen(
    reasoner: LanguageModel, silenced: Steering, tmp_path: Path, target: TargetName, file: str, tensor: str
) -> None:
    export_steering(silenced, target, tmp_path / target)
    damage(tmp_path / target / f"{file}.safetensors", lambda name: tensor in name and ".3." in name)
    record = verify_export(tmp_path / target, reasoner, silenced, QUESTIONS[:2], max_new_tokens=16, engine="vllm")
    assert not record.elsewhere["vllm"].ok


@pytest.mark.parametrize("kind", ["keys of another model", "modules without down_proj"])
def test_a_lora_that_vllm_ignores_is_seen(silenced: Steering, tmp_path: Path, kind: str) -> None:
    """vLLM takes both without a word, and answers HTTP 200 as the base model."""
    export_steering(silenced, "lora", tmp_path / "lora")
    options = ["--engine", "vllm", "--task", "testbed", "--limit", "2", "--max-new-tokens", "16", "--quiet"]
    if kind.startswith("keys"):
        weights = tmp_path / "lora" / "adapter_model.safetensors"
        renamed = {name.replace("model.layers.", "transformer.layers."): each for name, each in load_file(weights).items()}
        save_file(renamed, weights, {"format": "pt"})
        sealed_again(tmp_path / "lora")
    else:
        options += ["--lora-target-modules", "gate_up_proj"]
    artifact = silenced.save_pretrained(tmp_path / "steering")
    told = CliRunner().invoke(
        verify_command, [str(tmp_path / "lora"), "--model", MODEL, "--steering", str(artifact), *options], catch_exceptions=False
    )
    assert told.exit_code == 1, told.output
    assert "answers as the base model" in told.output


def test_a_plugin_in_the_environment_does_not_steer_beside_an_export(
    reasoner: LanguageModel, silenced: Steering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubled = {"steerings": {"s": str(silenced.save_pretrained(tmp_path / "s"))}, "default": "s"}
    monkeypatch.setenv("TRIMTAB_VLLM", json.dumps(doubled))
    export_steering(silenced, "merged", tmp_path / "merged")
    record = verify_export(tmp_path / "merged", reasoner, silenced, QUESTIONS[:2], max_new_tokens=16, engine="vllm")
    assert record.elsewhere["vllm"].ok


def damage(path: Path, chosen: Callable[[str], bool]) -> None:
    """Set tensors to zero."""
    tensors = load_file(path)
    names = [name for name in tensors if chosen(name)]
    assert names
    save_file({**tensors, **{name: torch.zeros_like(tensors[name]) for name in names}}, path, {"format": "pt"})
    sealed_again(path.parent)


def test_from_the_command_line(silenced: Steering, tmp_path: Path) -> None:
    artifact = silenced.save_pretrained(tmp_path / "steering")
    export_steering(silenced, "lora", tmp_path / "lora")
    command = [str(tmp_path / "lora"), "--model", MODEL, "--steering", str(artifact), "--engine", "vllm", "--task", "testbed"]
    told = CliRunner().invoke(verify_command, [*command, "--limit", "2", "--max-new-tokens", "16", "--json", "--quiet"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout.splitlines()[-1])["elsewhere"]["vllm"]["prompts"] == 2
