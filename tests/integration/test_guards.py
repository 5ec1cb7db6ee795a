"""Every check of a checksum is taken out in turn, and something is then read that was not written: no check is there for nothing.

Where two checks cover one file, as SHA-256 and CRC-32 do an artifact's tensors, what one of them alone finds is tried: another
file that is whole.
"""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fuzzing import flip, plain
from trimtab.comparison.readers import read_results
from trimtab.errors import StoreError, TrimtabError
from trimtab.neurons import ModelIdentity, Neurons
from trimtab.steering import Steering
from trimtab.store import (
    Cache,
    any_path,
    digest_of,
    load_neurons,
    load_steering,
    openings,
    read_json,
    read_table,
    record_opening,
    save_neurons,
    save_steering,
    save_tensors,
    tables,
    tensors,
    write_json,
    write_table,
)
from trimtab.store.export_files import check_files, digests_of
from trimtab.store.import_lists import read_neurons
from trimtab.study.gather import write_rows
from trimtab.tasks.files import read_rows
from trimtab.traces import Problem, Split

MODEL = ModelIdentity("tiny", None, "qwen3", "f00", n_layers=3, d_model=8, d_ff=200, vocab_size=97)
TRIES = 400


def neurons(seed: int) -> Neurons:
    random = np.random.default_rng(seed)
    flat = random.permutation(600)[:40]
    good, bad = random.normal(size=(2, 40)).astype(np.float32)
    return Neurons(flat // 200, flat % 200, random.normal(size=40), good, bad, "adaras", MODEL, {"n": 60 + seed})


def problems(seed: int) -> list[Problem]:
    return [Problem(f"p{i}", f"What is {i} + {seed}?", str(i + seed), Split.TEST) for i in range(60)]


def misread(path: Path, read: Callable[[], object], start: int = 0, stop: int | None = None) -> int:
    """How many of some flipped bits, of all bytes or of these, are read as something else, without a word."""
    whole, random, found = path.read_bytes(), Random(path.name), 0
    before = plain(read())
    for _ in range(TRIES):
        path.write_bytes(whole[:start] + flip(whole[start:stop], random) + (whole[stop:] if stop else b""))
        try:
            found += plain(read()) != before
        except Exception:  # noqa: BLE001  # without its check a reader may fail in any way; with it the fuzz suite looks at that
            continue
    path.write_bytes(whole)
    return found


def exchanged(read: Callable[[], object], *pairs: tuple[Path, Path]) -> int:
    """How many whole files of another result are read in place of one's own."""
    found, before = 0, plain(read())
    for path, other in pairs:
        whole = path.read_bytes()
        path.write_bytes(other.read_bytes())
        with contextlib.suppress(TrimtabError):
            found += plain(read()) != before
        path.write_bytes(whole)
    return found


def _entry(root: Path, verb: str, name: str, write: Callable[[Path], object], seed: int = 0) -> Path:
    made = Cache(root).entry(verb, {"seed": seed})
    with made.claim():
        write(made.folder)  # type: ignore[arg-type]  # local
    return Path(str(made.folder)) / name


def _json(root: Path) -> int:
    path = _entry(root, "contrast", "contrast.json", lambda f: write_json(f / "contrast.json", {"n": 12345, "x": 0.5}))
    return misread(path, lambda: read_json(path))


def _table(root: Path) -> int:
    path = _entry(root, "problems", "a.parquet", lambda f: write_table(f / "a.parquet", problems(0)))
    other = _entry(root, "problems", "a.parquet", lambda f: write_table(f / "a.parquet", problems(1)), seed=1)
    return exchanged(lambda: read_table(path, Problem), (path, other))


def _page(path: Path) -> tuple[int, int]:
    """Where the last bytes of the first column's page stand; what is before them has no checksum of the format."""
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    stop = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size
    return stop - column.total_compressed_size // 2, stop


def _pages(root: Path) -> int:
    """Another program's file of scores: its pages carry checksums, and nothing else does."""
    path = root / "scores.parquet"
    table = pa.table({"id": list(range(400)), "correct": [i % 3 == 0 for i in range(400)]})
    pq.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    return misread(path, lambda: list(read_results(path).tasks[""].responses), *_page(path))


def _page_rows(root: Path) -> int:
    path = root / "problems.parquet"
    pq.write_table(pa.Table.from_pylist([{"question": f"{i} + 1?", "answer": str(i + 1)} for i in range(300)]), path,
                   write_page_checksum=True, compression="none", use_dictionary=False)  # fmt: skip
    return misread(path, lambda: list(read_rows(path)), *_page(path))


def _blocks(root: Path) -> int:
    array = np.random.default_rng(0).normal(size=(3, 4, 200))
    path = _entry(root, "record", "x.safetensors", lambda f: save_tensors(f / "x.safetensors", {"x": array}, {}))
    return misread(path, lambda: tensors.load_tensors(path))


def _header(root: Path) -> int:
    def saved(value: float) -> Callable[[Path], object]:
        return lambda folder: save_tensors(folder / "x.safetensors", {"x": np.arange(3.0) + value}, {})

    own, other = (_entry(root, "record", "x.safetensors", saved(i), seed=i) for i in range(2))
    return exchanged(lambda: tensors.load_tensors(own), (own, other))


def _pair(root: Path) -> int:
    for i in range(2):
        save_neurons(neurons(i), root / str(i))
    file = "neurons.safetensors"
    return exchanged(lambda: load_neurons(root / "0"), (root / "0" / file, root / "1" / file))


def _artifact(root: Path) -> int:
    for i in range(2):
        save_steering(Steering.of(neurons(i), 0.3), root / str(i))
    file = "neurons.safetensors"
    return exchanged(lambda: load_steering(root / "0"), (root / "0" / file, root / "1" / file))


def _config(root: Path) -> int:
    save_steering(Steering.of(neurons(0), 0.3125), root / "a")
    return misread(root / "a" / "config.json", lambda: load_steering(root / "a"))


def _ledger(root: Path) -> int:
    for i in range(3):
        record_opening(root / "ledger.jsonl", "evaluate", f"40 problems of abc-{i}", "fingerprint")
    return misread(root / "ledger.jsonl", lambda: [openings(root / "ledger.jsonl", f"abc-{i}") for i in range(3)])


def _export(root: Path) -> int:
    (root / "adapter.bin").write_bytes(bytes(range(256)))
    listed = digests_of(root)

    def read() -> bytes:
        check_files(root, listed)
        return (root / "adapter.bin").read_bytes()

    return misread(root / "adapter.bin", read)


def _list(root: Path) -> int:
    path = root / "neurons.csv"
    path.write_text("overall_neuron_index,weight\n" + "".join(f"{7 * i},{i}.5\n" for i in range(1, 40)))
    write_json(root / "export.json", {"files": digests_of(root)}, "")
    return misread(path, lambda: read_neurons(path, MODEL))


def _rows(root: Path) -> int:
    rows: list[dict[str, object]] = [{"question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(40)]
    made = Cache(root).entry("rows", {"rows": digest_of(rows)})
    with made.claim():
        write_rows(made.folder / "problems.jsonl", rows)
    path = Path(str(made.folder)) / "problems.jsonl"
    return misread(path, lambda: list(read_rows(path)))


def _remote(root: Path) -> int:
    """A file at a URL, whose blocks are read alone."""
    place = any_path(f"memory://{root.name}/x.safetensors")
    save_tensors(place, {"x": np.random.default_rng(0).normal(size=(3, 4, 200))}, {})
    whole, random = place.read_bytes(), Random(0)
    before, found = plain(tensors.load_tensors(place)), 0
    for _ in range(TRIES):
        place.write_bytes(flip(whole, random))
        try:
            found += plain(tensors.load_tensors(place)) != before
        except Exception:  # noqa: BLE001
            continue
    return found


Patch = Callable[[pytest.MonkeyPatch], object]
_ALWAYS: Callable[..., None] = lambda *args, **options: None  # noqa: E731


def _without(name: str) -> Patch:
    return lambda patch: patch.setattr(name, _ALWAYS)


def _without_page_checksums(patch: pytest.MonkeyPatch) -> None:
    whole = pq.read_table
    patch.setattr(pq, "read_table", lambda source, page_checksum_verification: whole(source))


def _without_sums(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tensors.CheckedSlice, "_checked", lambda self, found, read: found)


def _without_digest_of_config(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("trimtab.store.artifact.ArtifactConfig.digest", property(lambda self: self.sha256.get("config.json", "none")))


def _without_digest_of_rows(patch: pytest.MonkeyPatch) -> None:
    from trimtab.tasks import files

    patch.setattr(files, "_own_rows", files._json_lines)


GUARDS: dict[str, tuple[Patch, Callable[[Path], int]]] = {
    "seal of JSON": (_without("trimtab.store.atomic.check_seal"), _json),
    "seal of tables": (_without("trimtab.store.tables.check_sealed_table"), _table),
    "page checksums of results": (_without_page_checksums, _pages),
    "page checksums of problems": (_without_page_checksums, _page_rows),
    "sums of tensors": (_without_sums, _blocks),
    "sums of tensors at a URL": (_without_sums, _remote),
    "seal of tensors": (_without("trimtab.store.atomic.check_seal"), _header),
    "digest of neurons": (_without("trimtab.store.values.check_pair"), _pair),
    "digests of an artifact": (_without("trimtab.store.artifact._check_sha256"), _artifact),
    "digest of config.json": (_without_digest_of_config, _config),
    "lines of the ledger": (lambda patch: patch.setattr("trimtab.store.ledger._fits", lambda line, before: True), _ledger),
    "digests of an export": (_without(f"{__name__}.check_files"), _export),
    "digest of a list": (_without("trimtab.store.import_lists.check_listed"), _list),
    "digest of rows": (_without_digest_of_rows, _rows),
}


@pytest.mark.parametrize("name", GUARDS)
def test_a_check_holds_and_without_it_something_is_misread(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    take_out, attack = GUARDS[name]
    for folder in ("with", "without"):
        (tmp_path / folder).mkdir()
    assert attack(tmp_path / "with") == 0
    take_out(monkeypatch)
    found = attack(tmp_path / "without")
    record_property("tried", f"the check {name!r} taken out: {found} misread, 0 with it")
    assert found


def test_the_pages_of_our_own_tables_carry_checksums_that_other_programs_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path / "a.parquet", problems(0))
    monkeypatch.setattr(tables, "check_sealed_table", _ALWAYS)
    whole = (tmp_path / "a.parquet").read_bytes()
    _, stop = _page(tmp_path / "a.parquet")
    for at in range(stop - 8, stop):
        for bit in range(8):
            (tmp_path / "a.parquet").write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            with pytest.raises(StoreError, match=r"(?i)crc"):
                read_table(tmp_path / "a.parquet", Problem)


def test_an_artifact_on_the_hub_is_checked_after_its_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_steering(Steering.of(neurons(0), 0.3), tmp_path / "cache")
    monkeypatch.setattr("trimtab.store.artifact.download", lambda repo, revision, files: tmp_path / "cache")
    load_steering("some/steering")
    for name in ("config.json", "neurons.safetensors"):
        path = tmp_path / "cache" / name
        whole, random = path.read_bytes(), Random(0)
        for _ in range(60):
            path.write_bytes(flip(whole, random))
            with pytest.raises(StoreError, match=r"config\.json|neurons\.safetensors|the files in"):
                load_steering("some/steering")
        path.write_bytes(whole)


def test_json_of_a_seal_is_readable(tmp_path: Path) -> None:
    path = _entry(tmp_path, "contrast", "a.json", lambda f: write_json(f / "a.json", {"n": 1}))
    assert set(json.loads(path.read_text())) == {"n", "seal"}
