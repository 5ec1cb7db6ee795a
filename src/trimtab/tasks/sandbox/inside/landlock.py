"""Landlock: files outside the allowed folders can be neither read nor written. Used where no new root could be mounted."""

# this interpreter starts once for every program, and pathlib would cost it a tenth of that
# ruff: noqa: PTH112

import os
import stat
import struct

from trimtab.tasks.sandbox.inside.kernel import (
    landlock_allow_beneath,
    landlock_enforce,
    landlock_ruleset,
    landlock_version,
)

_READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
_FILE_RIGHTS = 1 << 0 | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15
_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}
_TCP_BIND_AND_CONNECT = 1 << 0 | 1 << 1
_ABSTRACT_SOCKETS_AND_SIGNALS = 1 << 0 | 1 << 1
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def confine_files(readable: list[str], hidden: list[str], writable: list[str]) -> int:
    """Allow reading ``readable`` without ``hidden``, everything under ``writable``, and nothing else.

    Args:
        readable: folders and files. Names inside them can be listed, hidden or not.
        hidden: folders under ``readable`` whose files cannot be read.
        writable: folders.

    Returns:
        The version of Landlock.

    Raises:
        OSError: the kernel has no Landlock.
    """
    version = landlock_version()
    everything = (1 << _RIGHTS_BY_VERSION.get(version, 16)) - 1
    network = _TCP_BIND_AND_CONNECT if version >= 4 else 0
    scoped = _ABSTRACT_SOCKETS_AND_SIGNALS if version >= 6 else 0
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = landlock_ruleset(struct.pack("=QQQ", everything, network, scoped)[:size])
    for path in readable:
        if os.path.isdir(path):
            _allow(ruleset, path, _READ_DIR)
        for part in _without(path, hidden):
            _allow(ruleset, part, _READ_FILE)
    for path in _DEVICES:
        _allow(ruleset, path, _READ_FILE | _WRITE_FILE)
    for path in writable:
        _allow(ruleset, path, everything)
    landlock_enforce(ruleset)
    os.close(ruleset)
    return version


def _without(path: str, hidden: list[str]) -> list[str]:
    """The parts of a folder that leave the hidden folders out."""
    if path in hidden:
        return []
    if not any(folder.startswith(path.rstrip("/") + "/") for folder in hidden):
        return [path]
    with os.scandir(path) as entries:
        return [part for entry in entries for part in _without(entry.path, hidden)]


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:  # a dangling link among the libraries
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _FILE_RIGHTS
        landlock_allow_beneath(ruleset, struct.pack("=Qi", rights, descriptor))
    finally:
        os.close(descriptor)
