"""Errors. Every message says what happened, what was given, what is accepted and how to fix it."""


class TrimtabError(Exception):
    """Base of every error that a user can cause and fix; the command line prints it without a traceback."""


class InputError(TrimtabError):
    """A file, a field or a value that cannot be used."""


class ConfigError(TrimtabError):
    """A configuration with an unknown key, a bad value, or another digest than the run it should resume."""


class StoreError(TrimtabError):
    """A file of a run that is missing, truncated or cannot be written."""


class ModelError(TrimtabError):
    """A model that cannot be opened, recorded or steered."""


class EngineError(ModelError):
    """An engine that cannot be started for a model, so that every answer would fail."""


class MismatchError(TrimtabError):
    """An artifact and a model, or a trace and a tokenizer, that do not belong together."""


class NotEnoughDataError(TrimtabError):
    """Too little data for the question asked, for example a contrast with no incorrect trace."""


class ExecutionError(TrimtabError):
    """A cluster that cannot be used, or parts of a run that its workers could not compute."""
