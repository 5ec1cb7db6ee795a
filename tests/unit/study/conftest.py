"""A whole run on a tiny random model, whose answers a coin grades."""

from pathlib import Path

import pytest
from trimtab.pipeline import Line, RunConfig, run
from trimtab.pipeline.config import parse_config

from steering_samples import CoinGrader
from tiny_testbed import save_tiny_testbed


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_testbed(Path(tmp_path_factory.mktemp("tiny")) / "model")


@pytest.fixture(scope="session")
def config(tiny_folder: Path) -> RunConfig:
    return parse_config(
        {
            "model": {"source": str(tiny_folder)},
            "task": {"source": "testbed", "train": 48, "tune": 36, "test": 40},
            "sampling": {"n": 4, "temperature": 1.0, "max_new_tokens": 12, "batch_tokens": 2500},
            "recording": {"batch_tokens": 1500},
            "ranking": {"k": 10},
            "gate": {"features": 16},
            "tune": {"k": [2, 5], "strengths": [10.0, 100.0], "problems": 20},
        },
        "the test",
    )


@pytest.fixture(scope="session")
def coin() -> "pytest.MonkeyPatch":
    """Makes every line grade by :class:`CoinGrader`: a random model answers nothing right."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Line, "grader", property(lambda line: CoinGrader()))
        yield patch


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, config: RunConfig, coin: pytest.MonkeyPatch) -> Path:
    """The run directory of an undisturbed run; no test changes it."""
    return run(config, Path(tmp_path_factory.mktemp("run")) / "run")
