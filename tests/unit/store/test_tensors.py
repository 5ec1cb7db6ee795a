import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trimtab.errors import InputError, StoreError
from trimtab.store.tensors import load_tensors, open_tensor, save_tensors

RNG = np.random.default_rng(0)
DTYPES = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64", "bool"]


def assert_same(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.dtype == expected.dtype.newbyteorder("=")
    assert actual.shape == expected.shape
    assert actual.tobytes() == expected.astype(expected.dtype.newbyteorder("=")).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (2, 3, 4)])
def test_arrays_come_back_bit_for_bit(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    array = (RNG.normal(size=shape) * 50).astype(dtype) if dtype[0] != "u" else RNG.integers(0, 200, shape).astype(dtype)
    save_tensors(tmp_path / "a", {"x": np.asarray(array)}, {})
    tensors, metadata = load_tensors(tmp_path / "a")
    assert metadata == {}
    assert_same(tensors["x"], np.asarray(array))


def test_views_and_byte_orders_are_laid_out_first(tmp_path: Path) -> None:
    base = RNG.normal(size=(4, 6)).astype(np.float32)
    views = {
        "transposed": base.T,
        "strided": base[::2, 1::2],
        "reversed": base[::-1],
        "big": base.astype(">f4"),
        "f": np.asfortranarray(base),
    }
    save_tensors(tmp_path / "a", views, {})
    tensors, _ = load_tensors(tmp_path / "a")
    assert set(tensors) == set(views)
    for name, view in views.items():
        np.testing.assert_array_equal(tensors[name], view)


def test_special_values(tmp_path: Path) -> None:
    array = np.array([np.nan, np.inf, -np.inf, -0.0, np.nextafter(np.float32(0), np.float32(1))], np.float32)
    save_tensors(tmp_path / "a", {"x": array}, {})
    assert load_tensors(tmp_path / "a")[0]["x"].tobytes() == array.tobytes()


PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from trimtab.store.tensors import save_tensors
keys = sys.argv[2].split()
save_tensors(Path(sys.argv[1]), {k: np.arange(3.0) for k in keys}, {k: k + "é" for k in keys})
"""


def test_the_same_content_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    contents = set()
    for i, keys in enumerate(["a b c d e f g h", "h g f e d c b a"]):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / str(i)), keys]
        subprocess.run(command, check=True, env={"PYTHONPATH": ":".join(filter(None, sys.path)), "PYTHONHASHSEED": str(i)})
        contents.add((tmp_path / str(i)).read_bytes())
    assert len(contents) == 1
    assert load_tensors(tmp_path / "0")[1] == {key: f"{key}é" for key in "abcdefgh"}


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", {"x": np.zeros(1)}, {})
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_a_slice_reads_rows(tmp_path: Path) -> None:
    array = RNG.normal(size=(10, 3, 4)).astype(np.float32)
    save_tensors(tmp_path / "a", {"x": array, "y": array[0]}, {})
    with open_tensor(tmp_path / "a", "x") as tensor:
        assert tensor.get_shape() == [10, 3, 4]
        np.testing.assert_array_equal(tensor[2:5], array[2:5])
        np.testing.assert_array_equal(tensor[:, 1], array[:, 1])


def test_slices_that_are_not_there(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", {"x": np.zeros(3)}, {})
    with pytest.raises(StoreError, match="no tensor 'z'; it has x"), open_tensor(tmp_path / "a", "z"):
        pass
    with pytest.raises(StoreError, match="within the tensor's shape"), open_tensor(tmp_path / "a", "x") as tensor:
        tensor[7:9]
    with pytest.raises(ZeroDivisionError), open_tensor(tmp_path / "a", "x"):
        raise ZeroDivisionError


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"x": np.arange(6.0)}, {"k": "v"})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(
            StoreError, match=r"a\.safetensors is truncated or not a safetensors file.*delete it and run the command"
        ):
            load_tensors(path)
    with pytest.raises(StoreError, match="truncated"), open_tensor(path, "x"):
        pass


def test_missing_folder_foreign_and_unknown_dtype(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(StoreError, match="is missing"):
        load_tensors(path)
    with pytest.raises(StoreError, match="cannot be read"):
        load_tensors(tmp_path)
    header = b'{"x":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(StoreError, match="bfloat16"):
        load_tensors(path)
    with pytest.raises(InputError, match=r"'x'.*complex64.*accepted: int8"):
        save_tensors(path, {"x": np.zeros(2, np.complex64)}, {})


def test_metadata_of_a_foreign_file_stands_as_it_is(tmp_path: Path) -> None:
    header = b'{"__metadata__":{"format":"pt"},"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert load_tensors(tmp_path / "a")[1] == {"format": "pt"}


def test_an_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="a file stands where a folder is needed"):
        save_tensors(tmp_path / "file" / "a", {"x": np.zeros(1)}, {})
