"""An export is used as it was written: one changed bit in any file of any target is refused by name, and so is a foreign GGUF."""

import builtins
from pathlib import Path
from random import Random
from typing import Any

import pytest

from export_samples import QUESTIONS, steering_of
from fuzzing import flip
from trimtab.errors import InputError, StoreError
from trimtab.export.exporting import export_steering
from trimtab.export.gguf import check_base, write_base
from trimtab.export.parts import TARGET_NAMES
from trimtab.export.record import read_export, write_record
from trimtab.export.verify import verify_export
from trimtab.model import LanguageModel
from trimtab.steering import Steering
from trimtab.store import push_steering, save_steering, write_json
from trimtab.store.export_files import digests_of
from trimtab.store.import_lists import read_neurons

SHIFTS = (3.0, -2.0, 4.0, 1.5)
ADDED = ("gguf", "adaras-csv", "json", "lm-eval")


def sample(model: LanguageModel, target: str) -> Steering:
    """A steering that the target carries."""
    if target in ADDED:
        return steering_of(model, gains=(0.0,) * 4, shifts=SHIFTS, strength=0.5, first_layer=target != "gguf")
    return steering_of(model)


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_one_bit_in_any_file_is_refused_by_name(model: LanguageModel, tmp_path: Path, target) -> None:
    if target == "gguf":
        pytest.importorskip("gguf")
    steering, folder, random = sample(model, target), tmp_path / "export", Random(target)
    record = export_steering(steering, target, folder, allow_pickle=True)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {*record.files, "export.json", "README.md"}
    for name in files - {"README.md"}:
        whole = (folder / name).read_bytes()
        for _ in range(20):
            (folder / name).write_bytes(flip(whole, random))
            with pytest.raises(StoreError, match=name):
                read_export(folder)
        with pytest.raises(StoreError, match=name):
            verify_export(folder, model, steering, QUESTIONS, allow_pickle=True)
        (folder / name).unlink()
        with pytest.raises(StoreError, match=rf"{name} is missing"):
            read_export(folder)
        (folder / name).write_bytes(whole)
    assert read_export(folder) == record


def test_a_verified_export_still_fits_its_record(model: LanguageModel, tmp_path: Path) -> None:
    steering = steering_of(model)
    export_steering(steering, "ia3", tmp_path / "ia3")
    record = verify_export(tmp_path / "ia3", model, steering, QUESTIONS, max_new_tokens=4)
    assert record == read_export(tmp_path / "ia3")


def test_a_card_may_be_edited_and_other_files_added(model: LanguageModel, tmp_path: Path) -> None:
    record = export_steering(steering_of(model), "lora", tmp_path / "lora")
    (tmp_path / "lora/README.md").write_text("mine")
    (tmp_path / "lora/.gitattributes").write_text("")
    assert read_export(tmp_path / "lora") == record


@pytest.mark.parametrize(("target", "name"), [("adaras-csv", "neurons.csv"), ("json", "neurons.json")])
def test_an_exported_list_is_not_imported_once_it_was_changed(model: LanguageModel, tmp_path: Path, target, name: str) -> None:
    export_steering(sample(model, target), target, tmp_path / "list")
    path, random = tmp_path / "list" / name, Random(0)
    whole, before = path.read_bytes(), read_neurons(path, model.identity)
    for _ in range(100):
        path.write_bytes(flip(whole, random))
        with pytest.raises(StoreError, match=rf"{name} is damaged or was edited: its SHA-256 is not the one in export\.json"):
            read_neurons(path, model.identity)
    (tmp_path / "list/export.json").unlink()
    path.write_bytes(whole)
    assert read_neurons(path, model.identity).mean_difference.tolist() == before.mean_difference.tolist()


def test_a_list_beside_the_export_json_of_another_tool_is_read(model: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("[[1, 7, 0.5]]")
    write_json(tmp_path / "export.json", {"files": ["mine.json"]})
    assert read_neurons(tmp_path / "mine.json", model.identity).mean_difference.tolist() == [0.5]


def test_a_damaged_export_is_not_pushed(model: LanguageModel, tmp_path: Path) -> None:
    steering = steering_of(model)
    save_steering(steering, tmp_path / "steering")
    export_steering(steering, "ia3", tmp_path / "ia3")
    path = tmp_path / "ia3/adapter_model.safetensors"
    path.write_bytes(flip(path.read_bytes(), Random(0)))
    with pytest.raises(StoreError, match=r"adapter_model\.safetensors is damaged"):
        push_steering(steering, "someone/steering", exports=[tmp_path / "ia3"])


def test_a_record_without_a_seal_is_refused(model: LanguageModel, tmp_path: Path) -> None:
    record = export_steering(steering_of(model), "ia3", tmp_path / "ia3")
    write_json(tmp_path / "ia3/export.json", record.model_dump())
    with pytest.raises(StoreError, match=r"export\.json carries no checksum"):
        read_export(tmp_path / "ia3")
    write_record(record.model_copy(update={"files": digests_of(tmp_path / "ia3")}), tmp_path / "ia3")
    assert read_export(tmp_path / "ia3") == record


@pytest.fixture
def vector(model: LanguageModel, tmp_path: Path) -> Steering:
    """Exported to the folder ``gguf``."""
    pytest.importorskip("gguf")
    steering = sample(model, "gguf")
    export_steering(steering, "gguf", tmp_path / "gguf")
    return steering


@pytest.mark.parametrize("damage", ["empty", "truncated", "random", "magic", "counts", "another format", "folder"])
def test_a_damaged_base_model_is_refused_before_llama_cpp_sees_it(
    model: LanguageModel, vector: Steering, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.export.verify.answered", lambda *args: pytest.fail("a model was run"))
    path = write_base(model, tmp_path / "base.gguf")
    whole, random = path.read_bytes(), Random(0)
    contents = {
        "empty": [b""],
        "truncated": [whole[:length] for length in range(0, len(whole), len(whole) // 25)],
        "random": [random.randbytes(length) for length in (1, 4, 24, 300, 10_000)],
        "magic": [b"GGUF" + random.randbytes(300), b"GGUF\x03\0\0\0" + b"\xff" * 400],
        "counts": [whole[:at] + b"\xff" * 8 + whole[at + 8 :] for at in range(4, 60, 8)],
        "another format": [b"[" * 100_000, (tmp_path / "gguf/control-vector.gguf").read_bytes()],
        "folder": [],
    }[damage]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"base\.gguf") as caught:
            verify_export(tmp_path / "gguf", model, vector, QUESTIONS, base_gguf=path)
        assert "\n" not in str(caught.value)
    if damage == "folder":
        path.unlink()
        path.mkdir()
        with pytest.raises(InputError, match=r"base\.gguf"):
            check_base(path, model)


def test_a_base_model_of_another_size_is_refused(model: LanguageModel, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    import numpy as np

    path = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_block_count(7)
    writer.add_embedding_length(16)
    writer.add_tensor("token_embd.weight", np.zeros((5, 16), np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    with pytest.raises(InputError, match=r"other\.gguf is no GGUF file of .*: layers 7, not 3, width 16, not 32, vocabulary 5"):
        check_base(path, model)


def test_a_whole_base_model_without_llama_cpp(
    model: LanguageModel, vector: Steering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str, *rest: Any) -> Any:
        if name == "llama_cpp":
            raise ModuleNotFoundError("No module named 'llama_cpp'", name="llama_cpp")
        return whole(name, *rest)

    whole = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", missing)
    path = write_base(model, tmp_path / "base.gguf")
    check_base(path, model)
    for base in (path, None):
        with pytest.raises(InputError, match=r"llama\.cpp needs llama-cpp-python, which is not installed; run: pip install"):
            verify_export(tmp_path / "gguf", model, vector, QUESTIONS, base_gguf=base, max_new_tokens=2)


def test_a_base_gguf_belongs_to_an_export_to_gguf(model: LanguageModel, tmp_path: Path) -> None:
    steering = steering_of(model)
    export_steering(steering, "ia3", tmp_path / "ia3")
    with pytest.raises(InputError, match=r"base_gguf \(--base-gguf\) is what llama.cpp opens"):
        verify_export(tmp_path / "ia3", model, steering, QUESTIONS, base_gguf=tmp_path / "base.gguf")
