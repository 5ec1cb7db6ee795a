"""``trimtab import``: an artifact that loads, steers its model and says where it comes from."""

import json
import sys
from pathlib import Path

import pytest

from steering_samples import neuron_set
from tiny_testbed import D_FF, save_tiny_testbed
from trimtab.cli.main import main
from trimtab.gate import ALWAYS
from trimtab.model import open_model
from trimtab.steering import Steering
from trimtab.store import save_neurons


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_testbed(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trimtab", "import", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "found.csv"
    path.write_text(f"overall_neuron_index,weight\n{D_FF + 3},0.5\n2,-1.25\n7,0.125\n")
    return path


def test_a_list_becomes_an_artifact(cli, model: Path, listed: Path, tmp_path: Path) -> None:
    code, out, err = cli(listed, "--model", model, "--out", tmp_path / "steering", "--strength", "0.3", "--k", "2")
    assert code == 0, err
    assert "2 neurons in 2 of 2 layers" in out
    assert "neuron of the list: down_proj_input" in out
    steering = Steering.from_pretrained(tmp_path / "steering")
    assert (steering.layer.tolist(), steering.index.tolist()) == ([1, 0], [3, 2])
    assert (steering.shift.tolist(), steering.gain.tolist()) == ([0.5, -1.25], [0.0, 0.0])
    assert (steering.strength, steering.scope, steering.gate.kind) == (0.3, "generated", ALWAYS.kind)
    assert steering.facts["criterion"] == "imported-adaras-csv"
    assert (steering.facts["intervention"], steering.facts["k"], steering.facts["share"]) == ("add", 2, 2 / (2 * D_FF))


def test_json_holds_the_facts_and_an_artifact_is_not_overwritten(cli, model: Path, listed: Path, tmp_path: Path) -> None:
    arguments = (
        listed,
        "--model",
        model,
        "--out",
        tmp_path / "s",
        "--strength",
        "1",
        "--intervention",
        "ablate",
        "--scope",
        "all",
    )
    code, out, _ = cli(*arguments, "--json")
    facts = json.loads(out)
    assert (code, facts["intervention"], facts["scope"], facts["imported"]["file"]) == (0, "ablate", "all", "found.csv")
    code, out, err = cli(*arguments)
    assert (code, out) == (1, "")
    assert "already holds an artifact" in err
    assert cli(*arguments, "--force")[0] == 0


def test_an_intervention_that_needs_class_means_is_one_clear_error(cli, model: Path, listed: Path, tmp_path: Path) -> None:
    code, out, err = cli(listed, "--model", model, "--out", tmp_path / "s", "--strength", "1", "--intervention", "interpolate")
    assert (code, out) == (1, "")
    assert err.endswith(
        "error[input]: the list of neurons (imported-adaras-csv) holds no class means: use add, scale or ablate, "
        "or record and rank the model's own traces\n"
    )
    assert not (tmp_path / "s").exists()


def test_a_strength_is_asked_for(cli, model: Path, listed: Path, tmp_path: Path) -> None:
    code, _, err = cli(listed, "--model", model, "--out", tmp_path / "s")
    assert code == 2
    assert "Missing option '--strength'" in err


def test_the_neurons_of_a_run_are_bound_to_its_model(cli, model: Path, tmp_path: Path) -> None:
    ours = neuron_set(open_model(model).identity)
    save_neurons(ours, tmp_path / "ours")
    arguments = ("--out", tmp_path / "s", "--strength", "2", "--intervention", "interpolate")
    assert cli(tmp_path / "ours", "--model", model, *arguments)[0] == 0
    assert Steering.from_pretrained(tmp_path / "s").shift.tolist() == ours.correct_mean.tolist()
    other = save_tiny_testbed(tmp_path / "other", seed=1)
    code, _, err = cli(tmp_path / "ours", "--model", other, *arguments, "--force")
    assert code == 1
    assert "fingerprint" in err
