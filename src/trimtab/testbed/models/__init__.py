"""The bundled weights, as ``testbed:NAME``."""

from importlib.resources import files
from pathlib import Path

from trimtab.errors import InputError

PREFIX = "testbed:"


def names() -> list[str]:
    """Names of the bundled models."""
    return sorted(entry.name for entry in files(__name__).iterdir() if entry.is_dir() and entry.joinpath("config.json").is_file())


def resolve(source: str) -> str:
    """The folder of ``testbed:NAME``; any other source as it is.

    Raises:
        InputError: no such bundled model.
    """
    if not source.startswith(PREFIX):
        return source
    name = source.removeprefix(PREFIX)
    if name not in names():
        raise InputError(
            f"no bundled model {name!r}; bundled are: {', '.join(PREFIX + known for known in names())}", code="no-bundled-model"
        )
    return str(Path(str(files(__name__))) / name)
