"""An experiment on a run directory: its files, the ledger, and what it may not read."""

import json
from pathlib import Path

import pytest
from trimtab.pipeline import experimenting
from trimtab.pipeline.experimenting import run_experiment_on

from trimtab.errors import InputError
from trimtab.experiments import EXPERIMENT_NAMES, EXPERIMENTS, Experiment, Workbench
from trimtab.findings import Findings
from trimtab.report import FINDINGS, read_findings
from trimtab.store import openings
from trimtab.traces import Split


def test_every_name_has_an_experiment_and_a_command() -> None:
    from trimtab.cli.main import COMMANDS, EXPERIMENT_HELP

    assert set(EXPERIMENTS) == set(EXPERIMENT_NAMES) == set(EXPERIMENT_HELP)
    assert set(EXPERIMENT_NAMES) <= set(COMMANDS)
    for name, experiment in EXPERIMENTS.items():  # a module of the same name would hide the function
        assert getattr(experiment.run, "__name__", "").replace("_", "-") == name


def test_it_leaves_its_files_once_and_writes_each_opening_down(run_copy: Path) -> None:
    result = run_experiment_on(run_copy, "causal")
    folder = run_copy / "experiments" / "causal"
    assert {f"{frame.name}.csv" for frame in result.frames} | {"index.html", FINDINGS} == {p.name for p in folder.iterdir()}
    assert read_findings(folder / FINDINGS).to_json() == result.to_json()
    assert openings(run_copy / "ledger.jsonl") == 1
    stamp = (folder / FINDINGS).stat().st_mtime_ns
    assert run_experiment_on(run_copy, "causal").to_json() == result.to_json()
    assert (folder / FINDINGS).stat().st_mtime_ns == stamp
    assert run_experiment_on(run_copy, "causal", force=True).to_json() == result.to_json()
    assert openings(run_copy / "ledger.jsonl") == 2
    assert json.loads((run_copy / "ledger.jsonl").read_text().splitlines()[0])["command"] == "causal"


def test_what_it_must_not_read_is_not_there(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def peek(bench: Workbench) -> Findings:
        bench.answers(Split.TEST, None)
        raise AssertionError("the test split was read")

    closed = Experiment(peek, frozenset((Split.TRAIN, Split.VALIDATION)))
    monkeypatch.setattr(experimenting, "EXPERIMENTS", {**EXPERIMENTS, "sweep": closed})
    with pytest.raises(InputError, match="must not read the test split"):
        run_experiment_on(run_copy, "sweep")
    assert openings(run_copy / "ledger.jsonl") == 0
