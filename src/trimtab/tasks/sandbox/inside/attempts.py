"""The program of the sandbox's self-test: it attempts everything that no program may do.

An attempt that works by mistake changes nothing.

It runs in the sandbox as a graded program does; :mod:`trimtab.tasks.sandbox.selftest` sends its text and looks at the traces.
"""

# no module of the sandbox is importable here, and pathlib would add nothing
# ruff: noqa: PTH101, PTH105, PTH107, PTH116, PTH123, PTH124, RUF100

import os
import signal
import socket
from collections.abc import Callable

FILES = "reading and writing this user's files"
ATTRIBUTES = "changing modes, owners and times of this user's files"
NETWORK = "using the network"
SIGNALS = "signalling this user's processes"
ROOT = "running as root"


def attempts(folder: str, owner: int, port: int, sockets: list[str]) -> list[str]:
    """Try everything and name what worked.

    Args:
        folder: of the sandbox's owner, open to everybody, with the files ``file`` and ``other``.
        owner: the owner's process.
        port: where a server of the owner's listens.
        sockets: addresses of unix sockets where others do.
    """
    worked: dict[str, None] = {}

    def attempt(kind: str, action: Callable[..., object], *arguments: object) -> None:
        try:
            action(*arguments)
        except (OSError, AttributeError):  # AttributeError: a call that this platform does not have
            return
        worked[kind] = None

    file, other = f"{folder}/file", f"{folder}/other"
    attempt(FILES, open, file)
    for flags in (os.O_RDWR, os.O_RDONLY | os.O_TRUNC, 3 | os.O_TRUNC):
        attempt(FILES, os.open, file, flags)
    attempt(FILES, os.open, f"{folder}/new", os.O_CREAT | os.O_WRONLY, 0o666)
    attempt(FILES, os.mkdir, f"{folder}/new folder")
    attempt(FILES, os.rename, other, f"{folder}/moved")
    attempt(FILES, os.remove, other)
    attempt(FILES, os.listdir, folder)
    for path in (file, os.__file__):
        try:
            found = os.stat(path)
        except OSError:
            continue
        attempt(ATTRIBUTES, os.chmod, path, found.st_mode & 0o7777)
        attempt(ATTRIBUTES, os.chown, path, -1, -1)
        attempt(ATTRIBUTES, os.utime, path, (found.st_atime, found.st_mtime))
        attempt(ATTRIBUTES, lambda path=path: os.setxattr(path, "user.trimtab", b""))
        attempt(FILES, os.truncate, path, found.st_size)
        attempt(FILES, os.open, path, os.O_WRONLY)
    attempt(NETWORK, socket.create_connection, ("127.0.0.1", port), 1)
    for address in sockets:
        attempt(NETWORK, lambda address=address: socket.socket(socket.AF_UNIX).connect(address))
    for process in {owner, os.getppid()} - {os.getpid(), 0}:
        attempt(SIGNALS, os.kill, process, 0)
        attempt(SIGNALS, os.kill, process, signal.SIGCONT)
    attempt(ROOT, os.setuid, 0)
    if 0 in (os.getuid(), os.geteuid()):
        worked[ROOT] = None
    return list(worked)
