"""A small finished run of the bundled reasoner, made once a session; every test works on its own copy of the answers."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from trimtab.pipeline import RunConfig, run
from trimtab.pipeline.config import RankingSettings, RecordingSection
from trimtab.pipeline.experimenting import workbench
from trimtab.pipeline.line import Line

from trimtab.evaluation.tune import TuneSettings
from trimtab.experiments import ExperimentSettings, Workbench
from trimtab.sampling import SamplingSettings
from trimtab.store import RunDirectory
from trimtab.tasks.loading import TaskSettings
from trimtab.traces import Problem, Split

CONFIG = RunConfig(
    task=TaskSettings(source="testbed", train=48, validation=30, test=40),
    sampling=SamplingSettings(n=4, temperature=1.0, max_new_tokens=64, batch_tokens=36_000),
    recording=RecordingSection(moments=("sum", "magnitude", "square")),
    ranking=RankingSettings(criteria=("adaras", "mean-difference"), k=20),
    tune=TuneSettings(interventions=("ablate-and-add",), k=(10,), strengths=(2.0,), problems=30),
    experiment=ExperimentSettings(random_sets=2),
)


LEFT = {"calendar", "cups", "dial"}


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory, tuned but not evaluated. Do not write into it."""
    return run(CONFIG, tmp_path_factory.mktemp("experiments") / "run", until="tune")


@pytest.fixture
def run_copy(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the small run that a test may change."""
    return Path(shutil.copytree(small_run, tmp_path / "run"))


@pytest.fixture
def bench(small_run: Path, tmp_path: Path) -> Iterator[Workbench]:
    """The workbench of the small run; answers go to the test's own folder."""
    with RunDirectory.open(small_run) as directory, Line(CONFIG, directory) as line:
        yield replace(workbench(line), folder=tmp_path / "answers")


@pytest.fixture
def halved(bench: Workbench) -> Workbench:
    """The bench with two domains, so that each is large enough."""

    def merged(problem: Problem) -> Problem:
        return replace(problem, domain="left" if problem.domain in LEFT else "right")

    problems = {split: [merged(p) for p in problems] for split, problems in bench.problems.items()}
    return replace(bench, problems={**problems, Split.TEST: problems[Split.TEST][:24]})
