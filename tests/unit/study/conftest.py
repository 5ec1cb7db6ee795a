"""A whole study of a tiny random model, whose answers a coin grades."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from steering_samples import CoinGrader
from study_samples import with_sections
from tiny_testbed import save_tiny_testbed
from trimtab.sampling import generate_batch
from trimtab.sampling import generator as generating
from trimtab.store import AnyPath
from trimtab.study import Settings, Study, parse_settings, run


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_testbed(Path(tmp_path_factory.mktemp("tiny")) / "model")


@pytest.fixture(scope="session")
def settings(tiny_folder: Path) -> Settings:
    return parse_settings(
        {
            "model": {"source": str(tiny_folder)},
            "task": {"source": "testbed", "train": 48, "validation": 36, "test": 40},
            "sampling": {"n": 4, "temperature": 1.0, "max_new_tokens": 12, "batch_tokens": 2500},
            "recording": {"batch_tokens": 1500},
            "ranking": {"k": 10},
            "gate": {"features": 16},
            "tune": {"k": [2, 5], "strengths": [10.0, 100.0], "problems": 20},
        },
        "the test",
    )


@pytest.fixture(scope="module", autouse=True)
def coin() -> Iterator[pytest.MonkeyPatch]:
    """Makes every study grade by :class:`CoinGrader`: a random model answers nothing right."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "grader", property(lambda study: CoinGrader()))
        yield patch


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> Path:
    """The folder of an undisturbed run; no test changes it."""
    folder = Path(tmp_path_factory.mktemp("run")) / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "grader", property(lambda study: CoinGrader()))
        with Study(settings=settings, path=folder) as study:
            run(study)
    return folder


@pytest.fixture
def study(finished: Path) -> Study:
    """A new study on the finished run: what it asks for is read."""
    return Study.from_toml(finished)


@pytest.fixture
def small(settings: Settings, coin: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Study]:
    """A study of few problems in a folder of its own, with some sections changed."""

    def make(path: AnyPath | None = None, **sections: object) -> Study:
        said = with_sections(settings, task={"source": "testbed", "train": 12, "validation": 8, "test": 8})
        said = with_sections(said, gate={"kind": "always"}, tune={"strengths": (100.0,), "k": (2,), "problems": 8})
        said = with_sections(said, evaluation={"controls": ()})
        return Study(settings=with_sections(said, **sections), path=path or tmp_path / "run")

    return make


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all batches that are generated from now on."""
    seen: list[int] = []

    def counted(*args: object, **options: object) -> object:
        seen.append(len(args[1]))  # type: ignore[arg-type]
        return generate_batch(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(generating, "generate_batch", counted)
    return seen
