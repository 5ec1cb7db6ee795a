"""A small study of the bundled reasoner, tuned once a session; answers are kept in its cache, whoever asks."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from search_samples import changed
from trimtab.experiments import Search
from trimtab.study import Study
from trimtab.traces import Problem, Split

SETTINGS = {
    "model": {"source": "testbed:reasoner"},
    "task": {"source": "testbed", "train": 48, "validation": 30, "test": 40},
    "sampling": {"n": 4, "temperature": 1.0, "max_new_tokens": 64, "batch_tokens": 36_000},
    "recording": {"moments": ["sum", "magnitude", "square"]},
    "ranking": {"criteria": ["adaras", "mean-difference"], "k": 20},
    "tune": {"interventions": ["ablate-and-add"], "k": [10], "strengths": [2.0], "problems": 30},
    "evaluation": {"trained": {"max_steps": 2}},
    "experiment": {"random_sets": 2},
}
LEFT = {"calendar", "cups", "dial"}


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """A tuned study that nothing was evaluated on."""
    with Study(settings=SETTINGS, path=tmp_path_factory.mktemp("experiments") / "run") as made:
        made.tune()
        yield made


@pytest.fixture(scope="session")
def search(study: Study) -> Search:
    """The search of the study; it may read every split."""
    return Search(study, study.tuned())


@pytest.fixture
def halved(search: Search) -> Search:
    """The search with two domains, so that each is large enough."""

    def merged(problem: Problem) -> Problem:
        return replace(problem, domain="left" if problem.domain in LEFT else "right")

    problems = {split: [merged(p) for p in problems] for split, problems in search.problems.items()}
    return changed(search, problems={**problems, Split.TEST: problems[Split.TEST][:24]})
