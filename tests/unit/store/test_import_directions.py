"""Directions of other tools: read as their files hold them, and every file that is something else is one line of error."""

import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import InputError
from trimtab.neurons import ModelIdentity
from trimtab.store import from_steering_vector, read_directions
from trimtab.store.import_directions import holds_directions

gguf = pytest.importorskip("gguf")
MODEL = ModelIdentity("m", None, "qwen3", "f", n_layers=3, d_model=4, d_ff=8, vocab_size=9)
VECTORS = {1: np.array([1, -2, 0.5, 4], np.float32), 2: np.array([0, 3, 0, -1], np.float32)}


def control_vector(path: Path, tensors: dict[str, np.ndarray], architecture: str = "controlvector", hint: str = "qwen3") -> Path:
    """Written as repeng and llama.cpp write it."""
    writer = gguf.GGUFWriter(path, architecture)
    if hint:
        writer.add_string("controlvector.model_hint", hint)
    writer.add_uint32("controlvector.layer_count", len(tensors))
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def named(vectors: dict[int, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"direction.{layer}": vector for layer, vector in vectors.items()}


def svec(path: Path, directions: dict[str, object], **more: object) -> Path:
    path.write_text(json.dumps({"model_type": "qwen3", "directions": directions, **more}))
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_control_vector_gives_its_directions_by_block(tmp_path: Path, dtype: type) -> None:
    tensors = {name: vector.astype(dtype) for name, vector in named(VECTORS).items()}
    found = read_directions(control_vector(tmp_path / "v.gguf", dict(reversed(tensors.items()))), MODEL)
    assert (found.layer.tolist(), found.vector.dtype) == ([1, 2], np.float32)
    np.testing.assert_array_equal(found.vector, np.stack(list(VECTORS.values())))
    imported = found.facts["imported"]
    assert (imported["file"], imported["model_hint"]) == ("v.gguf", "qwen3")
    assert read_directions(tmp_path / "v.gguf", MODEL, [2]).layer.tolist() == [2]
    assert read_directions(control_vector(tmp_path / "w.gguf", named({0: VECTORS[1]}), hint=""), MODEL).layer.tolist() == [0]


def test_an_svec_holds_one_vector_a_layer_of_which_one_is_chosen(tmp_path: Path) -> None:
    both = svec(tmp_path / "v.svec", {"1": [VECTORS[1].tolist()], "2": VECTORS[2].tolist()}, meta={"package": "x"})
    found = read_directions(both, MODEL, [2])
    assert (found.layer.tolist(), found.vector.tolist()) == ([2], [VECTORS[2].tolist()])
    with pytest.raises(InputError, match="of layers 1, 2, and AISteer360 adds one of them; choose it: --layer N"):
        read_directions(both, MODEL)
    assert read_directions(svec(tmp_path / "one.svec", {"1": [VECTORS[1].tolist()]}), MODEL).layer.tolist() == [1]


@dataclass
class _SteeringVector:
    """As ``steering_vectors.SteeringVector`` is."""

    layer_activations: dict[int, torch.Tensor] = field(default_factory=dict)
    layer_type: str = "decoder_block"


def test_a_steering_vector_in_memory(tmp_path: Path) -> None:
    tensors = {layer: torch.tensor(vector, dtype=torch.bfloat16, requires_grad=True) for layer, vector in VECTORS.items()}
    found = from_steering_vector(_SteeringVector(dict(reversed(tensors.items()))), MODEL)
    np.testing.assert_array_equal(found.vector, np.stack(list(VECTORS.values())))
    assert found.steering(scope="all").direction_layer.tolist() == [1, 2]
    with pytest.raises(InputError, match=r"layer type 'mlp'.*layer_type 'decoder_block'"):
        from_steering_vector(_SteeringVector(tensors, "mlp"), MODEL)
    with pytest.raises(InputError, match=r"the steering vector: directions for layers .*which has layers 0 to 2"):
        from_steering_vector(_SteeringVector({-1: tensors[1]}), MODEL)
    with pytest.raises(InputError, match="holds no direction"):
        from_steering_vector(_SteeringVector(), MODEL)


@pytest.mark.parametrize(
    ("tensors", "architecture", "message"),
    [
        (
            named({1: VECTORS[1][:3]}),
            "controlvector",
            r"direction of layer 1 has the shape \[3\], and the residual stream",
        ),
        (named({1: np.ones((2, 4), np.float32)}), "controlvector", "the shape"),
        (named({3: VECTORS[1]}), "controlvector", r"directions for layers \[3\] of m, which has layers 0 to 2"),
        (named({1: VECTORS[1] * np.float32(np.nan)}), "controlvector", "direction of layer 1 holds NaN or infinity"),
        ({}, "controlvector", "holds no direction"),
        (named(VECTORS), "qwen3", "of the architecture 'qwen3', not 'controlvector'"),
        ({"direction.one": VECTORS[1]}, "controlvector", "holds the tensor 'direction.one' of type F32"),
        ({"direction.-1": VECTORS[1]}, "controlvector", "holds the tensor 'direction.-1'"),
        ({"direction.1": np.ones(4, np.int32)}, "controlvector", "of type I32"),
    ],
)
def test_a_gguf_that_is_no_control_vector_of_this_model(tmp_path: Path, tensors, architecture: str, message: str) -> None:
    path = control_vector(tmp_path / "v.gguf", tensors, architecture)
    with pytest.raises(InputError, match=message) as refused:
        read_directions(path, MODEL)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "lacks model_type or directions"),
        ('{"directions": {}}', "lacks model_type or directions"),
        ('{"model_type": "qwen3", "directions": [[1, 2]]}', "lacks model_type or directions"),
        ('{"model_type": "qwen3", "directions": {}}', "holds no direction"),
        ('{"model_type": "qwen3", "directions": {"x": [1, 2, 3, 4]}}', "names the layer 'x'"),
        ('{"model_type": "qwen3", "directions": {"1": "abc"}}', "no matrix of numbers"),
        ('{"model_type": "qwen3", "directions": {"1": [[1, 2], [3]]}}', "no matrix of numbers"),
        ('{"model_type": "qwen3", "directions": {"1": [[1, 2, 3, 4], [1, 2, 3, 4]]}}', "and several are positions"),
        ('{"model_type": "qwen3", "directions": {"1": [[[1, 2, 3, 4]]]}}', "a direction is one vector a layer"),
        ('{"model_type": "qwen3", "directions": {"1": [1, 2, 3]}}', r"has the shape \[3\]"),
        ('{"model_type": "qwen3", "directions": {"1": [1, 2, 3, NaN]}}', "is not JSON"),
        ('{"model_type": "qwen3", "directions": {"1": [1, 2, 3, 1e39]}}', "NaN or infinity"),
        ('{"model_type": "qwen3", "directions": {"1": [1, 2, 3, null]}}', "NaN or infinity|no matrix"),
        ('{"model_type": "qwen3", "directions": {"1": [1, 2, 3, 4]}, "num_heads": 2}', "attention heads"),
    ],
)
def test_an_svec_that_is_something_else(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "v.svec").write_text(text)
    with pytest.raises(InputError, match=message) as refused:
        read_directions(tmp_path / "v.svec", MODEL)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("ending", ["pt", "pth", "pkl", "pickle", "bin"])
def test_pickles_are_refused_by_name_and_never_opened(tmp_path: Path, ending: str) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    path = tmp_path / f"vector.{ending}"
    path.write_bytes(pickle.dumps(Bomb()))
    assert holds_directions(path)
    with pytest.raises(InputError, match=r"is a pickle, which runs code when it is opened.*from_steering_vector"):
        read_directions(path, MODEL)
    assert not (tmp_path / "exploded").exists()


def test_files_that_are_not_there_too_large_or_of_another_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_directions(tmp_path / "v.gguf", MODEL)
    with pytest.raises(InputError, match=r"accepted: \.gguf, \.svec"):
        read_directions(tmp_path / "v.npz", MODEL)
    control_vector(tmp_path / "v.gguf", named(VECTORS))
    monkeypatch.setattr("trimtab.store.import_directions.MOST_BYTES", 10)
    with pytest.raises(InputError, match="a file of directions at most 10"):
        read_directions(tmp_path / "v.gguf", MODEL)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return control_vector(tmp_path_factory.mktemp("intact") / "v.gguf", named(VECTORS)).read_bytes()


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_damaged_gguf_is_one_line_or_other_numbers_never_a_crash(intact: bytes, tmp_path_factory, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(intact) - 1))
    cut = data.draw(st.booleans())
    damaged = intact[:at] if cut else intact[:at] + data.draw(st.binary(min_size=1, max_size=8)) + intact[at + 1 :]
    path = tmp_path_factory.mktemp("damaged") / "v.gguf"
    path.write_bytes(damaged)
    try:
        found = read_directions(path, MODEL)
    except InputError as refused:
        assert "\n" not in str(refused)  # noqa: PT017
    else:
        assert found.vector.shape[1] == 4
