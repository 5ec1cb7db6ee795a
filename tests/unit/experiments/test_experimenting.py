"""An experiment by its name: kept once computed, written down in the ledger, and kept from what it may not read."""

import pytest

from trimtab.errors import ConfigError, InputError
from trimtab.experiments import EXPERIMENT_NAMES, EXPERIMENTS, Experiment, Search
from trimtab.findings import Findings
from trimtab.study import Study
from trimtab.study import study as module
from trimtab.traces import Split


def test_every_name_is_its_own_experiment() -> None:
    assert set(EXPERIMENTS) == set(EXPERIMENT_NAMES)
    for name, experiment in EXPERIMENTS.items():  # a module of the same name would hide the function
        assert getattr(experiment.run, "__name__", "").replace("_", "-") == name


def test_it_is_computed_once_and_survives_its_json(study: Study) -> None:
    found = study.experiment("causal")
    opened = study.openings()
    assert opened > 0
    assert Findings.from_json(found.to_json()).to_json() == found.to_json()
    assert study.experiment("causal").to_json() == found.to_json()
    assert study.openings() == opened


def test_what_it_must_not_read_is_not_there(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def peek(search: Search) -> Findings:
        search.answers(Split.TEST, None)
        raise AssertionError("the test split was read")

    closed = Experiment(peek, frozenset((Split.TRAIN, Split.VALIDATION)))
    monkeypatch.setattr(module, "EXPERIMENTS", {**EXPERIMENTS, "sweep": closed})
    opened = study.openings()
    with pytest.raises(InputError, match="must not read the test split"):
        study.experiment("sweep")
    assert study.openings() == opened


def test_an_unknown_experiment_names_those_that_exist(study: Study) -> None:
    with pytest.raises(ConfigError, match="unknown experiment 'cause'; accepted: ablate"):
        study.experiment("cause")  # type: ignore[arg-type]


def test_another_setting_is_another_result_and_another_opening(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []

    def count(search: Search) -> Findings:
        problems = search.split(Split.TEST)[: 2 + search.settings.random_sets]
        search.answers(Split.TEST, None, problems=problems)
        runs.append(len(problems))
        return Findings("causal", "Counting", "How many?", (f"{len(problems)} problems.",), "test")

    monkeypatch.setattr(module, "EXPERIMENTS", {**EXPERIMENTS, "causal": Experiment(count, frozenset(Split))})
    other = Study(settings=study.settings, path=study.path)
    opened = other.openings()
    for n in (3, 4, 3):
        assert other.experiment("causal", random_sets=n).sentences == (f"{n + 2} problems.",)
    assert runs == [5, 6]
    assert other.openings() == opened + 2
    with pytest.raises(ConfigError, match=r"random_set: unknown; did you mean random_sets\?"):
        other.experiment("causal", random_set=1)
