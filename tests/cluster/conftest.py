"""One small cluster for all live tests, and the model that its actors open."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tiny_testbed import save_tiny_testbed
from trimtab.model import LanguageModel, open_model

ray = pytest.importorskip("ray")
HELPERS, SOURCE = Path(__file__).parents[1] / "helpers", Path(__file__).parents[2] / "src"
LIMIT_S = 600


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the processes of every cluster inherit: the tests' own modules, one thread, and no usage statistics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HELPERS), str(SOURCE)]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """A cluster that waits for ever ends its test."""
    import signal

    def expired(*_: object) -> None:
        raise TimeoutError(f"a live test ran for more than {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def cluster(environment: None) -> Iterator[None]:
    """Three CPUs to Ray, whatever the machine has, and no GPU."""
    ray.init(address="local", num_cpus=3, num_gpus=0, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_testbed(Path(tmp_path_factory.mktemp("tiny")) / "model")


@pytest.fixture(scope="session")
def model(environment: None, model_folder: Path) -> LanguageModel:
    return open_model(model_folder)
