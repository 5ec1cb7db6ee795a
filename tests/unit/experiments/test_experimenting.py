"""An experiment of a study: kept under its key, noted in the ledger, and kept away from what it may not read."""

import json
from dataclasses import dataclass

import pytest

from trimtab.errors import ConfigError, InputError
from trimtab.experiments import EXPERIMENT_NAMES, EXPERIMENTS, Experiment, Workbench
from trimtab.findings import Findings, Frame
from trimtab.store import openings
from trimtab.study import Study
from trimtab.traces import Split


@dataclass
class Counting:
    """An experiment on the first test problems, which counts how often it is run."""

    runs: int = 0

    def __call__(self, bench: Workbench) -> Findings:
        self.runs += 1
        problems = bench.split(Split.TEST)[: 2 + bench.settings.random_sets]
        correct = [outcome.correct for outcome in bench.answers(Split.TEST, None, problems=problems)]
        rows = [{"label": "unsteered", "n": len(correct), "value": sum(correct) / len(correct), "unit": "share"}]
        return Findings(
            name="causal",
            title="Counting",
            question="How many are correct?",
            sentences=(f"{sum(correct)} of {len(correct)} are correct.",),
            split="test",
            frames=(Frame("accuracy", "Accuracy", rows),),
        )


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    """In the place of ``causal``."""
    experiment = Counting()
    monkeypatch.setattr("trimtab.study.study.EXPERIMENTS", {**EXPERIMENTS, "causal": Experiment(experiment, frozenset(Split))})
    return experiment


def test_every_name_has_an_experiment() -> None:
    assert set(EXPERIMENTS) == set(EXPERIMENT_NAMES)
    for name, experiment in EXPERIMENTS.items():  # a module of the same name would hide the function
        assert getattr(experiment.run, "__name__", "").replace("_", "-") == name


def test_it_is_computed_once_and_its_opening_is_written_down(study: Study, counting: Counting) -> None:
    found = study.experiment("causal")
    assert counting.runs == 1
    ledger = study.cache.ledger
    assert openings(ledger) == 1
    assert json.loads(ledger.read_text().splitlines()[0])["command"] == "causal"
    with Study.from_toml(str(study.path)) as other:
        read = other.experiment("causal")
    assert study.experiment("causal").to_json() == read.to_json() == found.to_json()
    assert (counting.runs, openings(ledger)) == (1, 1), "a cached read runs and opens nothing"


def test_another_setting_is_another_result(study: Study, counting: Counting) -> None:
    first = study.experiment("causal")
    with pytest.raises(ConfigError, match=r"random_set: unknown; did you mean random_sets\?"):
        study.experiment("causal", random_set=1)
    second = study.experiment("causal", random_sets=1)
    assert (counting.runs, openings(study.cache.ledger)) == (2, 2)
    assert first.frames[0].rows[0]["n"] == 4
    assert second.frames[0].rows[0]["n"] == 3
    assert study.experiment("causal", random_sets=2).to_json() == first.to_json()
    assert counting.runs == 2


def test_an_unknown_experiment_names_those_that_exist(study: Study) -> None:
    with pytest.raises(ConfigError, match="unknown experiment 'cause'; accepted: ablate"):
        study.experiment("cause")  # type: ignore[arg-type]


def test_what_it_must_not_read_is_not_there(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def peek(bench: Workbench) -> Findings:
        assert set(bench.problems) == {Split.TRAIN, Split.VALIDATION}
        bench.answers(Split.TEST, None)
        raise AssertionError("the test split was read")

    closed = Experiment(peek, frozenset((Split.TRAIN, Split.VALIDATION)))
    monkeypatch.setattr("trimtab.study.study.EXPERIMENTS", {**EXPERIMENTS, "sweep": closed})
    with pytest.raises(InputError, match="must not read the test split"):
        study.experiment("sweep")
    assert openings(study.cache.ledger) == 0
    assert not list((study.cache.root / "experiment").glob("*/key.json")), "what failed is not kept as a result"
