"""The run directory: one folder per run, its configuration, its layout and its lock."""

import re
import tomllib
from collections.abc import Mapping
from types import TracebackType
from typing import IO

from trimtab.errors import ConfigError, InputError, StoreError
from trimtab.store.atomic import digest_of, plain, read_text, remove_leftovers, unreadable, write_text, writing
from trimtab.store.lease import Lease
from trimtab.store.lock import LOCK_FILE, locked
from trimtab.store.remote import AnyPath, as_os_errors, remove
from trimtab.store.toml_writer import to_toml

RUN_FILE = "run.toml"
LEDGER_FILE = "ledger.jsonl"

_HEADER = re.compile(r"# trimtab run, digest of the configuration: ([0-9a-f]{64})\n")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class RunDirectory:
    """A run on disk. Made by :meth:`create` (to write) or :meth:`open` (to read); close it, or use it in a ``with`` block.

    ``run.toml`` is the resolved configuration below a comment with its digest, so it can be passed to ``--config`` again. A
    writer holds an ``flock`` on ``.lock``, which the operating system releases when the process ends, however it ends; on a
    remote file system it holds a :class:`trimtab.store.lease.Lease`.

    Attributes:
        path: the folder.
        config: the resolved configuration.
        digest: SHA-256 of its canonical JSON.
    """

    def __init__(self, path: AnyPath, config: Mapping[str, object], lock: IO[str] | Lease | None) -> None:
        self.path = path
        self.config = config
        self.digest = digest_of(config)
        self._lock = lock

    @classmethod
    def create(cls, path: AnyPath, config: Mapping[str, object], resume: bool = False, force: bool = False) -> "RunDirectory":
        """Make a run directory, or go on with one, and lock it.

        Args:
            path: the folder; made if missing.
            config: the resolved configuration: str, int, float, bool, None, lists and nested tables. None means not set: the key
                is left out.
            resume: go on with the run in the folder, if there is one, under the same configuration.
            force: delete the run in the folder and start again. Only a folder that is a run directory is ever deleted, and its
                ledger stays, so that a restart does not hide how often the test split was opened.

        Raises:
            ConfigError: the folder is not empty and neither flag was given (or it is no run directory), or the configuration
                differs from the stored one; each key that differs is listed with its old and new value.
            StoreError: another process works on the run, or the folder cannot be written.
            InputError: a configuration that TOML cannot hold.
        """
        if resume and force:
            raise ConfigError("both resume and force were given; resume goes on with a run, force deletes it: give one")
        wanted: dict[str, object] = plain(_without_none(config), "config")  # type: ignore[assignment]
        text = _run_text(wanted)
        _refuse_foreign(path)
        lock = locked(path)
        try:
            remove_leftovers(path)
            if (path / RUN_FILE).exists():
                if force or (not resume and _is_empty(path)):
                    _clear(path)
                elif resume:
                    _refuse_other(path, _stored_config(path), wanted)
                    return cls(path, wanted, lock)
                else:
                    raise ConfigError(
                        f"{path} already holds a run; go on with it with --resume, delete it with --force, "
                        "or choose another folder"
                    )
            write_text(path / RUN_FILE, text)
            return cls(path, wanted, lock)
        except BaseException:
            lock.close()
            raise

    @classmethod
    def open(cls, path: AnyPath, write: bool = False) -> "RunDirectory":
        """Open an existing run with its stored configuration, to read it or, with ``write``, locked to go on with it.

        Raises:
            StoreError: no run there, a damaged run.toml, or with ``write`` another process works on it.
            ConfigError: run.toml was edited.
        """
        config = _stored_config(path)
        return cls(path, config, locked(path) if write else None)

    def close(self) -> None:
        """Release the lock; does nothing the second time."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def problems(self) -> AnyPath:
        """Parquet file of the problems."""
        return self.path / "problems.parquet"

    def traces(self, name: str) -> AnyPath:
        """Folder of the parts of one set of traces."""
        return self.path / "traces" / _checked(name)

    def grades(self, name: str) -> AnyPath:
        """Parquet file of the grades of one set of traces."""
        return self.path / "grades" / f"{_checked(name)}.parquet"

    @property
    def contrast(self) -> AnyPath:
        """Parquet file of the traces that were contrasted."""
        return self.path / "contrast.parquet"

    def activations(self, name: str) -> AnyPath:
        """Folder of the parts of one recording."""
        return self.path / "activations" / _checked(name)

    def ranking(self, criterion: str) -> AnyPath:
        """Folder of the neurons that one criterion ranked."""
        return self.path / "neurons" / _checked(criterion)

    @property
    def gate(self) -> AnyPath:
        """gate.json, the last file that :func:`save_gate` writes into :attr:`path`."""
        return self.path / "gate.json"

    @property
    def steering(self) -> AnyPath:
        """Folder of the artifact to share."""
        return self.path / "steering"

    @property
    def tune(self) -> AnyPath:
        """Parquet file of the grid's points."""
        return self.path / "tune.parquet"

    @property
    def tune_parts(self) -> AnyPath:
        """Folder of the parts of every point of the grid."""
        return self.path / "tune"

    def outcome_parts(self, condition: str) -> AnyPath:
        """Folder of the parts of one condition on the test split."""
        return self.path / "outcomes" / _checked(condition)

    def experiment(self, name: str) -> AnyPath:
        """The folder of an experiment, and with ``answers`` that of the answers which experiments share."""
        return self.path / "experiments" / _checked(name)

    @property
    def sources(self) -> AnyPath:
        """Parquet file of the failures' sources on the testbed; written after the verdict, read by the report alone."""
        return self.path / "sources.parquet"

    @property
    def seconds(self) -> AnyPath:
        """Wall-clock seconds by stage."""
        return self.path / "seconds.json"

    @property
    def outcomes(self) -> AnyPath:
        """Parquet file of the outcomes of every condition."""
        return self.path / "outcomes.parquet"

    @property
    def sft(self) -> AnyPath:
        """The adapter of the fine-tuned baseline."""
        return self.path / "sft"

    @property
    def report(self) -> AnyPath:
        """The report; its JSON twin is ``report.with_suffix(".json")``."""
        return self.path / "report.html"

    @property
    def ledger(self) -> AnyPath:
        """Ledger of openings of the test split."""
        return self.path / LEDGER_FILE


def _run_text(config: Mapping[str, object]) -> str:
    return f"# trimtab run, digest of the configuration: {digest_of(config)}\n{to_toml(config)}"


def _stored_config(path: AnyPath) -> dict[str, object]:
    file = path / RUN_FILE
    text = read_text(file)
    header = _HEADER.match(text)
    if header is None:
        raise StoreError(
            f"{file} is not the file of a run: its first line holds no digest; give a folder that `trimtab run` made"
        )
    try:
        config = tomllib.loads(text)
    except tomllib.TOMLDecodeError as cause:
        raise unreadable(file, "TOML", cause) from cause
    if digest_of(config) != header[1]:
        raise ConfigError(
            f"{file} was edited after the run began, so it no longer says how its files were made; "
            "undo the edit, or run the new configuration in another folder"
        )
    return config


def _refuse_foreign(path: AnyPath) -> None:
    """Raise ConfigError for a folder that holds anything but a run, before so much as a lock file is put there."""
    with writing(path), as_os_errors(path):
        entries = {entry.name for entry in path.iterdir()} if path.exists() else set()
    # a run.toml alone proves nothing: it may be a copy that serves as a configuration in somebody's project folder
    is_run = {RUN_FILE, LOCK_FILE} <= entries and _HEADER.match(read_text(path / RUN_FILE)) is not None
    unstarted = {name for name in entries if not name.startswith(f".{RUN_FILE}.")} <= {LOCK_FILE, LEDGER_FILE}
    if not is_run and not unstarted:
        raise ConfigError(
            f"{path} is not empty and is not a run directory (it holds {', '.join(sorted(entries)[:5])}); "
            "nothing there was touched: choose a new or an empty folder"
        )


def _refuse_other(path: AnyPath, stored: dict[str, object], wanted: dict[str, object]) -> None:
    if digest_of(stored) == digest_of(wanted):
        return
    old, new = _flat(stored), _flat(wanted)
    changes = [
        f"{key}: {old.get(key, '(not set)')} -> {new.get(key, '(not set)')}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    raise ConfigError(
        f"{path} was run with another configuration: {'; '.join(changes)}; "
        "resume with the stored one (--config run.toml of that folder), choose another folder, or start again with --force"
    )


def _flat(config: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Dotted key to the value's text, which tells 1 from 1.0 and from True."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = repr(value)
    return flat


def _without_none(config: Mapping[str, object]) -> dict[str, object]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value for key, value in config.items() if value is not None
    }


def _is_empty(path: AnyPath) -> bool:
    """Whether a run was begun and left nothing: it failed before its first file, so there is nothing to lose or to go on with."""
    return {entry.name for entry in path.iterdir()} <= {RUN_FILE, LOCK_FILE, LEDGER_FILE}


def _clear(path: AnyPath) -> None:
    """Delete a run but for its lock, its ledger and run.toml, which is replaced last so that a kill leaves a run directory."""
    with writing(path), as_os_errors(path):
        for entry in path.iterdir():
            if entry.name not in (RUN_FILE, LOCK_FILE, LEDGER_FILE):
                remove(entry)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot name a part of a run; use letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )
    return name
