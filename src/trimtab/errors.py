"""Errors. Every message says what happened, what was given, what is accepted and how to fix it.

Each kind has a short ``code``, which the command line prints and docs/troubleshooting.md explains. A code is never renamed.
"""

from typing import ClassVar


class TrimtabError(Exception):
    """Base of every error that a user can cause and fix; the command line prints it without a traceback."""

    code: ClassVar[str] = "general"

    def told(self) -> str:
        """The line that a program prints, such as ``error[model]: ...``."""
        return f"error[{self.code}]: {self}"


class InputError(TrimtabError):
    """A file, a field or a value that cannot be used."""

    code: ClassVar[str] = "input"


class ConfigError(TrimtabError):
    """A configuration with an unknown key, a bad value, or another digest than the run it should resume."""

    code: ClassVar[str] = "settings"


class StoreError(TrimtabError):
    """A file of a run that is missing, truncated or cannot be written."""

    code: ClassVar[str] = "files"


class ModelError(TrimtabError):
    """A model that cannot be opened, recorded or steered."""

    code: ClassVar[str] = "model"


class EngineError(ModelError):
    """An engine that cannot be started for a model, so that every answer would fail."""

    code: ClassVar[str] = "engine"


class MismatchError(TrimtabError):
    """An artifact and a model, or a trace and a tokenizer, that do not belong together."""

    code: ClassVar[str] = "mismatch"


class NotEnoughDataError(TrimtabError):
    """Too little data for the question asked, for example a contrast with no incorrect trace."""

    code: ClassVar[str] = "data"


class ExecutionError(TrimtabError):
    """A cluster that cannot be used, or parts of a run that its workers could not compute."""

    code: ClassVar[str] = "cluster"
