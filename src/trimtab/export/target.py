"""What a target has to do: write its files, and open them in its own engine."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor

from trimtab.errors import InputError
from trimtab.export.checkpoint import Checkpoint
from trimtab.model import LanguageModel
from trimtab.steering import Steering


@dataclass(frozen=True, slots=True)
class Written:
    """What a target tells of the files it wrote.

    Args:
        facts: for the card and export.json.
        usage: the command or code that uses them, with ``PATH`` for the folder.
        samples: of every tensor, for the fingerprint, where writing read the whole checkpoint anyway; see
            :meth:`Checkpoint.identity_with`.
    """

    facts: dict[str, object]
    usage: str
    samples: dict[str, bytes] | None = None


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What an engine may need beside the export.

    Args:
        steering: what the export has to do, parts already dropped.
        facts: those that :class:`Written` held.
        base_gguf: the base model as a GGUF file, None to write one.
        allow_pickle: whether a file that is unpickled may be opened.
    """

    steering: Steering
    facts: Mapping[str, object]
    base_gguf: Path | None = None
    allow_pickle: bool = False


class Answered(NamedTuple):
    """A prompt with its response, int64 ``[seq]``, of which the first ``prompt`` tokens are the prompt."""

    tokens: Tensor
    prompt: int


class Engine(Protocol):
    """The export and its base in the program that the target is made for."""

    @property
    def name(self) -> str:
        """Program and version."""
        ...

    def bare(self, sequence: Answered) -> Tensor:
        """Unsteered logits of a whole sequence, float32 ``[seq, vocab]`` on the CPU."""
        ...

    def steered(self, sequence: Answered) -> Tensor:
        """The same with the export."""
        ...


class Opener(Protocol):
    """Loads an export in one engine."""

    def __call__(self, folder: Path, model: LanguageModel, options: EngineOptions) -> AbstractContextManager[Engine]:
        """The base model is as it was afterwards."""
        ...


class Target(Protocol):
    """One format. ``needs_fingerprint`` is False where :attr:`Written.samples` brings it."""

    needs_fingerprint: bool

    def check(self, steering: Steering, checkpoint: Checkpoint) -> None:
        """Raise InputError for what this model or steering rules out, before anything is written."""
        ...

    def write(self, steering: Steering, checkpoint: Checkpoint, folder: Path) -> Written:
        """Write the files of a steering that :func:`trimtab.export.parts.expressible` let through."""
        ...

    def open(self, folder: Path, model: LanguageModel, options: EngineOptions) -> AbstractContextManager[Engine]:
        """Load the export with the target's own loader; the base model is as it was afterwards."""
        ...


def not_installed(package: str, what: str, cause: ModuleNotFoundError) -> InputError:
    """The error for an engine that is missing; any other missing module is raised as it is."""
    if (cause.name or "").split(".")[0] != package.replace("-", "_"):
        raise cause
    return InputError(f"{what} needs {package}, which is not installed; run: pip install {package}")
