"""LAPE's files: the nested lists as they are, nothing executed, and the same effect as LAPE's own intervention."""

import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tiny_models import D_FF, tiny
from trimtab.errors import InputError
from trimtab.interventions import ablate, add, scale
from trimtab.model import attach, find_ffn
from trimtab.model.identity import identify
from trimtab.neurons import ModelIdentity
from trimtab.steering import Steering
from trimtab.store.import_lists import read_lape

MODEL = ModelIdentity("tiny", None, "qwen3", "f00", n_layers=3, d_model=8, d_ff=16, vocab_size=97)
ENGLISH = [torch.tensor([1, 5]), torch.tensor([]).long(), torch.tensor([15])]
CHINESE = [torch.tensor([0]), torch.tensor([2]), torch.tensor([3])]


def _saved(folder: Path, content: object) -> Path:
    path = folder / "model.neuron.pth"
    torch.save(content, path)
    return path


def test_one_language_by_layer(tmp_path: Path) -> None:
    path = _saved(tmp_path, [ENGLISH, CHINESE])
    english, chinese = (read_lape(path, MODEL, part) for part in (0, 1))
    assert (english.layer.tolist(), english.index.tolist()) == ([0, 0, 2], [1, 5, 15])
    assert (chinese.layer.tolist(), chinese.index.tolist()) == ([0, 1, 2], [0, 2, 3])
    imported = english.facts["imported"]
    assert isinstance(imported, dict)
    assert imported["listed_neuron"] == "act(gate_proj(h)); in an ungated FFN act(fc1(h))"
    assert (imported["format"], imported["part"], imported["neurons"]) == ("lape", 0, 3)


def test_a_file_of_one_language(tmp_path: Path) -> None:
    assert read_lape(_saved(tmp_path, CHINESE), MODEL).index.tolist() == [0, 2, 3]


@pytest.mark.parametrize(("intervention", "factor"), [(ablate, 0.0), (scale, 1.1)])
def test_a_factor_on_our_neuron_is_that_factor_on_lapes(tmp_path: Path, intervention, factor: float) -> None:
    model = tiny("qwen3")
    wanted = [torch.tensor([3, 40]), torch.tensor([]).long(), torch.tensor([0, 11, D_FF - 1])]
    neurons = read_lape(_saved(tmp_path, [wanted]), identify(model, "tiny", None), 0)
    ids = torch.tensor([[5, 9, 40, 7]])
    plain = model(input_ids=ids).logits
    with attach(model, Steering.of(neurons, 1.0, "all", intervention=intervention)):
        ours = model(input_ids=ids).logits

    def lapes_own(indices: torch.Tensor):
        def hook(_module: object, _inputs: object, activation: torch.Tensor) -> torch.Tensor:
            return activation.index_copy(-1, indices, factor * activation[..., indices])

        return hook

    blocks = [model.get_submodule(f"model.layers.{layer}.mlp.act_fn") for layer in range(len(find_ffn(model).down))]
    hooks = [block.register_forward_hook(lapes_own(indices)) for block, indices in zip(blocks, wanted, strict=True)]
    theirs = model(input_ids=ids).logits
    for hook in hooks:
        hook.remove()
    assert torch.linalg.norm((ours - plain) - (theirs - plain)) <= 1e-4 * torch.linalg.norm(theirs - plain)


def test_addresses_alone_make_no_constant(tmp_path: Path) -> None:
    neurons = read_lape(_saved(tmp_path, CHINESE), MODEL)
    with pytest.raises(InputError, match=r"imported-lape\) holds no differences.*scale or ablate"):
        Steering.of(neurons, 1.0, intervention=add)


class _Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: [[evil]], lambda evil: [[torch.tensor([1]), evil]]])
def test_a_hostile_file_is_refused_and_not_executed(tmp_path: Path, wrap) -> None:
    witness = tmp_path / "executed"
    path = _saved(tmp_path, wrap(_Hostile(witness)))
    with pytest.raises(InputError, match="nothing in it was executed") as refusal:
        read_lape(path, MODEL, 0)
    assert "weights_only" not in str(refusal.value)
    assert not witness.exists()
    torch.load(path, weights_only=False)
    assert witness.exists()  # the file was hostile indeed


def test_a_bare_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "bare.pth"
    path.write_bytes(pickle.dumps(_Hostile(tmp_path / "executed")))
    with pytest.raises(InputError, match=r"is no archive of torch\.save"):
        read_lape(path, MODEL)
    assert not (tmp_path / "executed").exists()


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = _saved(tmp_path, [ENGLISH])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"is no archive of torch\.save"):
        read_lape(path, MODEL)


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open("a/data.pkl", "w") as entry:
        for _ in range(65):
            entry.write(bytes(2**20))
    with pytest.raises(InputError, match="unpacks to 68,157,440 bytes"):
        read_lape(path, MODEL)


@pytest.mark.parametrize(
    ("content", "part", "problem"),
    [
        ([ENGLISH, CHINESE], None, "holds 2 lists of neurons, and none was chosen; give --part 0 to 1"),
        ([ENGLISH, CHINESE], 2, "there is no part 2; give --part 0 to 1"),
        ([ENGLISH, CHINESE], -1, "there is no part -1"),
        (CHINESE, 0, "holds one list of neurons, so there is no part 0"),
        ({"en": ENGLISH}, 0, "holds no list, but a dict"),
        ([], None, "holds no list"),
        ([ENGLISH, torch.tensor([1])], 1, "part 1: expected a list of layers, got a Tensor"),
        ([ENGLISH[:2]], 0, "has lists for 2 layers, and tiny has 3"),
        ([[*ENGLISH[:2], [3]]], 0, "layer 2: expected a tensor of indices, got a list"),
        ([[*ENGLISH[:2], torch.tensor([3.0])]], 0, "layer 2: expected a flat int64 tensor of indices, got torch.float32"),
        ([[*ENGLISH[:2], torch.tensor([[3]])]], 0, r"got torch.int64 of shape \[1, 1\]"),
        ([[*ENGLISH[:2], torch.tensor([3]).to_sparse()]], 0, "layer 2: expected a flat int64 tensor"),
        ([[*ENGLISH[:2], torch.empty(3, dtype=torch.int64, device="meta")]], 0, "layer 2: expected a flat int64 tensor"),
        ([[*ENGLISH[:2], torch.tensor([3]).expand(10**12)]], 0, "layer 2: 1000000000000 indices, and tiny has 16"),
        ([[*ENGLISH[:2], torch.tensor([2, 16])]], 0, r"layer 2, entry 1: \(layer 2, index 16\) is outside tiny"),
        ([[*ENGLISH[:2], torch.tensor([-1])]], 0, r"layer 2, entry 0: \(layer 2, index -1\) is outside tiny"),
        ([[*ENGLISH[:2], torch.tensor([2, 2])]], 0, "layer 2, entry 1: .* was listed before, at layer 2, entry 0"),
        ([[torch.tensor([]).long()] * 3], 0, "lists no neuron"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: object, part: int | None, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read_lape(_saved(tmp_path, content), MODEL, part)


def test_a_model_of_fewer_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has lists for 3 layers, and tiny has 2"):
        read_lape(_saved(tmp_path, CHINESE), replace(MODEL, n_layers=2))


def test_a_mixture_of_experts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="knows no experts, and tiny has 2 a layer"):
        read_lape(_saved(tmp_path, CHINESE), replace(MODEL, n_experts=2))
