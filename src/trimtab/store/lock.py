"""The lock of a run directory: one process at a time writes."""

import fcntl
import os
from pathlib import Path
from typing import IO

from trimtab.errors import StoreError
from trimtab.store.atomic import writing

LOCK_FILE = ".lock"


def locked(path: Path) -> IO[str]:
    """Open and lock the lock file; closing it, or the end of the process, releases the lock."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / LOCK_FILE).open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise StoreError(
                f"another process (id {owner}) works on {path}; wait until it ends, stop it, or choose another folder"
            ) from cause
        except OSError:
            lock.close()
            raise
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    return lock
