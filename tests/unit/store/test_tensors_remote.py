from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from safetensors import SafetensorError
from safetensors.numpy import save
from upath import UPath

from trimtab.errors import StoreError
from trimtab.store import load_tensors, open_tensor, open_tensors, save_tensors
from trimtab.store.tensors import RemoteTensors

DTYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64", "bool")
ARRAYS = {
    **{name: np.arange(24).reshape(4, 3, 2).astype(name) for name in DTYPES},
    "scalar": np.float64(1.5).reshape(()),
    "empty": np.zeros((0, 3), np.float32),
    "flat": np.zeros((2, 0), np.int64),
}
KEYS = [
    slice(None),
    slice(1, 3),
    slice(2, 2),
    slice(None, None, 2),
    (slice(None), slice(1, 2)),
    (slice(0, 2), slice(None), 1),
    (slice(3, 4), 0),
    2,
    (1, slice(1, 3)),
]


@pytest.fixture
def files(remote: UPath, tmp_path: Path) -> tuple[UPath, Path]:
    """The same tensors far away and here."""
    for folder in (remote, tmp_path / "disk"):
        save_tensors(folder / "x.safetensors", ARRAYS, {"key": "é"})
    return remote / "x.safetensors", tmp_path / "disk" / "x.safetensors"


def test_every_dtype_and_shape_reads_as_from_a_disk(files: tuple[UPath, Path]) -> None:
    (far, far_metadata), (near, near_metadata) = map(load_tensors, files)
    assert far_metadata == near_metadata == {"key": "é"}
    assert far.keys() == near.keys() == ARRAYS.keys()
    for name, array in near.items():
        assert (far[name].dtype, far[name].shape, far[name].tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert far[name].flags.writeable


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_slices_are_those_of_the_array(files: tuple[UPath, Path], key: object) -> None:
    for path in files:
        with open_tensors(path) as tensors:
            assert tensors["int32"].get_shape() == [4, 3, 2]
            np.testing.assert_array_equal(tensors["int32"][key], ARRAYS["int32"][key])


def test_rows_outside_and_unknown_names_are_refused_as_on_a_disk(files: tuple[UPath, Path]) -> None:
    for path in files:
        with pytest.raises(StoreError, match="ask for rows within"), open_tensor(path, "int32") as tensor:
            tensor[2:5]
        with pytest.raises(StoreError, match="has no tensor 'none'; it has bool, empty"), open_tensor(path, "none"):
            pass


def test_only_the_rows_asked_for_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    path = UPath("memory://tensors/wide.safetensors")
    save_tensors(path, {"a": np.ones((100, 50_000), np.float32), "b": np.arange(5)}, {})
    read, travelled = MemoryFileSystem.cat_file, []

    def counted(fs: MemoryFileSystem, path: str, start: int, end: int) -> bytes:
        travelled.append(end - start)
        return read(fs, path, start=start, end=end)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
    with open_tensors(path) as tensors:
        assert tensors["b"][:].tolist() == [0, 1, 2, 3, 4]
        assert tensors["a"][7:9].shape == (2, 50_000)
    assert travelled == [2**16, 5 * 8, 2 * 50_000 * 4]


def test_only_the_layers_asked_for_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    path, array = UPath("memory://tensors/deep.safetensors"), np.arange(60_000, dtype=np.float32).reshape(3, 20, 1000)
    save_tensors(path, {"a": array}, {})
    read, asked = MemoryFileSystem.cat_ranges, []

    def counted(fs: MemoryFileSystem, paths: list[str], starts: list[int], ends: list[int], **options: object) -> list[bytes]:
        asked.extend(end - start for start, end in zip(starts, ends, strict=True))
        return read(fs, paths, starts, ends, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_ranges", counted)
    with open_tensors(path) as tensors:
        np.testing.assert_array_equal(tensors["a"][1:, 4:6], array[1:, 4:6])
        assert asked == [8000, 8000]
        path.write_bytes(path.read_bytes()[:-60_000])
        with pytest.raises(SafetensorError, match="are missing"):
            tensors["a"][:, 4:6]


def test_a_header_that_is_longer_than_the_first_request(remote: UPath) -> None:
    arrays = {f"{'x' * 100}{i:04d}": np.array([i]) for i in range(1000)}
    save_tensors(remote / "a", arrays, {})
    tensors, _ = load_tensors(remote / "a")
    assert len(tensors) == 1000
    assert all(tensors[name] == array for name, array in arrays.items())


def test_a_truncated_file_is_named_wherever_it_ends(remote: UPath) -> None:
    path = remote / "a.safetensors"
    save_tensors(path, {"a": np.arange(6.0), "b": np.arange(3)}, {})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=r"a\.safetensors"):
            load_tensors(path)


@pytest.mark.parametrize("content", [b"", b"PAR1 is something else", b"\xff" * 20, (4).to_bytes(8, "little") + b"nope"])
def test_what_is_no_safetensors_file(remote: UPath, content: bytes) -> None:
    remote.mkdir(parents=True, exist_ok=True)
    (remote / "a").write_bytes(content)
    with pytest.raises(SafetensorError):
        RemoteTensors(remote / "a")
    with pytest.raises(StoreError, match="a is truncated or not a safetensors file"):
        load_tensors(remote / "a")


def test_a_dtype_that_numpy_lacks(remote: UPath) -> None:
    remote.mkdir(parents=True, exist_ok=True)
    (remote / "a").write_bytes(save({"a": np.zeros(2, np.int16)}).replace(b'"I16"', b'"BF16"', 1))
    with pytest.raises(StoreError, match="BF16"):
        load_tensors(remote / "a")
