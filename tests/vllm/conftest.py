"""Engines of the live tests. The whole folder is skipped where vLLM is not installed."""

from pathlib import Path
from typing import Any

import pytest

from live_engines import MODEL, Figures, artifacts, start
from running_gates import RUNNING
from trimtab.model import LanguageModel, open_model
from trimtab.vllm_plugin.config import PluginConfig, installed

# this folder is found as a module vllm where there is none, so only the package's own record tells
collect_ignore_glob = [] if installed() else ["*"]

_FIGURES = pytest.StashKey[list[str]]()


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line of the suite."""
    if found := config.stash.get(_FIGURES, []):
        print(f"vLLM {installed()}: {'; '.join(found)}")


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Figures:
    """Collects figures for the line that the suite ends with."""
    return pytestconfig.stash.setdefault(_FIGURES, []).append


@pytest.fixture(scope="session")
def reasoner() -> LanguageModel:
    """The bundled reasoner in transformers."""
    return open_model(MODEL, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def steerings(reasoner: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of the tests' steerings by name."""
    return artifacts(reasoner, Path(tmp_path_factory.mktemp("steerings")))


@pytest.fixture(scope="session")
def eager(steerings: dict[str, str]) -> Any:
    """An engine without compilation, with room for more steerings; prompts are read in chunks."""
    given = {name: path for name, path in steerings.items() if name not in ("ivy", "other")}
    return start(PluginConfig(steerings=given, max_steerings=14, monitor=True), max_num_batched_tokens=32)


@pytest.fixture(scope="session")
def compiled(steerings: dict[str, str]) -> Any:
    """A compiled engine with small batches of tokens, so that most prompts are read in chunks."""
    given = {name: steerings[name] for name in ("mild", "mild-gated", "six", "sun", "gated", *RUNNING)}
    return start(PluginConfig(steerings=given, max_steerings=14, monitor=True), enforce_eager=False, max_num_batched_tokens=32)


@pytest.fixture(scope="session")
def cramped(steerings: dict[str, str]) -> Any:
    """An engine with too little cache for its requests, so that it preempts some."""
    given = {name: steerings[name] for name in ("mild", "mild-gated", "six", "sun", "gated", *RUNNING)}
    return start(PluginConfig(steerings=given, max_steerings=14), num_gpu_blocks_override=9, max_model_len=192)
