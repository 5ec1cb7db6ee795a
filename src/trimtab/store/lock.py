"""The lock of a folder in which one process at a time writes: a file lock here, a lease on a remote file system.

A remote store knows no lock that ends with its process. There the owner keeps a numbered file in the folder ``.lock`` and changes
it every few seconds. Another process that finds one that stays the same for too long takes it for dead and creates the next
number, which the store lets one process only do (a conditional put on S3, Google Cloud Storage and Azure). No clock is compared
with that of another machine. An owner that wakes up from a long sleep finds a higher number and writes nothing more.
"""

import fcntl
import json
import logging
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from upath import UPath

from trimtab.errors import StoreError
from trimtab.store.atomic import writing
from trimtab.store.remote import AnyPath, as_os_errors, hold, lose, make_folder

BEAT_SECONDS = 10.0
DEAD_SECONDS = 45.0
"""An owner that does not change its file for so long has lost it."""


class HeldElsewhereError(StoreError):
    """Another process works on the folder.

    Args:
        message: what the user reads.
        owner: that process, as far as it is known.
    """

    def __init__(self, message: str, owner: str) -> None:
        super().__init__(message, code="held-elsewhere")
        self.owner = owner


@dataclass(frozen=True, slots=True)
class _Held:
    number: int
    content: bytes

    @property
    def owner(self) -> str:
        return str(self._fields.get("owner", "unknown"))

    @property
    def released(self) -> bool:
        return self._fields.get("released") is True

    @property
    def _fields(self) -> dict[str, object]:
        try:
            return dict(json.loads(self.content))
        except ValueError:
            return {}  # its owner is just writing it


class Lease:
    """A held lock. Close it to release it; a process that dies releases it by falling silent.

    Raises:
        StoreError: another process works on the folder.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: UPath, name: str) -> None:
        self._run, self._folder = folder, folder / name
        self._mine = {"owner": f"{os.getpid()} on {socket.gethostname()}", "token": secrets.token_hex(8)}
        with as_os_errors(folder):
            make_folder(self._folder)
            self._number = self._take()
        hold(folder)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease of {folder}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Release the lock; does nothing the second time."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        try:
            with as_os_errors(self._folder):
                if self._is_mine():
                    self._write(released=True)
        except OSError as error:
            logger.warning("the lock of %s was not released (%s); the next run there waits %g s", self._run, error, DEAD_SECONDS)

    def _take(self) -> int:
        while True:
            before = self._newest()
            if before is not None and not before.released:
                self._watch(before)
            number = 1 if before is None else before.number + 1
            try:
                with self._path(number).open("xb") as file:
                    file.write(self._content())
            except FileExistsError:
                continue  # somebody else was quicker
            newest = self._newest()
            if newest is None or newest.number != number or newest.content != self._content():
                continue
            for old in self._numbers():
                if old < number:
                    self._path(old).unlink(missing_ok=True)
            return number

    def _watch(self, held: _Held) -> None:
        """Return when the owner has been silent for too long. Raises StoreError at its first sign of life."""
        logger.warning("waiting %g s at most to see whether process %s still works on %s", DEAD_SECONDS, held.owner, self._run)
        end = time.monotonic() + DEAD_SECONDS
        while time.monotonic() < end:
            time.sleep(min(BEAT_SECONDS, DEAD_SECONDS) / 4)
            now = self._newest()
            if now is None or now.released:
                return
            if now != held:
                raise HeldElsewhereError(
                    f"another process (id {held.owner}) works on {self._run}; wait until it ends, stop it, "
                    "or choose another folder",
                    held.owner,
                )

    def _keep(self) -> None:
        heard = time.monotonic()
        beat = 0
        while not self._stop.wait(BEAT_SECONDS):
            beat += 1
            try:
                with as_os_errors(self._folder):
                    mine = self._is_mine()
                    if mine:
                        self._write(beat=beat)
                        heard = time.monotonic()
            except OSError as error:
                logger.warning("cannot reach the lock of %s: %s", self._run, error)
                mine = time.monotonic() - heard < DEAD_SECONDS
            if not mine:
                lose(self._run)
                logger.error("the lock of %s is lost: another process may have taken it over", self._run)
                return

    def _is_mine(self) -> bool:
        newest = self._newest()
        return newest is not None and newest.number == self._number and self._mine["token"].encode() in newest.content

    def _newest(self) -> _Held | None:
        number = max(self._numbers(), default=0)
        try:
            return _Held(number, self._path(number).read_bytes()) if number else None
        except FileNotFoundError:
            return self._newest()  # a newer one replaced it meanwhile

    def _numbers(self) -> list[int]:
        return [int(path.name) for path in self._folder.iterdir() if path.name.isdigit()] if self._folder.exists() else []

    def _path(self, number: int) -> UPath:
        return self._folder / f"{number:08d}"

    def _content(self, **more: object) -> bytes:
        return json.dumps({**self._mine, **more}).encode()

    def _write(self, **more: object) -> None:
        self._path(self._number).write_bytes(self._content(**more))


LOCK_FILE = ".lock"


def locked(path: AnyPath) -> IO[str] | Lease:
    """Lock a run directory; closing what is returned, or the end of the process, releases the lock.

    Raises:
        StoreError: another process works on it, or it cannot be written.
    """
    with writing(path):
        if not isinstance(path, Path):
            return Lease(path, LOCK_FILE)
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / LOCK_FILE).open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise HeldElsewhereError(
                f"another process (id {owner}) works on {path}; wait until it ends, stop it, or choose another folder", owner
            ) from cause
        except OSError:
            lock.close()
            raise
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    return lock


logger = logging.getLogger(__name__)
