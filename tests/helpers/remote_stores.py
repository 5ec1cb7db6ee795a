"""A remote store whose writer can be killed at any file."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from trimtab.store import AnyPath

When = Literal["before", "middle", "after"]
MOMENTS: tuple[When, ...] = ("before", "middle", "after")


class Killed(BaseException):
    """What a kill looks like from within: nothing that the program catches."""


class Kills:
    """Ends the program at the n-th file that it puts to a store."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._left: int | None = None
        self._when: When = "before"
        for kind in (MemoryFileSystem, LocalFileSystem):
            patch.setattr(kind, "put_file", self._dying(kind.put_file))

    def at(self, file: int, when: When) -> None:
        """Die at a file, counted from 0: before it is put, in the middle (where it grows) or when it is there."""
        self._left, self._when = file, when

    def never(self) -> None:
        """Let everything be written."""
        self._left = None

    def _dying(self, put: Callable[..., None]) -> Callable[..., None]:
        def put_file(fs: AbstractFileSystem, here: str, there: str, **options: object) -> None:
            if self._left is None or self._left > 0:
                put(fs, here, there, **options)
                self._left = None if self._left is None else self._left - 1
                return
            if self._when == "middle" and isinstance(fs, LocalFileSystem):
                Path(there).write_bytes(Path(here).read_bytes()[:20])
            if self._when == "after":
                put(fs, here, there, **options)
            raise Killed

        return put_file


def stored(folder: AnyPath) -> dict[str, bytes]:
    """Every file below a folder with its bytes, but the lock's."""
    files = {str(path)[len(str(folder)) + 1 :]: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in files.items() if not name.startswith(".lock")}
