"""``trimtab show`` of an artifact for a mixture of experts, and of one with directions."""

from pathlib import Path

import numpy as np
from click.testing import CliRunner

from trimtab.cli.show import show
from trimtab.directions import Directions
from trimtab.gate import ALWAYS
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


def test_directions_are_shown_by_layer(tmp_path: Path) -> None:
    model = ModelIdentity("tiny", None, "qwen3", "f00", n_layers=3, d_model=4, d_ff=48, vocab_size=9)
    along = Directions(np.array([0, 2]), np.array([[3, 4, 0, 0], [0, 0, 1, 0]], np.float32), "mean-difference", model)
    along.steering(0.5).save_pretrained(tmp_path / "s")
    printed = CliRunner().invoke(show, [str(tmp_path / "s")]).output
    assert "directions      [0, 2]" in printed
    assert "  after layer   0  norm 5.0000\n  after layer   2  norm 1.0000" in printed
    assert "first 0 neurons" not in printed
