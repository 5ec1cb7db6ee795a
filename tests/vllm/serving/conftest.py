"""One server for all tests of this folder, with steerings whose answers cannot be confused."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sentinels import QUESTIONS, WORDS, half_open, last_tokens, sentinel
from trimtab.gate import Gate
from trimtab.model import LanguageModel
from trimtab.tasks import render_prompt
from vllm_server import Server, serving


@pytest.fixture(scope="session")
def prompts(reasoner: LanguageModel) -> list[list[int]]:
    return [list(render_prompt(reasoner.tokenizer, question)) for question in QUESTIONS]


@pytest.fixture(scope="session")
def gate(reasoner: LanguageModel, prompts: list[list[int]]) -> Gate:
    return half_open(reasoner, prompts)


@pytest.fixture(scope="session")
def p_fail(reasoner: LanguageModel, prompts: list[list[int]], gate: Gate) -> list[float]:
    """What the gate of ``gated`` sees in transformers, question by question."""
    return gate.probability(last_tokens(reasoner, prompts)).tolist()


@pytest.fixture(scope="session")
def artifacts(reasoner: LanguageModel, gate: Gate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a sentinel, and ``gated``: the sentinel ``six`` behind a gate that fires on half of the questions."""
    folder = tmp_path_factory.mktemp("artifacts")
    for name in WORDS:
        sentinel(reasoner, name).save_pretrained(folder / name)
    sentinel(reasoner, "six", gate=gate).save_pretrained(folder / "gated")
    return folder


@pytest.fixture(scope="session")
def server(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``minus``, the default, ``six`` and ``gated`` are loaded; ``sun`` and ``ivy`` can be, one of them at a time."""
    loaded = [f"--steering={artifacts / name}" for name in ("minus", "six", "gated")]
    options = [*loaded, "--default=minus", "--max-steerings=4", "--monitor", f"--load-from={artifacts}"]
    options += ["--dtype=float32", "--enable-scale-out"]  # float32: a batch of another shape gives the same words
    options += ["--block-size=32", "--num-gpu-blocks-override=60"]  # too few for 64 long requests: some are preempted
    with serving(tmp_path_factory.mktemp("server"), options) as made:
        yield made
