"""The lock of a run directory: one process at a time writes."""

import fcntl
import os
from pathlib import Path
from typing import IO

from trimtab.store.atomic import writing
from trimtab.store.lease import HeldElsewhereError, Lease
from trimtab.store.remote import AnyPath

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
