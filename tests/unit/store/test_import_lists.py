"""The format by name or ending, and the first k."""

from pathlib import Path

import pytest

from trimtab.errors import InputError
from trimtab.neurons import ModelIdentity, Neurons
from trimtab.store import save_neurons
from trimtab.store.import_lists import read_neurons

MODEL = ModelIdentity("tiny", None, "qwen3", "f00", n_layers=3, d_model=8, d_ff=16, vocab_size=97)
CSV, JSON = "overall_neuron_index,weight\n17,0.5\n3,0.25\n", "[[1, 1, 0.5], [0, 3, 0.25]]"


@pytest.mark.parametrize(("name", "text"), [("a.csv", CSV), ("a.json", JSON)])
def test_the_ending_tells_the_format(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    neurons = read_neurons(tmp_path / name, MODEL)
    assert (neurons.layer.tolist(), neurons.index.tolist(), neurons.mean_difference.tolist()) == ([1, 0], [1, 3], [0.5, 0.25])
    first = read_neurons(tmp_path / name, MODEL, k=1)
    assert (first.layer.tolist(), first.mean_difference.tolist(), first.facts) == ([1], [0.5], neurons.facts)
    with pytest.raises(InputError, match="asked for the first 3 of a list of 2"):
        read_neurons(tmp_path / name, MODEL, k=3)


def test_another_ending_needs_a_name(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(CSV)
    with pytest.raises(InputError, match="name it, --format: adaras-csv, lape, json"):
        read_neurons(tmp_path / "list.txt", MODEL)
    assert len(read_neurons(tmp_path / "list.txt", MODEL, form="adaras-csv")) == 2


def test_arguments_that_a_format_has_no_use_for(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    with pytest.raises(InputError, match="no part 1 to choose"):
        read_neurons(tmp_path / "a.csv", MODEL, part=1)
    with pytest.raises(InputError, match="no first neurons; leave --k out"):
        read_neurons(tmp_path / "a.pth", MODEL, k=1)


def test_the_neurons_of_a_run(tmp_path: Path, neurons: Neurons) -> None:
    save_neurons(neurons, tmp_path / "mean-difference")
    read = read_neurons(tmp_path / "mean-difference", neurons.model, k=3)
    assert isinstance(read, Neurons)
    assert read.index.tolist() == neurons.index[:3].tolist()
    assert read.correct_mean.tolist() == neurons.correct_mean[:3].tolist()
