"""Errors. Every message says what happened, what was given, what is accepted and how to fix it.

Each class has a short ``kind``, and the errors that people meet have a name as well. Both make the ``code`` that programs print
and docs/errors.md explains. A code is never renamed.
"""

from typing import ClassVar

from trimtab.error_codes import CODES


class TrimtabError(Exception):
    """Base of every error that a user can cause and fix; the command line prints it without a traceback.

    Args:
        message: what happened, what was given, what is accepted, and the fix.
        code: the name of this error within its kind, one of :data:`trimtab.error_codes.CODES`; None for one that is rare.

    Raises:
        LookupError: the code is not in the registry.

    Example:
        >>> ModelError("the hooks of layers [3] did not run", code="hooks-did-not-run").code
        'model/hooks-did-not-run'
    """

    kind: ClassVar[str] = "general"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        self.name = code
        if code is not None and self.code not in CODES:
            raise LookupError(f"no error has the code {self.code!r}; add it to trimtab.error_codes, with its cause and fix")

    @property
    def code(self) -> str:
        """``KIND/NAME``, such as ``model/hooks-did-not-run``, or the kind alone."""
        return self.kind if self.name is None else f"{self.kind}/{self.name}"

    def told(self) -> str:
        """The line that a program prints, such as ``error[model/hooks-did-not-run]: ...``."""
        return f"error[{self.code}]: {self}"


class InputError(TrimtabError):
    """A file, a field or a value that cannot be used."""

    kind: ClassVar[str] = "input"


class ConfigError(TrimtabError):
    """A configuration with an unknown key, a bad value, or another digest than the run it should resume."""

    kind: ClassVar[str] = "settings"


class StoreError(TrimtabError):
    """A file of a run that is missing, truncated or cannot be written."""

    kind: ClassVar[str] = "files"


class ModelError(TrimtabError):
    """A model that cannot be opened, recorded or steered."""

    kind: ClassVar[str] = "model"


class EngineError(ModelError):
    """An engine that cannot be started for a model, so that every answer would fail."""

    kind: ClassVar[str] = "engine"


class MismatchError(TrimtabError):
    """An artifact and a model, or a trace and a tokenizer, that do not belong together."""

    kind: ClassVar[str] = "mismatch"


class NotEnoughDataError(TrimtabError):
    """Too little data for the question asked, for example a contrast with no incorrect trace."""

    kind: ClassVar[str] = "data"


class ExecutionError(TrimtabError):
    """A cluster that cannot be used, or parts of a run that its workers could not compute."""

    kind: ClassVar[str] = "cluster"
