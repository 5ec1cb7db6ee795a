"""What stands in the way of an export gives one error and leaves nothing behind; the card says what was dropped and proved."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from export_samples import QUESTIONS, open_tiny, steering_of
from trimtab.errors import InputError, MismatchError, ModelError, StoreError
from trimtab.export.exporting import export_steering
from trimtab.export.record import read_export, write_record
from trimtab.export.verify import verify_export
from trimtab.model import LanguageModel
from trimtab.store.export_files import digests_of
from trimtab.testbed.models import PREFIX


def _nothing_left(folder: Path) -> bool:
    return not folder.exists() and not list(folder.parent.glob(f".{folder.name}*"))


@pytest.mark.parametrize("target", ["lora", "merged"])
def test_other_weights_are_refused(model: LanguageModel, save_tiny: Callable[..., Path], tmp_path: Path, target) -> None:
    steering = steering_of(model)
    tuned = save_tiny("qwen3", seed=1)
    with pytest.raises(MismatchError, match="fingerprint"):
        export_steering(steering, target, tmp_path / "export", model=str(tuned))
    assert _nothing_left(tmp_path / "export")


def test_another_shape_is_refused_before_a_weight_is_read(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.export.checkpoint.StoredTensor.read", lambda _: pytest.fail("a weight was read"))
    with pytest.raises(MismatchError, match="d_model: expected 32, this model has 128"):
        export_steering(steering_of(model), "lora", tmp_path / "export", model=f"{PREFIX}reasoner")


def test_a_folder_that_holds_something_is_left_alone(model: LanguageModel, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    for force in (False, True):
        with pytest.raises(StoreError, match=r"not empty \(thesis.txt\)"):
            export_steering(steering_of(model), "lora", mine, force=force)
    export_steering(steering_of(model), "lora", tmp_path / "lora")
    with pytest.raises(StoreError, match="already holds an export; pass --force"):
        export_steering(steering_of(model), "lora", tmp_path / "lora")
    export_steering(steering_of(model), "ia3", tmp_path / "lora", force=True)
    assert read_export(tmp_path / "lora").target == "ia3"


def test_a_disk_that_fills_up_in_the_middle_leaves_nothing(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, written = os.write, 0

    def write(descriptor: int, data: memoryview) -> int:
        nonlocal written
        written += len(data)
        if written > 30_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(descriptor, data)

    monkeypatch.setattr("trimtab.export.checkpoint.os.write", write)
    with pytest.raises(StoreError, match="No space left on device; free space on that disk"):
        export_steering(steering_of(model), "merged", tmp_path / "merged")
    assert _nothing_left(tmp_path / "merged")


def test_a_disk_that_is_too_small_is_refused_at_once(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shutil import _ntuple_diskusage  # type: ignore[attr-defined]

    monkeypatch.setattr("trimtab.export.merged.shutil.disk_usage", lambda _: _ntuple_diskusage(10, 9, 1))
    with pytest.raises(StoreError, match="GB free; free space, or give -o on another disk"):
        export_steering(steering_of(model), "merged", tmp_path / "merged")
    assert _nothing_left(tmp_path / "merged")


def test_the_card_says_what_was_dropped_and_what_was_proved(model: LanguageModel, tmp_path: Path) -> None:
    steering = steering_of(model, shifts=(1.0, 0.0, -2.0, 0.0), scope="generated")
    export_steering(steering, "lora", tmp_path / "lora", drop=["shift", "scope"])
    card = (tmp_path / "lora/README.md").read_text()
    assert "- shift: the shifts of 2 neurons" in card
    assert "- scope: the scope generated" in card
    assert "Not verified yet" in card
    record = verify_export(tmp_path / "lora", model, steering, QUESTIONS, max_new_tokens=6)
    card = (tmp_path / "lora/README.md").read_text()
    assert "Passed: reloaded with peft" in card
    assert record == read_export(tmp_path / "lora")
    assert record.verification is not None
    assert record.verification.cost is not None
    assert record.verification.cost.distance is not None
    assert record.verification.cost.distance > 0.01


def test_an_export_that_does_something_else_fails_its_verification(model: LanguageModel, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    steering = steering_of(model)
    record = export_steering(steering, "ia3", tmp_path / "ia3")
    path = tmp_path / "ia3/adapter_model.safetensors"
    save_file({name: torch.ones_like(value) for name, value in load_file(path).items()}, path)
    # as if it had been exported so
    write_record(record.model_copy(update={"files": digests_of(tmp_path / "ia3")}), tmp_path / "ia3")
    seen = verify_export(tmp_path / "ia3", model, steering, QUESTIONS, max_new_tokens=4).verification
    assert seen is not None
    assert seen.size == 0
    assert seen.effect == pytest.approx(1)
    assert not seen.ok
    assert "FAILED" in (tmp_path / "ia3/README.md").read_text()


def test_verifying_needs_the_steering_and_the_model_of_the_export(
    model: LanguageModel, save_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    steering = steering_of(model)
    export_steering(steering, "ia3", tmp_path / "ia3")
    with pytest.raises(MismatchError, match="exported from a steering with digest"):
        verify_export(tmp_path / "ia3", model, steering.with_strength(0.5), QUESTIONS)
    other = open_tiny(save_tiny("qwen3", seed=1))
    with pytest.raises(MismatchError, match="fingerprint"):
        verify_export(tmp_path / "ia3", other, steering, QUESTIONS)
    with pytest.raises(InputError, match="at least one prompt"):
        verify_export(tmp_path / "ia3", model, steering, [])
    with pytest.raises(StoreError, match=r"export.json is missing"):
        verify_export(tmp_path, model, steering, QUESTIONS)


def test_a_model_that_is_not_there(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        export_steering(steering_of(model), "lora", tmp_path / "lora", model=str(tmp_path / "nowhere"))
