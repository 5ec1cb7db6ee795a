"""``trimtab evaluate``: an artifact on a task, without the run that found it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from steering_samples import neuron_set
from tiny_testbed import save_tiny_testbed
from trimtab.cli.main import main
from trimtab.cli.view import view_command
from trimtab.model import open_model
from trimtab.steering import Steering
from trimtab.store import openings


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_testbed(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def artifact(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    steering = Steering.of(neuron_set(open_model(model).identity), 30.0, facts={"criterion": "mean-difference"})
    return Path(steering.save_pretrained(tmp_path_factory.mktemp("artifact") / "steering"))


@pytest.fixture
def cli(model: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def call(*arguments: object) -> tuple[int, str, str]:
        given = ("evaluate", "--model", model, "--task", "testbed", "--steering", artifact, *arguments)
        monkeypatch.setattr(sys, "argv", ["trimtab", *map(str, given)])
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        return int(code or 0), *capsys.readouterr()  # type: ignore[call-overload]

    return call


SMALL = ("--limit", 6, "--max-new-tokens", 8)


def test_a_verdict_with_controls_a_report_and_a_ledger(cli, tmp_path: Path) -> None:
    code, out, err = cli(*SMALL, "--out", tmp_path / "run", "--export", tmp_path / "outcomes.json", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["verdict"]["n"] == 6
    conditions = {row["condition"] for row in report["conditions"]}
    assert {"unsteered", "always", "negative"} <= conditions
    assert any(name.startswith("random") for name in conditions)
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"run.toml", "outcomes.parquet", "report.html", "report.json"}
    assert openings(tmp_path / "run" / "ledger.jsonl") == 1
    page = (tmp_path / "run" / "view.html").read_bytes()
    shown = CliRunner().invoke(view_command, [str(tmp_path / "run"), "--out", str(tmp_path / "view.html"), "--quiet"])
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / "view.html").read_bytes() == page, "the folder shows the artifact that it judged"
    exported = json.loads((tmp_path / "outcomes.json").read_bytes())
    assert {row["condition"] for row in exported["outcomes"]} >= {"unsteered", "always", "random-0"}
    assert cli(*SMALL, "--out", tmp_path / "run", "--quiet")[0] == 0
    assert openings(tmp_path / "run" / "ledger.jsonl") == 1, "a cached read opens nothing"
    assert cli(*SMALL, "--seeds", "0,1", "--temperature", 1.0, "--out", tmp_path / "run", "--quiet")[0] == 0
    assert openings(tmp_path / "run" / "ledger.jsonl") == 2


def test_without_a_folder_it_uses_the_cache_of_the_user(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    code, out, err = cli(*SMALL, "--split", "validation")
    assert code == 0, err
    assert "unsteered" in out
    assert (tmp_path / "cache" / "evaluate").is_dir()
    assert not (tmp_path / "cache" / "ledger.jsonl").exists(), "the validation split may be read as often as one likes"


def test_a_list_of_seeds_that_is_none(cli) -> None:
    code, _, err = cli("--seeds", "0,x")
    assert code == 2
    assert "is no list of whole numbers" in err


def test_a_steering_for_other_weights_is_refused(artifact: Path, tmp_path: Path, cli) -> None:
    other = save_tiny_testbed(tmp_path / "other", seed=1)
    code, out, err = cli(*SMALL, "--model", other, "--out", tmp_path / "run")
    assert (code, out) == (1, "")
    assert "fingerprint" in err
    assert cli(*SMALL, "--model", other, "--out", tmp_path / "run", "--force-model", "--quiet")[0] == 0


def test_a_control_vector_of_another_tool_gets_its_verdict(cli, model: Path, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path, d_model = tmp_path / "vector.gguf", open_model(model).identity.d_model
    writer = gguf.GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    for layer in (0, 1):
        writer.add_tensor(f"direction.{layer}", np.random.default_rng(layer).normal(0, 9, d_model).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    code, out, err = cli(*SMALL, "--steering", path, "--layer", 1, "--strength", 2, "--json")
    assert code == 0, err
    neurons = json.loads(out)["neurons"]
    assert (neurons["directions"], neurons["strength"], neurons["scope"]) == ([1], 2.0, "all")
    assert "says that it was made for a llama" in err
    (tmp_path / "bad.gguf").write_bytes(path.read_bytes()[:200])
    code, _, err = cli(*SMALL, "--steering", tmp_path / "bad.gguf", "--quiet")
    assert code == 1
    assert err.splitlines()[-1].startswith("error[input]: ")
    assert "cannot be read as GGUF" in err.splitlines()[-1]
    code, _, err = cli(*SMALL, "--steering", tmp_path / "v.pt", "--quiet")
    assert code == 1
    assert "is a pickle" in err.splitlines()[-1]


def test_strength_and_scope_of_an_artifact_may_be_replaced_and_its_neurons_are_no_layers(cli) -> None:
    code, out, err = cli(*SMALL, "--strength", 3, "--scope", "all", "--json")
    assert code == 0, err
    neurons = json.loads(out)["neurons"]
    assert (neurons["strength"], neurons["scope"], neurons["directions"]) == (3.0, "all", [])
    assert cli(*SMALL, "--layer", 1)[0] == 2
