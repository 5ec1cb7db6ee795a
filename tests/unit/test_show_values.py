"""Neurons and steerings show themselves in a few lines, as tables and in a notebook, and neurons make steerings."""

from dataclasses import replace

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.gate import ALWAYS, Gate
from trimtab.gating import assess
from trimtab.interventions import ablate
from trimtab.neurons import ModelIdentity, NeuronList, Neurons
from trimtab.steering import Steering

MODEL = ModelIdentity("<tiny>", None, "qwen3", "f00", n_layers=4, d_model=4, d_ff=100, vocab_size=7)
K = 30


def neurons() -> Neurons:
    rng = np.random.default_rng(0)
    address = rng.permutation(400)[:K]
    means = rng.normal(size=(2, K)).astype(np.float32)
    facts = {"n_correct": 1412, "n_incorrect": 388, "n_problems": 200}
    return Neurons(address // 100, address % 100, np.linspace(9, 1, K), *means, "adaras", MODEL, facts)


def test_neurons() -> None:
    shown = neurons()
    layers = len(set(shown.layer.tolist()))
    assert repr(shown) == (
        f"30 neurons of <tiny> (7.5 %), in {layers} of 4 layers, ranked by adaras\n"
        "scores 9 to 1; of 1,412 correct and 388 incorrect traces, 200 problems with both"
    )
    table = shown.to_pandas()
    assert table["rank"].tolist() == list(range(1, K + 1))
    np.testing.assert_array_equal(table["mean_difference"], shown.mean_difference)
    assert "&lt;tiny&gt;" in shown._repr_html_()
    assert "and 22 more rows" in shown._repr_html_()


def test_a_list_shows_what_it_holds() -> None:
    listed = NeuronList(np.array([0]), np.array([3]), "LAPE", MODEL)
    assert repr(listed) == "1 neuron of <tiny> (0.25 %), in 1 of 4 layers, listed by LAPE, addresses only"
    assert listed.to_pandas().columns.tolist() == ["layer", "index"]
    weighted = replace(listed, weight=np.ones(1, np.float32))
    assert weighted.to_pandas().columns.tolist() == ["layer", "index", "mean_difference"]


def test_a_steering() -> None:
    steering = neurons().steering("ablate-and-add", strength=1.5)
    lines = repr(steering).splitlines()
    assert len(lines) == 3
    assert lines[0].endswith("(adaras, ablate-and-add)")
    assert lines[1].startswith("strength 1.5, scope generated; at unit strength gain on ")
    assert lines[2] == "gate 'always': steers every prompt"
    assert steering.to_pandas().columns.tolist() == ["layer", "index", "gain", "shift"]
    assert len(steering.to_pandas()) == K


def test_neurons_make_the_steering_that_of_makes() -> None:
    found = neurons()
    assert found.steering(strength=2.0).digest == Steering.of(found, 2.0).digest
    by_function, by_name = found.steering(ablate), found.steering("ablate")
    assert by_function.digest == by_name.digest
    assert by_function.facts["intervention"] == by_name.facts["intervention"] == "ablate"
    with pytest.raises(InputError, match="did you mean 'ablate'"):
        found.steering("ablat")


def test_neurons_and_steerings_plot_their_layers() -> None:
    found = neurons()
    counts = np.bincount(found.layer, minlength=4).tolist()
    for figure in (found.plot(), found.steering().plot()):
        assert any(list(trace.y or ()) == counts for trace in figure.data)


def test_a_gate_plots_its_roc_and_calibration() -> None:
    rng = np.random.default_rng(0)
    failed = rng.random(80) < 0.4
    assessment = assess(failed, np.clip(0.3 * failed + rng.random(80) * 0.6, 0.01, 0.99), rng.random(80))
    read = np.zeros(1, np.int64)
    gate = Gate("logistic", "hard", read, read, np.ones(1, np.float32), facts={"validation_assessment": assessment.to_json()})
    figure = gate.with_threshold(0.5).plot()
    curve = next(trace for trace in figure.data if len(trace.x or ()) == len(assessment.roc))
    np.testing.assert_allclose(np.column_stack([curve.x, curve.y]), 100 * np.array(assessment.roc))  # in percent


def test_a_gate_that_was_not_assessed_says_how_it_would_be() -> None:
    with pytest.raises(InputError, match=r"study\.fit_gate"):
        ALWAYS.plot()
