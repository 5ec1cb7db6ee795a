"""An experiment of a study: kept under its key, noted in the ledger, and kept away from what it may not read."""

import json

import pytest

from trimtab.errors import ConfigError, InputError
from trimtab.experiments import EXPERIMENT_NAMES, EXPERIMENTS, Experiment, Workbench
from trimtab.findings import Findings
from trimtab.store import openings
from trimtab.study import Study
from trimtab.traces import Split


def test_every_name_has_an_experiment() -> None:
    assert set(EXPERIMENTS) == set(EXPERIMENT_NAMES)


def test_it_is_computed_once_and_writes_each_opening_down(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    found = study.experiment("causal")
    assert found.sentences
    assert found.frames
    ledger = study.cache.ledger
    assert openings(ledger) == 1
    assert json.loads(ledger.read_text().splitlines()[0])["command"] == "causal"
    monkeypatch.setattr("trimtab.study.study.EXPERIMENTS", {**EXPERIMENTS, "causal": _fails(EXPERIMENTS["causal"].reads)})
    again = study.experiment("causal")
    with Study.from_toml(study.path or "") as other:
        read = other.experiment("causal")
    assert again.to_json() == read.to_json() == found.to_json()
    assert openings(ledger) == 1, "a cached read opens nothing"


def test_another_setting_is_another_result(study: Study) -> None:
    study.experiment("causal")
    with pytest.raises(ConfigError, match=r"random_set: unknown; did you mean random_sets\?"):
        study.experiment("causal", random_set=1)
    study.experiment("causal", random_sets=1)
    assert len(list((study.cache.root / "experiment").glob("*/key.json"))) == 2


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


def _fails(reads: frozenset[Split]) -> Experiment:
    def run(bench: Workbench) -> Findings:
        raise AssertionError(f"{bench.name} was computed again")

    return Experiment(run, reads)
