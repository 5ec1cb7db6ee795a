"""The cache: keys, entries that a kill leaves unfinished, processes at one key, references and deletion."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InputError, StoreError
from trimtab.store import Cache, read_text, write_text
from trimtab.store.cache import KEY_FILE, CacheRow, default_root, key_facts
from trimtab.store.lock import locked

FACTS = {"seed": 0, "sampling": {"n": 4, "temperature": 1.0}}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
Facts = st.dictionaries(st.text(max_size=5), JSON, max_size=4)


@given(Facts)
def test_a_key_does_not_depend_on_the_order_of_facts(facts: dict[str, object]) -> None:
    store = Cache(Path("nowhere"))
    backwards = dict(reversed(list(facts.items())))
    assert store.entry("sample", facts).key == store.entry("sample", backwards).key


def test_every_fact_and_the_verb_are_in_the_key() -> None:
    store = Cache(Path("nowhere"))
    entries = [
        store.entry("sample", FACTS),
        store.entry("grade", FACTS),
        store.entry("sample", {**FACTS, "seed": 1}),
        store.entry("sample", {**FACTS, "sampling": {"n": 4, "temperature": 1.5}}),
        store.entry("sample", {**FACTS, "more": None}),
    ]
    assert len({entry.key for entry in entries}) == 5
    assert entries[0].name == f"sample/{entries[0].key}"
    assert entries[0].folder == Path("nowhere") / entries[0].name


def test_a_fact_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        Cache(tmp_path).entry("sample", {"what": object()})


def _write(folder: Path) -> None:
    write_text(folder / "text", "value")


def _read(folder: Path) -> str:
    return read_text(folder / "text")


def test_what_is_whole_is_read_and_not_made_again(tmp_path: Path) -> None:
    entry = Cache(tmp_path).entry("sample", FACTS)
    calls: list[Path] = []

    def work(folder: Path) -> None:
        calls.append(folder)
        _write(folder)

    assert [Cache(tmp_path).compute(entry, work, _read) for _ in range(3)] == ["value"] * 3  # type: ignore[arg-type]
    assert calls == [entry.folder]
    assert key_facts(entry.folder) == FACTS


def test_work_that_fails_leaves_its_parts_and_no_key(tmp_path: Path) -> None:
    entry = Cache(tmp_path).entry("sample", FACTS)

    def interrupted(folder: Path) -> None:
        _write(folder)
        (folder / ".text.01234567.trimtab-partial").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).compute(entry, interrupted, _read)  # type: ignore[arg-type]
    assert not entry.done
    with entry.claim() as missing:
        assert missing
        assert {path.name for path in entry.folder.iterdir()} == {"text", ".lock"}
    assert entry.done


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"facts": 3}'])
def test_a_damaged_key_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / KEY_FILE).write_text(content)
    with pytest.raises(StoreError):
        key_facts(tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
from trimtab.store import Cache, write_text

entry = Cache(Path(sys.argv[1])).entry("sample", {"seed": 0})
with entry.claim():
    write_text(entry.folder / "part-00000", "kept")
    print("ready", flush=True)
    signal.pause()
"""


def test_another_process_at_a_key_is_waited_for_until_it_is_killed(
    tmp_path: Path, start: Callable[[str, object], "subprocess.Popen[str]"]
) -> None:
    child = start(KILLED, tmp_path)
    entry = Cache(tmp_path).entry("sample", {"seed": 0})
    with pytest.raises(StoreError, match=rf"another process \(id {child.pid}\) works on"):
        locked(entry.folder)
    with pytest.raises(StoreError, match="another process"):
        Cache(tmp_path).delete(entry.name)
    child.send_signal(signal.SIGKILL)
    child.wait()
    with entry.claim() as missing:
        assert missing
        assert (entry.folder / "part-00000").read_text() == "kept"


FINISHING = """
import sys, time
from pathlib import Path
from trimtab.store import Cache, write_text

entry = Cache(Path(sys.argv[1])).entry("sample", {"seed": 0})
with entry.claim():
    print("ready", flush=True)
    time.sleep(0.5)
    write_text(entry.folder / "text", "of the child")
"""


def test_the_second_of_two_processes_waits_and_reads(
    tmp_path: Path, start: Callable[[str, object], "subprocess.Popen[str]"], caplog: pytest.LogCaptureFixture
) -> None:
    child = start(FINISHING, tmp_path)
    entry = Cache(tmp_path).entry("sample", {"seed": 0})

    def work(folder: object) -> None:
        raise AssertionError("the work was done twice")

    assert Cache(tmp_path).compute(entry, work, _read) == "of the child"  # type: ignore[arg-type]
    assert caplog.text.count(f"process {child.pid} computes {entry.name}; waiting for it") == 1


def test_of_several_entries_those_that_are_missing_are_claimed_once(tmp_path: Path) -> None:
    store = Cache(tmp_path)
    a, b, c = (store.entry("sample", {"seed": seed}) for seed in range(3))
    with b.claim():
        pass
    with store.claim_all([c, a, b, a]) as missing:
        assert [entry.name for entry in missing] == sorted((a.name, c.name))
    with store.claim_all([a, b, c]) as missing:
        assert missing == []


def test_rows_say_which_studies_refer_to_an_entry(tmp_path: Path) -> None:
    store = Cache(tmp_path)
    used, unused, unfinished = (store.entry("sample", {"seed": seed}) for seed in range(3))
    for entry in (used, unused):
        with entry.claim():
            _write(entry.folder)
    with pytest.raises(KeyboardInterrupt), unfinished.claim():
        raise KeyboardInterrupt
    store.write_study({"a": 1}, {"sample": used.name})
    store.write_study({"a": 2}, {"sample": used.name})
    rows = {row.name: row for row in store.rows()}
    assert set(rows) == {used.name, unused.name, unfinished.name}
    assert {name: (row.whole, len(row.studies)) for name, row in rows.items()} == {
        used.name: (True, 2),
        unused.name: (True, 0),
        unfinished.name: (False, 0),
    }
    size = sum(path.stat().st_size for path in used.folder.iterdir() if path.name != ".lock")
    assert rows[used.name] == CacheRow(used.name, size, True, rows[used.name].studies)


def test_a_study_keeps_the_keys_that_it_came_to_before(tmp_path: Path) -> None:
    store = Cache(tmp_path)
    first, second = (store.entry("sample", {"seed": seed}) for seed in range(2))
    for entry in (first, second):
        with entry.claim():
            _write(entry.folder)
    store.write_study({"a": 1}, {"sample": first.name})
    store.write_study({"a": 1}, {"grade": second.name})
    assert all(row.studies for row in store.rows())


def test_only_entries_are_deleted(tmp_path: Path) -> None:
    store = Cache(tmp_path)
    entry = store.entry("sample", FACTS)
    with entry.claim():
        _write(entry.folder)
    (tmp_path / "steering" / "mine").mkdir(parents=True)
    for name in ("steering/mine", "steering", "", "..", f"../{entry.key}", f"sample/../{entry.key}", f"/{entry.key}"):
        with pytest.raises(InputError, match="names no entry of a cache"):
            store.delete(name)
    assert entry.done
    store.delete(entry.name)
    assert not entry.folder.exists()
    assert (tmp_path / "steering" / "mine").is_dir()


def test_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("TRIMTAB_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert default_root() == tmp_path / "x" / "trimtab"
    with pytest.raises(StoreError, match="set TRIMTAB_CACHE"):
        Cache(tmp_path / "none").rows()
