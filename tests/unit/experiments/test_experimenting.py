"""An experiment by its name: kept once computed, written down in the ledger, and kept from what it may not read."""

import pytest

from trimtab.errors import InputError
from trimtab.experiments import EXPERIMENT_NAMES, EXPERIMENTS, Experiment, Workbench
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
    def peek(bench: Workbench) -> Findings:
        bench.answers(Split.TEST, None)
        raise AssertionError("the test split was read")

    closed = Experiment(peek, frozenset((Split.TRAIN, Split.VALIDATION)))
    monkeypatch.setattr(module, "EXPERIMENTS", {**EXPERIMENTS, "sweep": closed})
    opened = study.openings()
    with pytest.raises(InputError, match="must not read the test split"):
        study.experiment("sweep")
    assert study.openings() == opened
