"""The cache: every result under a key made of what decides it, so that the same call is a read and another setting another key.

``key = digest(verb, version, settings, digests of the inputs, model fingerprint, engine facts)``. A folder ``VERB/KEY`` holds the
files of one result; ``key.json`` in it says what the key stands for and is written last, so a folder without it is unfinished.
Unfinished folders keep their parts: the next request for the key computes only those that are missing.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from trimtab.errors import ConfigError, InputError, StoreError
from trimtab.store.atomic import (
    digest_of,
    parse_toml,
    plain,
    read_json,
    read_text,
    remove_leftovers,
    unreadable,
    unsealed,
    write_json,
    write_text,
    writing,
)
from trimtab.store.lock import LOCK_FILE, HeldElsewhereError, Lease, locked
from trimtab.store.remote import AnyPath, as_os_errors, at_home, remove
from trimtab.store.seal import KEY_DIGITS, is_key
from trimtab.store.toml_writer import sealed_toml

logger = logging.getLogger(__name__)
Value = TypeVar("Value")

KEY_FILE = "key.json"
STUDIES = "studies"
LEDGER_FILE = "ledger.jsonl"
WAIT_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Entry:
    """One result in the cache.

    Args:
        folder: of its files.
        verb: what made it, such as ``sample``.
        facts: JSON values that decide the result.
        key: digest of verb and facts.
    """

    folder: AnyPath
    verb: str
    facts: Mapping[str, object]
    key: str

    @property
    def name(self) -> str:
        """``VERB/KEY``, as studies refer to it."""
        return f"{self.verb}/{self.key}"

    @property
    def done(self) -> bool:
        """Whether the result is whole."""
        return (self.folder / KEY_FILE).exists()

    @contextmanager
    def claim(self) -> Iterator[bool]:
        """Hold the entry's lock and yield whether its work is still to be done; a block that ends well makes it whole.

        Another process at the same key is waited for, so two never do the same work.

        Raises:
            StoreError: the folder cannot be written.
        """
        if self.done:
            yield False
            return
        lock = self._wait()
        if lock is None:
            yield False
            return
        try:
            if self.done:
                yield False
                return
            remove_leftovers(self.folder)
            yield True
            write_json(self.folder / KEY_FILE, {"verb": self.verb, "key": self.key, "facts": self.facts})
        finally:
            lock.close()

    def _wait(self) -> IO[str] | Lease | None:
        """The lock, or None once another process has finished the work."""
        told = False
        while not self.done:
            try:
                return locked(self.folder)
            except HeldElsewhereError as held:
                if not told:
                    logger.warning("process %s computes %s; waiting for it", held.owner, self.name)
                    told = True
                time.sleep(WAIT_SECONDS)
        return None


class Cache:
    """Entries below one folder, local or at a URL, with the settings of the studies that refer to them and the ledger.

    Args:
        root: the folder; made when something is written.
    """

    def __init__(self, root: AnyPath) -> None:
        self.root = root

    @property
    def ledger(self) -> AnyPath:
        """The ledger of openings of the test problems; never pruned."""
        return self.root / LEDGER_FILE

    def entry(self, verb: str, facts: Mapping[str, object]) -> Entry:
        """The entry of a verb and what decides its result.

        Raises:
            InputError: a fact that JSON cannot hold.
        """
        values: Mapping[str, object] = plain(facts, verb)  # type: ignore[assignment]
        key = digest_of({"verb": verb, "facts": values})[:KEY_DIGITS]
        return Entry(self.root / verb / key, verb, values, key)

    def compute(self, entry: Entry, work: Callable[[AnyPath], None], read: Callable[[AnyPath], Value]) -> Value:
        """The value of an entry: read where it is whole, else made by ``work`` in its folder first."""
        with entry.claim() as missing:
            if missing:
                work(entry.folder)
        return read(entry.folder)

    @contextmanager
    def claim_all(self, entries: Sequence[Entry]) -> Iterator[list[Entry]]:
        """Claim several entries and yield those whose work is still to be done, as :meth:`Entry.claim` does for one.

        In the order of their names, so that two processes that want some of the same never wait for each other.
        """
        with ExitStack() as stack:
            unique = {entry.name: entry for entry in entries}
            yield [unique[name] for name in sorted(unique) if stack.enter_context(unique[name].claim())]

    def write_study(self, settings: Mapping[str, object], keys: Mapping[str, str]) -> None:
        """Leave a study's settings and the keys of its results in ``studies/DIGEST.toml``: a reference that protects them."""
        path = self.root / STUDIES / f"{digest_of(settings)[:KEY_DIGITS]}.toml"
        known = _keys_of(path) if path.exists() else {}
        if not path.exists() or known != {**known, **keys}:
            data: dict[str, object] = {**settings, "keys": {**known, **keys}}
            write_text(path, sealed_toml(data, path))

    def rows(self) -> list["CacheRow"]:
        """Every entry with its size and the studies that refer to it.

        Raises:
            StoreError: the folder is missing or cannot be read.
        """
        if not self.root.is_dir():
            raise StoreError(f"{self.root} is no folder; give a run directory, or set TRIMTAB_CACHE to the cache's folder")
        referred: dict[str, list[str]] = {}
        for path in sorted((self.root / STUDIES).glob("*.toml")) if (self.root / STUDIES).is_dir() else []:
            for name in _keys_of(path).values():
                referred.setdefault(name, []).append(path.stem)
        rows = []
        for verb in sorted(path for path in self.root.iterdir() if path.is_dir() and not path.name.startswith(".")):
            for folder in sorted(path for path in verb.iterdir() if is_key(path.name) and path.is_dir()):
                files = [file for file in folder.rglob("*") if file.is_file() and file.name != LOCK_FILE]
                name = f"{verb.name}/{folder.name}"
                size = sum(file.stat().st_size for file in files)
                rows.append(CacheRow(name, size, (folder / KEY_FILE).exists(), tuple(sorted(set(referred.get(name, []))))))
        return rows

    def delete(self, name: str) -> None:
        """Delete an entry; its lock is held meanwhile, so a process at work on it is not disturbed.

        Raises:
            StoreError: another process works on it.
            InputError: the name is none of an entry.
        """
        verb, _, key = name.partition("/")
        if not verb or verb.startswith(".") or not is_key(key):
            raise InputError(f"{name!r} names no entry of a cache; entries are VERB/KEY, as `trimtab cache` lists them")
        folder = self.root / verb / key
        lock = locked(folder)
        try:
            with writing(folder), as_os_errors(folder):
                remove(folder)
        finally:
            lock.close()


@dataclass(frozen=True, slots=True)
class CacheRow:
    """One entry of a cache: ``VERB/KEY``, bytes, whether it is whole, and the studies that refer to it."""

    name: str
    size: int
    whole: bool
    studies: tuple[str, ...]


def key_facts(folder: AnyPath) -> dict[str, object]:
    """The facts behind the key of a finished entry.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    data = read_json(folder / KEY_FILE)
    if not isinstance(data, dict) or not isinstance(data.get("facts"), dict):
        raise StoreError(f"{folder / KEY_FILE} is not the key of a result; delete {folder} and run the same command again")
    return data["facts"]


def refuse_foreign(root: AnyPath, files: Sequence[str]) -> None:
    """Raise ConfigError for a folder that holds something and is no cache, before anything is put there.

    Args:
        root: the folder, which may not exist yet.
        files: names that tell a run directory.
    """
    with writing(root), as_os_errors(root):
        names = {path.name for path in root.iterdir()} if root.exists() else set()
    visible = {name for name in names if not name.startswith(".")}
    if visible and not visible & {STUDIES, LEDGER_FILE, *files}:
        raise ConfigError(
            f"{root} is not empty and is no run directory (it holds {', '.join(sorted(visible)[:5])}); nothing was touched: "
            "choose a new or an empty folder",
            code="not-a-run",
        )


def _keys_of(path: AnyPath) -> dict[str, str]:
    try:
        data = parse_toml(read_text(path))
    except ValueError as cause:
        raise unreadable(path, "TOML", cause) from cause
    keys: dict[str, object] = unsealed(data, path, "")["keys"]  # type: ignore[index,assignment]  # as it was written
    return {str(stage): str(name) for stage, name in keys.items()}


def default_root() -> Path:
    """The cache of a study without a path: ``TRIMTAB_CACHE``, else the platform's folder for caches."""
    import os
    import sys

    if chosen := os.environ.get("TRIMTAB_CACHE"):
        return at_home(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "trimtab"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trimtab"
