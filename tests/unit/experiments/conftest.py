"""A small tuned study of the bundled reasoner, computed once a session; every test works on its own copy of the cache."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.experiments import Workbench
from trimtab.study import Problems, Settings, Study, parse_settings
from trimtab.traces import Problem, Split

SETTINGS: Settings = parse_settings(
    {
        "task": {"source": "testbed", "train": 48, "validation": 30, "test": 40},
        "sampling": {"n": 4, "temperature": 1.0, "max_new_tokens": 64, "batch_tokens": 36_000},
        "recording": {"moments": ("sum", "magnitude", "square")},
        "ranking": {"criteria": ("adaras", "mean-difference"), "k": 20},
        "tune": {"interventions": ("ablate-and-add",), "k": (10,), "strengths": (2.0,), "problems": 30},
        "experiment": {"random_sets": 2},
    },
    "the tests",
)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory, tuned but not evaluated. Do not write into it."""
    path = tmp_path_factory.mktemp("experiments") / "run"
    with Study(path=path, settings=SETTINGS) as study:
        study.tune()
        study.save()
    return path


@pytest.fixture
def run_copy(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the small run that a test may change."""
    return Path(shutil.copytree(small_run, tmp_path / "run"))


@pytest.fixture
def study(run_copy: Path) -> Iterator[Study]:
    """The small study on the test's own copy."""
    with Study.from_toml(run_copy) as study:
        yield study


@pytest.fixture
def bench(study: Study) -> Workbench:
    """The workbench of the small study; answers go to the test's own copy."""
    return Workbench(study, study.tuned())


LEFT = {"calendar", "cups", "dial"}


@pytest.fixture
def halved(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """The bench with two domains, so that each is large enough."""

    def merged(problem: Problem) -> Problem:
        return replace(problem, domain="left" if problem.domain in LEFT else "right")

    all_of = bench.study.problems()
    splits = {split: [merged(problem) for problem in all_of.split(split)] for split in Split}
    fewer = [*splits[Split.TRAIN], *splits[Split.VALIDATION], *splits[Split.TEST][:24]]
    monkeypatch.setattr(bench.study, "problems", lambda: Problems(tuple(fewer), all_of.digests, all_of.facts))
    return bench
