"""What the sandbox's own process is told before it starts, as plain data."""

from typing import Literal, TypedDict

Backend = Literal["bwrap", "namespaces", "limits"]


class Plan(TypedDict):
    """Everything that one sandboxed process needs to know.

    ``readable`` are pairs (folder or file of this machine, where the program finds it); ``hidden`` are the folders under them,
    as the program names them, whose content it must not see; ``search`` are folders to append to the program's ``sys.path``.
    ``user`` is the uid and gid to become, or None to stay. ``folder`` is the temporary folder made for the program, where the
    root is not its own. ``tasks`` counts processes and threads. Sizes are in bytes, times in seconds.
    """

    backend: Backend
    channel: int
    readable: list[tuple[str, str]]
    hidden: list[str]
    search: list[str]
    user: int | None
    folder: str
    seconds: int
    memory: int
    file_size: int
    disk: int
    inodes: int
    open_files: int
    tasks: int
