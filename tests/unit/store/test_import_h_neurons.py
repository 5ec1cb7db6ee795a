"""H-Neurons' lists: what hprobes writes, the paper's classifier as an array, and each way to be another file."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InputError
from trimtab.interventions import ablate, add, scale
from trimtab.neurons import ModelIdentity
from trimtab.steering import Steering
from trimtab.store.import_lists import read_neurons

MODEL = ModelIdentity("tiny", None, "qwen3", "f00", n_layers=3, d_model=8, d_ff=16, vocab_size=97)


def hprobes(**changes: object) -> dict[str, object]:
    """The keys of a file of hprobes 0.11 that hold the list, and some of those that do not."""
    config = {"h_neurons": [[2, 5], [0, 0], [2, 1]], "layers": [0, 1, 2], "intermediate_dim": 16, "l1_C": 1.0, "top_k": 0}
    return {"saved_at": "2026", "fit": {"n_h_neurons": 3, "h_neurons": [[2, 5], [0, 0], [2, 1]]}, "config": {**config, **changes}}


def saved(folder: Path, content: object, name: str = "probe.json") -> Path:
    (folder / name).write_text(json.dumps(content))
    return folder / name


def test_the_neurons_of_a_probe_are_told_by_their_content(tmp_path: Path) -> None:
    neurons = read_neurons(saved(tmp_path, hprobes()), MODEL)
    assert list(zip(neurons.layer.tolist(), neurons.index.tolist(), strict=True)) == [(2, 5), (0, 0), (2, 1)]
    assert neurons.criterion == "imported-hprobes"
    assert neurons.facts["imported"]["format"] == "hprobes"  # type: ignore[index]
    for intervention in (ablate, scale):
        assert len(Steering.of(neurons, 1.0, intervention=intervention)) == 3
    with pytest.raises(InputError, match="no differences, so no constant"):
        Steering.of(neurons, 1.0, intervention=add)
    with pytest.raises(InputError, match="an hprobes list is in no order, so it has no first neurons"):
        read_neurons(saved(tmp_path, hprobes()), MODEL, k=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intermediate_dim": 32}, "made for layers of 32 neurons, the last one number 2, and tiny has 3 layers of 16"),
        ({"layers": [0, 3]}, "the last one number 3"),
        ({"h_neurons": [[0, 1], [0, 1]]}, r"config\.h_neurons\[1\]: \(layer 0, index 1\) was listed before"),
        ({"h_neurons": [[0, 16]]}, r"config\.h_neurons\[0\]: \(layer 0, index 16\) is outside tiny"),
        ({"h_neurons": [[0, 1.0]]}, r"config\.h_neurons\[0\]: \[0, 1\.0\] is no neuron"),
        ({"h_neurons": [[0, True]]}, "is no neuron"),
        ({"h_neurons": []}, "lists no neuron"),
        ({"h_neurons": 3}, "got a int"),
        ({"layers": []}, "is no file of hprobes"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_neurons(saved(tmp_path, hprobes(**changes)), MODEL)


@pytest.mark.parametrize("content", [[], {}, {"config": 3}, {"config": {"h_neurons": [[0, 1]]}}, "h_neurons"])
def test_another_file_is_not_taken_for_one(tmp_path: Path, content: object) -> None:
    with pytest.raises(InputError, match=r"is no file of hprobes.*save the probe again"):
        read_neurons(saved(tmp_path, content), MODEL, form="hprobes")


@given(st.lists(st.floats(-1, 1, width=32), min_size=48, max_size=48).filter(lambda values: max(values) > 0), st.booleans())
def test_positive_weights_largest_first(tmp_path_factory: pytest.TempPathFactory, values: list[float], flat: bool) -> None:
    path = tmp_path_factory.mktemp("coef") / "coef.npy"
    np.save(path, np.array(values) if flat else np.array([values]))
    neurons = read_neurons(path, MODEL)
    expected = sorted((-value, place) for place, value in enumerate(values) if value > 0)
    assert (neurons.layer * 16 + neurons.index).tolist() == [place for _, place in expected]
    assert read_neurons(path, MODEL, k=1).index.tolist() == neurons.index[:1].tolist()


def test_arrays_that_are_no_classifier_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "coef.npy"
    for array, message in (
        (np.ones((1, 47)), "has 47 weights, and tiny has 3 layers of 16 neurons"),
        (np.ones((2, 48)), "holds no row of floats"),
        (np.ones(48, np.int64), "holds no row of floats"),
        (np.array(1.0), "holds no row of floats"),
        (np.full(48, np.nan), "weight 0: is not finite"),
        (-np.ones(48), "lists no neuron"),
    ):
        np.save(path, array)
        with pytest.raises(InputError, match=message):
            read_neurons(path, MODEL)
    path.write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"no plain array of numpy\.save"):
        read_neurons(path, MODEL)
    np.save(path, np.ones(48))
    experts = replace(MODEL, n_experts=4)
    with pytest.raises(InputError, match="this format knows no experts"):
        read_neurons(path, experts)


def test_no_pickle_is_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("executed",))

    (tmp_path / "classifier.pkl").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match=r"is a pickle, which runs code when it is opened.*numpy\.save\('coef\.npy'"):
        read_neurons(tmp_path / "classifier.pkl", MODEL)
    np.save(tmp_path / "coef.npy", np.array([Trap()], object), allow_pickle=True)
    with pytest.raises(InputError, match=r"no plain array of numpy\.save"):
        read_neurons(tmp_path / "coef.npy", MODEL)
