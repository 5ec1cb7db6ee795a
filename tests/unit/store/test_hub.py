"""The hub without a network: its client is replaced, or pointed at a port where nothing listens."""

import shutil
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants

from trimtab.errors import StoreError
from trimtab.gate import ALWAYS
from trimtab.steering import Steering
from trimtab.store import write_json
from trimtab.store.artifact import load_steering, save_steering
from trimtab.store.export_files import digests_of

FILES = ["config.json", "neurons.safetensors", "gate.safetensors", "README.md"]


class FakeHub:
    """Repositories as folders, with the calls that HfApi and snapshot_download take."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private: dict[str, bool] = {}
        self.tokens: list[str | None] = []

    def __call__(self, token: str | None = None) -> "FakeHub":
        self.tokens.append(token)
        return self

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.private.setdefault(repo_id, private)
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)

    def model_info(self, repo_id: str) -> SimpleNamespace:
        return SimpleNamespace(private=self.private[repo_id])

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], delete_patterns: list[str], commit_message: str
    ) -> SimpleNamespace:
        assert commit_message
        for name in delete_patterns:
            (self.root / repo_id / name).unlink(missing_ok=True)
        for path in sorted(folder_path.glob("**/*")):
            name = path.relative_to(folder_path)
            if path.is_file():
                assert any(fnmatch(str(name), pattern) for pattern in allow_patterns)
                (self.root / repo_id / name).parent.mkdir(exist_ok=True)
                shutil.copy(path, self.root / repo_id / name)
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert allow_patterns == [*FILES[:3], "directions.safetensors", FILES[3]]
        assert revision in (None, "v1")
        return str(self.root / repo_id)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", fake)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    return fake


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def test_what_is_pushed_is_loaded(hub: FakeHub, steering: Steering) -> None:
    assert steering.push_to_hub("me/steering", token="secret") == "https://hub/me/steering/commit/1"
    assert hub.private == {"me/steering": True}
    assert hub.tokens == ["secret"]
    assert sorted(path.name for path in (hub.root / "me/steering").iterdir()) == sorted(FILES)
    for revision in (None, "v1"):
        loaded = load_steering("me/steering", revision=revision)
        assert loaded.digest == steering.digest
        np.testing.assert_array_equal(loaded.shift, steering.shift)
    card = (hub.root / "me/steering" / "README.md").read_text()
    assert "Steering.from_pretrained('me/steering')" in card


def test_a_push_removes_the_gate_that_is_gone(hub: FakeHub, steering: Steering) -> None:
    steering.push_to_hub("me/steering")
    steering.with_gate(ALWAYS).push_to_hub("me/steering")
    assert not (hub.root / "me/steering/gate.safetensors").exists()


def test_exports_become_subfolders(hub: FakeHub, steering: Steering, tmp_path: Path) -> None:
    lora = tmp_path / "lora"
    lora.mkdir()
    (lora / "weights.bin").write_bytes(b"abc")
    with pytest.raises(StoreError, match=r"export.json is missing"):
        steering.push_to_hub("me/steering", exports=[lora])
    (lora / "export.json").write_text('{"steering": "another"}')
    with pytest.raises(StoreError, match="carries no checksum"):
        steering.push_to_hub("me/steering", exports=[lora])
    write_json(lora / "export.json", {"steering": "another", "files": {}}, "")
    with pytest.raises(StoreError, match="no export of this steering"):
        steering.push_to_hub("me/steering", exports=[lora])
    assert not hub.root.exists()
    write_json(lora / "export.json", {"steering": steering.digest, "files": digests_of(lora)}, "")
    with pytest.raises(StoreError, match="same folder name"):
        steering.push_to_hub("me/steering", exports=[lora, str(lora)])
    steering.push_to_hub("me/steering", exports=[lora])
    assert (hub.root / "me/steering/lora/weights.bin").read_bytes() == b"abc"
    assert load_steering("me/steering").digest == steering.digest


def test_a_public_repository_is_not_published_to_by_mistake(hub: FakeHub, steering: Steering) -> None:
    hub.create_repo("me/public", private=False, exist_ok=True)
    with pytest.raises(StoreError, match="exists and is public; pass private=False"):
        steering.push_to_hub("me/public")
    assert list((hub.root / "me/public").iterdir()) == []
    steering.push_to_hub("me/public", private=False)
    assert len(list((hub.root / "me/public").iterdir())) == 4


def test_a_folder_comes_before_a_repository(
    hub: FakeHub, steering: Steering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_steering(steering, Path("me/steering"))
    assert load_steering("me/steering").digest == steering.digest
    assert not hub.root.exists()


def test_a_repository_of_something_else(hub: FakeHub) -> None:
    (hub.root / "me/model").mkdir(parents=True)
    (hub.root / "me/model/config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(StoreError, match="unknown key 'model_type'"):
        load_steering("me/model")


def test_offline_is_one_error(no_network: None) -> None:
    with pytest.raises(StoreError, match=r"cannot fetch me/steering at revision v1: .*download it elsewhere and give the folder"):
        load_steering("me/steering", revision="v1")


def test_offline_push_is_one_error(no_network: None, steering: Steering) -> None:
    with pytest.raises(StoreError, match=r"cannot upload to me/steering: .*token may write"):
        steering.push_to_hub("me/steering", token="hf_x")


def test_a_name_that_the_hub_refuses(no_network: None, steering: Steering) -> None:
    with pytest.raises(StoreError, match=r"cannot upload to a/b/c: .*owner/name"):
        steering.push_to_hub("a/b/c", token="hf_x")
