"""Plain JSON: both forms, what each allows afterwards, and every row that cannot be used refused by its number."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InputError
from trimtab.interventions import INTERVENTIONS
from trimtab.neurons import ModelIdentity, NeuronList, Neurons
from trimtab.steering import Steering
from trimtab.store.import_lists import read_plain_json

MODEL = ModelIdentity("tiny", None, "qwen3", "f00", n_layers=3, d_model=8, d_ff=16, vocab_size=97)
MEANS = (
    '{"neurons": [{"layer": 2, "index": 5, "correct_mean": 1.5, "incorrect_mean": -1}, '
    '{"layer": 0, "index": 0, "correct_mean": 0, "incorrect_mean": 0.25}]}'
)


def test_class_means_make_a_set(written) -> None:
    neurons = read_plain_json(written(MEANS), MODEL)
    assert isinstance(neurons, Neurons)
    assert (neurons.layer.tolist(), neurons.index.tolist()) == ([2, 0], [5, 0])
    assert (neurons.correct_mean.tolist(), neurons.incorrect_mean.tolist(), neurons.mean_difference.tolist()) == (
        [1.5, 0.0],
        [-1.0, 0.25],
        [2.5, -0.25],
    )
    assert neurons.score.tolist() == [2.0, 1.0]
    for intervention in INTERVENTIONS.values():
        assert len(Steering.of(neurons, 1.0, intervention=intervention)) == 2


@pytest.mark.parametrize(
    "text",
    [
        '{"neurons": [{"layer": 2, "index": 5, "weight": 1.5}, {"layer": 0, "index": 0, "weight": -1}]}',
        '{"neuron_definition": "down_proj_input", "neurons": [[2, 5, 1.5], [0, 0, -1]]}',
        "[[2, 5, 1.5], [0, 0, -1]]",
        '[{"layer": 2, "index": 5, "weight": 1.5, "correct_mean": null}, [0, 0, -1.0]]',
    ],
)
def test_weights_make_a_list(written, text: str) -> None:
    neurons = read_plain_json(written(text), MODEL)
    assert isinstance(neurons, NeuronList)
    assert (neurons.layer.tolist(), neurons.index.tolist(), neurons.mean_difference.tolist()) == ([2, 0], [5, 0], [1.5, -1.0])
    imported = neurons.facts["imported"]
    assert isinstance(imported, dict)
    stated = "neuron_definition" in text
    assert imported["listed_neuron"] == ("down_proj_input" if stated else "not said, taken as down_proj_input")


def test_addresses_alone(written) -> None:
    neurons = read_plain_json(written("[[2, 5], [0, 0]]"), MODEL)
    assert neurons.layer.tolist() == [2, 0]
    with pytest.raises(InputError, match="holds no differences"):
        _ = neurons.mean_difference


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 15), st.floats(-1e30, 1e30)), min_size=1, unique_by=lambda r: r[:2]))
def test_what_is_written_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, float]]) -> None:
    path = tmp_path_factory.getbasetemp() / "drawn.json"
    path.write_text(json.dumps(rows))
    neurons = read_plain_json(path, MODEL)
    assert list(zip(neurons.layer.tolist(), neurons.index.tolist(), strict=True)) == [row[:2] for row in rows]
    np.testing.assert_array_equal(neurons.mean_difference, np.array([row[2] for row in rows]).astype(np.float32))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ('{"layer": 1.0, "index": 2}', "row 1: layer: Input should be a valid integer"),
        ('{"layer": true, "index": 2}', "row 1: layer: Input should be a valid integer"),
        ('{"layer": "1", "index": 2}', "row 1: layer: Input should be a valid integer"),
        ('{"layer": -1, "index": 2}', r"row 1: \(layer -1, index 2\) is outside tiny"),
        ('{"layer": 1, "index": 16}', r"row 1: \(layer 1, index 16\) is outside tiny"),
        ('{"layer": 1, "index": 100000000000000000000}', "row 1: .* is outside tiny"),
        ('{"layer": 0, "index": 3}', "row 1: .* was listed before, at row 0"),
        ('{"layer": 1}', "row 1: index: Field required"),
        ('{"layer": 1, "index": 2, "head": 0}', "row 1: unknown key 'head'"),
        ('{"layer": 1, "index": 2, "weight": "0.5"}', "row 1: weight: Input should be a valid number"),
        ('{"layer": 1, "index": 2, "weight": 1e999}', "row 1: weight: Input should be a finite number"),
        ('{"layer": 1, "index": 2, "weight": 0.5}', "row 1: weight, where row 0 has an address only"),
        ('{"layer": 1, "index": 2, "correct_mean": 0.5}', "row 1: correct_mean, where row 0"),
        ("[1]", "row 1: a list of 1 is no neuron"),
        ("[1, 2, 0.5, 0.5]", "row 1: a list of 4 is no neuron"),
        ("17", "row 1: a int is no neuron"),
        ("[1.0, 2]", "row 1: layer: Input should be a valid integer"),
    ],
)
def test_a_bad_row_is_named(written, row: str, problem: str) -> None:
    for text in (f"[[0, 3], {row}]", f'{{"neurons": [[0, 3], {row}]}}'):
        with pytest.raises(InputError, match=problem):
            read_plain_json(written(text), MODEL)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not JSON"),
        ("[[0, 3]", "is not JSON"),
        ("[[0, 3, NaN]]", "NaN is not a finite number"),
        ("[[0, 3, 1e39]]", r"row 0: weight is 1e\+39; it must be finite in float32"),
        (f"[[0, {'9' * 5000}]]", "is not JSON that can be used"),
        ("[" * 200_000, "is not JSON that can be used"),
        ("[]", "lists no neuron"),
        ("7", "neurons: Input should be a valid list"),
        ("{}", "neurons: Field required"),
        ('{"neurons": [], "model": "x"}', "unknown key 'model'"),
        ('{"neuron_definition": "act_gate", "neurons": [[0, 3]]}', "neuron_definition: Input should be 'down_proj_input'"),
        ('[{"layer": 0, "layer": 1, "index": 3}]', "a key stands twice among layer, layer, index"),
        (
            '[{"layer": 0, "index": 3, "weight": 1, "correct_mean": 1, "incorrect_mean": 0}]',
            "row 0: weight and correct_mean and incorrect_mean",
        ),
    ],
)
def test_a_bad_file_is_refused(written, text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read_plain_json(written(text), MODEL)


def test_experts_stand_side_by_side(written) -> None:
    experts = replace(MODEL, n_experts=4)
    rows = '[{"layer": 2, "index": 3, "expert": 0}, {"layer": 2, "index": 3, "expert": 3}]'
    neurons = read_plain_json(written(rows), experts)
    assert (neurons.layer.tolist(), neurons.index.tolist()) == ([2, 2], [3, 15])


@pytest.mark.parametrize(
    ("row", "n_experts", "problem"),
    [
        ("[0, 3]", 4, "row 0: expert is None, and tiny has 4 experts a layer: give expert, too"),
        ('{"layer": 0, "index": 3, "expert": 0}', 1, "row 0: expert is 0, and tiny has no experts: leave expert out"),
        ('{"layer": 0, "index": 4, "expert": 0}', 4, r"row 0: \(expert 0, index 4\) is outside tiny"),
        ('{"layer": 0, "index": 0, "expert": 4}', 4, r"row 0: \(expert 4, index 0\) is outside tiny"),
        ('{"layer": 0, "index": 5, "expert": -1}', 4, r"row 0: \(expert -1, index 5\) is outside tiny"),
    ],
)
def test_an_expert_that_is_not_there_is_refused(written, row: str, n_experts: int, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read_plain_json(written(f"[{row}]"), replace(MODEL, n_experts=n_experts))
