"""One server for all tests of this folder, with steerings whose answers cannot be confused."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from running_gates import running_gates
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
def artifacts(reasoner: LanguageModel, prompts: list[list[int]], gate: Gate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a sentinel; ``gated``, which is ``six`` behind a gate that fires on half of the questions; and ``watchful``, which
    is ``six`` behind one that opens at other tokens of each response, or not at all."""
    folder = tmp_path_factory.mktemp("artifacts")
    for name in WORDS:
        sentinel(reasoner, name).save_pretrained(folder / name)
    sentinel(reasoner, "six", gate=gate).save_pretrained(folder / "gated")
    running = replace(running_gates(reasoner, prompts, gate)["last-open"], threshold=0.95, release=None, after=4)
    sentinel(reasoner, "six", gate=running).save_pretrained(folder / "watchful")
    return folder


@pytest.fixture(scope="session")
def server(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``minus``, the default, ``six``, ``gated`` and ``watchful`` are loaded; ``sun`` and ``ivy`` can be, one of them at a time.
    ``watchful`` watches unsteered requests."""
    loaded = [f"--steering={artifacts / name}" for name in ("minus", "six", "gated", "watchful")]
    options = [*loaded, "--default=minus", "--max-steerings=5", "--monitor", "--watch=watchful", f"--load-from={artifacts}"]
    options += ["--dtype=float32", "--enable-scale-out"]  # float32: a batch of another shape gives the same words
    options += ["--block-size=32", "--num-gpu-blocks-override=60"]  # too few for 64 long requests: some are preempted
    with serving(tmp_path_factory.mktemp("server"), options) as made:
        yield made
