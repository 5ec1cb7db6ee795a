"""Engines of the live tests. The whole folder is skipped where vLLM is not installed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from live_engines import MODEL, artifacts, start, stop
from trimtab.model import OpenModel, open_model
from trimtab.vllm_plugin.config import PluginConfig


@pytest.fixture(scope="session")
def reasoner() -> OpenModel:
    """The bundled reasoner in transformers."""
    return open_model(MODEL, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def steerings(reasoner: OpenModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of the tests' steerings by name."""
    return artifacts(reasoner, Path(tmp_path_factory.mktemp("steerings")))


@pytest.fixture(scope="session")
def eager(steerings: dict[str, str]) -> Iterator[Any]:
    """An engine without compilation, with room for more steerings; prompts are read in chunks."""
    given = {name: path for name, path in steerings.items() if name not in ("ivy", "other")}
    llm = start(PluginConfig(steerings=given, slots=7, monitor=True), max_num_batched_tokens=32)
    yield llm
    stop(llm)


@pytest.fixture(scope="session")
def compiled(steerings: dict[str, str]) -> Iterator[Any]:
    """A compiled engine with small batches of tokens, so that most prompts are read in chunks."""
    given = {name: steerings[name] for name in ("mild", "mild-gated", "six", "sun", "gated")}
    llm = start(PluginConfig(steerings=given, monitor=True), enforce_eager=False, max_num_batched_tokens=32)
    yield llm
    stop(llm)
