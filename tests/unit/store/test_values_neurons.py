import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stored_samples import assert_equal, content
from trimtab.errors import InputError, StoreError
from trimtab.neurons import Neurons
from trimtab.store import read_json, write_json
from trimtab.store.values import load_neurons, save_neurons


def test_neurons_come_back_exactly_and_with_the_same_bytes(tmp_path: Path, neurons: Neurons) -> None:
    save_neurons(neurons, tmp_path / "a")
    assert_equal(load_neurons(tmp_path / "a"), neurons)
    save_neurons(load_neurons(tmp_path / "a"), tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert set(content(tmp_path / "a")) == {"neurons.safetensors", "neurons.json"}
    facts = json.loads((tmp_path / "a" / "neurons.json").read_text())
    assert (facts["k"], facts["criterion"], facts["neuron_definition"]) == (7, "adaras", "down_proj_input")
    assert facts["share"] == 7 / 48
    assert facts["model"]["name"] == "some/model"


def test_a_pair_left_by_a_killed_run_is_refused(tmp_path: Path, neurons: Neurons) -> None:
    save_neurons(neurons, tmp_path)
    record = (tmp_path / "neurons.json").read_bytes()
    save_neurons(neurons.top(3), tmp_path)
    (tmp_path / "neurons.json").write_bytes(record)
    with pytest.raises(StoreError, match=r"neurons\.safetensors and neurons\.json do not belong together"):
        load_neurons(tmp_path)


@pytest.mark.parametrize("name", ["neurons.json", "neurons.safetensors"])
def test_truncated_and_missing_files(tmp_path: Path, neurons: Neurons, name: str) -> None:
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
def test_an_edited_record_is_named(tmp_path: Path, neurons: Neurons, change: dict[str, object], message: str) -> None:
    save_neurons(neurons, tmp_path)
    path = tmp_path / "neurons.json"
    write_json(path, {**read_json(path), **change}, "")  # type: ignore[dict-item]
    with pytest.raises(StoreError, match=message):
        load_neurons(tmp_path)


def test_neurons_outside_the_model_are_refused(tmp_path: Path, neurons: Neurons) -> None:
    save_neurons(neurons, tmp_path)
    path = tmp_path / "neurons.json"
    record: dict = read_json(path)  # type: ignore[assignment]
    record["model"]["n_layers"] = 1
    write_json(path, record, "")
    with pytest.raises(StoreError, match="outside some/model"):
        load_neurons(tmp_path)


def test_what_could_not_be_loaded_again_is_not_saved(tmp_path: Path, neurons: Neurons) -> None:
    with pytest.raises(InputError, match=r"facts\.x is of type ndarray"):
        save_neurons(replace(neurons, facts={"x": np.zeros(1)}), tmp_path)
    with pytest.raises(InputError, match=r"column 'correct_mean'.*float64.*astype"):
        save_neurons(replace(neurons, correct_mean=neurons.correct_mean.astype(np.float64)), tmp_path)
    assert list(tmp_path.iterdir()) == []
