import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from trimtab.errors import InputError, StoreError
from trimtab.gate import ALWAYS, NEVER, Gate
from trimtab.neurons import NeuronSet
from trimtab.store.neuron_files import load_gate, load_neurons, save_gate, save_neurons


def assert_equal(actual: object, expected: object) -> None:
    """Every field equal in type and value, arrays bit for bit."""
    for field in fields(expected):  # type: ignore[arg-type]
        a, e = getattr(actual, field.name), getattr(expected, field.name)
        if isinstance(e, np.ndarray):
            assert (a.dtype, a.shape, a.tobytes()) == (e.dtype, e.shape, e.tobytes()), field.name
        else:
            assert (type(a), a) == (type(e), e), field.name


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_neurons_come_back_exactly_and_with_the_same_bytes(tmp_path: Path, neurons: NeuronSet) -> None:
    save_neurons(neurons, tmp_path / "a")
    assert_equal(load_neurons(tmp_path / "a"), neurons)
    save_neurons(load_neurons(tmp_path / "a"), tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert set(content(tmp_path / "a")) == {"neurons.safetensors", "neurons.json"}
    facts = json.loads((tmp_path / "a" / "neurons.json").read_text())
    assert (facts["k"], facts["criterion"], facts["neuron_definition"]) == (7, "mean-difference-polarity", "down_proj_input")
    assert facts["share"] == 7 / 48
    assert facts["model"]["name"] == "some/model"


@pytest.mark.parametrize("which", ["logistic", "always", "never"])
def test_gates_come_back_exactly(tmp_path: Path, gate: Gate, which: str) -> None:
    value = {"logistic": gate, "always": ALWAYS, "never": NEVER}[which]
    save_gate(value, tmp_path / "a")
    assert_equal(load_gate(tmp_path / "a"), value)
    save_gate(load_gate(tmp_path / "a"), tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_gate_replaces_another(tmp_path: Path, gate: Gate) -> None:
    save_gate(gate, tmp_path)
    save_gate(ALWAYS, tmp_path)
    assert_equal(load_gate(tmp_path), ALWAYS)


def test_a_pair_left_by_a_killed_run_is_refused(tmp_path: Path, neurons: NeuronSet, gate: Gate) -> None:
    for save, load, name, old, new in (
        (save_neurons, load_neurons, "neurons", neurons, neurons.top(3)),
        (save_gate, load_gate, "gate", gate, replace(gate, weight=gate.weight * 2)),
    ):
        save(old, tmp_path)
        record = (tmp_path / f"{name}.json").read_bytes()
        save(new, tmp_path)
        (tmp_path / f"{name}.json").write_bytes(record)
        with pytest.raises(StoreError, match=rf"{name}\.safetensors and {name}\.json do not belong together"):
            load(tmp_path)


@pytest.mark.parametrize("name", ["neurons.json", "neurons.safetensors"])
def test_truncated_and_missing_files(tmp_path: Path, neurons: NeuronSet, name: str) -> None:
    save_neurons(neurons, tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match=r"neurons\..*(truncated)"):
        load_neurons(tmp_path)
    path.unlink()
    with pytest.raises(StoreError, match="is missing"):
        load_neurons(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "unknown key 'colour'"),
        ({"neuron_definition": "act_fn_output"}, "neuron_definition: .*down_proj_input"),
        ({"k": "7"}, "k: .*integer"),
        ({"k": 6}, "expected"),
        ({"model": {"name": "x"}}, r"model\.d_ff: Field required"),
    ],
)
def test_an_edited_record_is_named(tmp_path: Path, neurons: NeuronSet, change: dict[str, object], message: str) -> None:
    save_neurons(neurons, tmp_path)
    path = tmp_path / "neurons.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(StoreError, match=message):
        load_neurons(tmp_path)


def test_neurons_outside_the_model_are_refused(tmp_path: Path, neurons: NeuronSet) -> None:
    save_neurons(neurons, tmp_path)
    path = tmp_path / "neurons.json"
    record = json.loads(path.read_text())
    record["model"]["n_layers"] = 1
    path.write_text(json.dumps(record))
    with pytest.raises(StoreError, match="outside some/model"):
        load_neurons(tmp_path)


def test_what_could_not_be_loaded_again_is_not_saved(tmp_path: Path, neurons: NeuronSet, gate: Gate) -> None:
    with pytest.raises(InputError, match=r"facts\.x is of type ndarray"):
        save_neurons(replace(neurons, facts={"x": np.zeros(1)}), tmp_path)
    with pytest.raises(InputError, match=r"column 'weight'.*float64.*astype"):
        save_gate(replace(gate, weight=gate.weight.astype(np.float64)), tmp_path)
    assert list(tmp_path.iterdir()) == []
