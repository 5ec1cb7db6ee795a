"""How much one untrusted program may use."""

from dataclasses import dataclass

from trimtab.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use before it is ended or refused more.

    ``disk_mib`` and ``inodes`` bind where the program has a root of its own (see :meth:`trimtab.tasks.sandbox.Sandbox.describe`).
    ``tasks`` counts processes and threads.
    """

    seconds: int = 10
    memory_mib: int = 1024
    file_mib: int = 16
    disk_mib: int = 64
    inodes: int = 4096
    open_files: int = 64
    tasks: int = 32

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ConfigError(f"limit {name} must be at least 1, got {getattr(self, name)}")
