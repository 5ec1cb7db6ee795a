"""``trimtab show`` of an artifact for a mixture of experts, of one with directions, and the dose of one."""

from pathlib import Path

import numpy as np
from click.testing import CliRunner

from tiny_testbed import save_tiny_testbed
from trimtab.cli.show import show
from trimtab.directions import Directions
from trimtab.dose import Dose
from trimtab.gate import ALWAYS
from trimtab.model import open_model
from trimtab.neurons import ModelIdentity
from trimtab.steering import Steering


def test_a_neuron_of_an_expert_is_shown_by_expert(tmp_path: Path) -> None:
    model = ModelIdentity("tiny", None, "mixtral", "f00", n_layers=3, d_model=4, d_ff=48, vocab_size=9, n_experts=4)
    shift = np.array([0.5, -2.0], np.float32)
    steering = Steering(np.array([0, 2]), np.array([7, 41]), np.zeros(2, np.float32), shift, 1.0, "generated", ALWAYS, model)
    steering.save_pretrained(tmp_path / "s")
    printed = CliRunner().invoke(show, [str(tmp_path / "s")]).output
    assert "  layer   0  expert   0  index      7  gain +0.0000  shift +0.5000" in printed
    assert "  layer   2  expert   3  index      5  gain +0.0000  shift -2.0000" in printed


def test_a_dose_is_measured_on_a_model_shown_and_kept_when_told(tmp_path: Path) -> None:
    folder = str(save_tiny_testbed(tmp_path / "model"))
    identity = open_model(folder, device="cpu", dtype="float32").identity
    shift = np.array([0.5, -2.0], np.float32)
    steering = Steering(np.array([0, 1]), np.array([7, 11]), np.zeros(2, np.float32), shift, -3.0, "generated", ALWAYS, identity)
    artifact = str(steering.save_pretrained(tmp_path / "s"))
    assert "dose            not measured; --model measures it" in CliRunner().invoke(show, [artifact]).output
    measured = CliRunner().invoke(show, [artifact, "--model", folder, "--dtype", "float32"], catch_exceptions=False).output
    assert Steering.from_pretrained(artifact).facts == {}
    told = CliRunner().invoke(show, [artifact, "--model", folder, "--dtype", "float32", "--save"], catch_exceptions=False)
    dose = Dose.of(Steering.from_pretrained(artifact).facts)
    assert dose is not None
    assert dose.layer == (0, 1)
    expected = f"{dose.at(3.0):.3g} at most, at strength -3; by layer 0: {3 * dose.unit[0]:.3g}, 1: {3 * dose.unit[1]:.3g}"
    assert f"dose            {expected}" in measured
    assert f"dose            {expected}" in told.output
    assert Steering.from_pretrained(artifact).digest == steering.digest


def test_a_dose_is_kept_only_where_it_was_measured(tmp_path: Path) -> None:
    refused = CliRunner().invoke(show, [str(tmp_path), "--save"])
    assert refused.exit_code == 2
    assert "give both" in refused.output


def test_directions_are_shown_by_layer(tmp_path: Path) -> None:
    model = ModelIdentity("tiny", None, "qwen3", "f00", n_layers=3, d_model=4, d_ff=48, vocab_size=9)
    along = Directions(np.array([0, 2]), np.array([[3, 4, 0, 0], [0, 0, 1, 0]], np.float32), "mean-difference", model)
    along.steering(0.5).save_pretrained(tmp_path / "s")
    printed = CliRunner().invoke(show, [str(tmp_path / "s")]).output
    assert "directions      [0, 2]" in printed
    assert "  after layer   0  norm 5.0000\n  after layer   2  norm 1.0000" in printed
    assert "first 0 neurons" not in printed
