import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from upath import UPath

from trimtab.errors import StoreError
from trimtab.store import cache, lock, write_text
from trimtab.store.lock import HeldElsewhereError, Lease, locked


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock, "DEAD_SECONDS", 0.6)


def crash(held: Lease) -> None:
    """Fall silent, as a process does that was killed."""
    held._stop.set()
    held._thread.join()


def test_a_second_owner_is_refused_and_a_released_lock_is_taken_at_once(remote: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "DEAD_SECONDS", 60.0)
    first = Lease(remote, ".lock")
    with pytest.raises(StoreError, match=r"another process \(id \d+ on .*\) works on .*wait until it ends, stop it"):
        Lease(remote, ".lock")
    first.close()
    first.close()
    start = time.monotonic()
    Lease(remote, ".lock").close()
    assert time.monotonic() - start < 30
    assert len(list((remote / ".lock").iterdir())) == 1


def test_a_lock_that_a_crash_left_is_taken_over_after_a_wait(remote: UPath, caplog: pytest.LogCaptureFixture) -> None:
    crash(Lease(remote, ".lock"))
    start = time.monotonic()
    Lease(remote, ".lock").close()
    assert lock.DEAD_SECONDS <= time.monotonic() - start < 10 * lock.DEAD_SECONDS
    assert "waiting 0.6 s at most to see whether process" in caplog.text


@pytest.mark.parametrize("content", [b"", b"{", b'{"owner": '])
def test_a_lock_whose_owner_died_while_writing_it(remote: UPath, content: bytes) -> None:
    (remote / ".lock").mkdir(parents=True)
    (remote / ".lock" / "00000007").write_bytes(content)
    (remote / ".lock" / "note").write_bytes(b"somebody else's")
    Lease(remote, ".lock").close()
    assert {path.name for path in (remote / ".lock").iterdir()} == {"00000008", "note"}


def test_of_many_who_want_a_dead_owners_lock_one_gets_it(remote: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "DEAD_SECONDS", 2.0)
    crash(Lease(remote, ".lock"))
    ready = threading.Barrier(4)

    def take() -> Lease | StoreError:
        ready.wait()
        try:
            return Lease(remote, ".lock")
        except StoreError as error:
            return error

    with ThreadPoolExecutor(4) as threads:
        found = [future.result() for future in [threads.submit(take) for _ in range(4)]]
    owners = [one for one in found if isinstance(one, Lease)]
    assert len(owners) == 1
    owners[0].close()


def test_an_owner_who_was_taken_for_dead_writes_nothing_more(remote: UPath, caplog: pytest.LogCaptureFixture) -> None:
    asleep = Lease(remote, ".lock")
    write_text(remote / "traces" / "a", "x")
    number = asleep._number
    (remote / ".lock" / f"{number + 1:08d}").write_bytes(b'{"owner": "another"}')
    asleep._thread.join(5)
    assert "is lost: another process may have taken it over" in caplog.text
    with pytest.raises(StoreError, match=r"nothing more is written to .*another process took over the run"):
        write_text(remote / "traces" / "b", "x")
    assert not (remote / "traces" / "b").exists()
    write_text(remote.with_name("elsewhere") / "b", "x")
    asleep.close()
    assert (remote / ".lock" / f"{number + 1:08d}").read_bytes() == b'{"owner": "another"}'
    again = Lease(remote, ".lock")
    write_text(remote / "traces" / "b", "x")
    again.close()


def test_an_owner_who_reaches_the_store_no_more_counts_as_dead(
    remote: UPath, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    held = Lease(remote, ".lock")

    def refuse(self: Lease) -> bool:
        raise ConnectionResetError("connection reset")

    with monkeypatch.context() as patch:
        patch.setattr(Lease, "_is_mine", refuse)
        held._thread.join(5)
    assert not held._thread.is_alive()
    assert "cannot reach the lock of" in caplog.text
    with pytest.raises(StoreError, match="nothing more is written"):
        write_text(remote / "b", "x")
    held.close()
    Lease(remote, ".lock").close()


def test_two_processes_at_one_entry(remote: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits, and takes over from a process that fell silent."""
    monkeypatch.setattr(lock, "DEAD_SECONDS", 2.0)
    monkeypatch.setattr(cache, "WAIT_SECONDS", 0.02)
    entry = cache.Cache(remote).entry("sample", {"seed": 0})
    first = locked(entry.folder)
    assert isinstance(first, Lease)
    with pytest.raises(HeldElsewhereError, match="another process"):
        locked(entry.folder)
    crash(first)
    with entry.claim() as missing:
        assert missing
        write_text(entry.folder / "text", "x")
    assert entry.done


def test_a_place_that_cannot_be_locked(remote: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr(type(remote), "open", refuse)
    with (
        pytest.raises(StoreError, match=r"cannot write .*Access Denied; make the folder writable"),
        cache.Cache(remote).entry("sample", {"seed": 0}).claim(),
    ):
        raise AssertionError("claimed")
