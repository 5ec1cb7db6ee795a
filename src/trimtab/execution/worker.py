"""What a worker process does, of Ray or of this machine: it opens the model once and writes whole parts."""

import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers.utils.logging import disable_progress_bar

from trimtab.errors import EngineError, StoreError
from trimtab.execution.job import Facts, Job, check_facts, model_facts, package_facts
from trimtab.model import LanguageModel

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""So often a part may raise before it is given up and reported."""

Fate = Literal["written", "failed", "stop"]
Answer = tuple[Fate, int, str]
"""What became of a part, its tokens, and what went wrong."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a worker must be like. Plain values: they are read before it is known that both sides have the same packages.

    Args:
        packages: versions that the worker must find.
        model: what its model must be.
        threads: of torch.
        folder: the driver's working directory, to which paths may be relative.
    """

    packages: Facts
    model: Facts
    threads: int
    folder: str

    @classmethod
    def of(cls, model: LanguageModel, **changes: str) -> "Setting":
        """That of this process and its model, with other model facts where a worker is meant to differ."""
        return cls(package_facts(), {**model_facts(model), **changes}, torch.get_num_threads(), str(Path.cwd()))


class Worker:
    """Writes parts with a model of its own; whatever would make every part fail has the fate ``stop``.

    It never raises, since a caller in another process learns little of what raised.
    """

    def __init__(self, setting: Setting, open_model: Callable[[], LanguageModel]) -> None:
        """Open the model, and remember why where that fails.

        Args:
            setting: what this process must be like.
            open_model: called once the packages are known to be the same.
        """
        self._where = f"{socket.gethostname()}, process {os.getpid()}"
        self._log = _PartNames()
        self._refusal = ""
        try:
            check_facts(setting.packages, package_facts(), self._where)
            enter(setting.folder)
            torch.set_num_threads(setting.threads)
            disable_progress_bar()  # of the weights, which would break into the run's own
            self._model = open_model()
            check_facts(setting.model, model_facts(self._model), self._where)
        except Exception as cause:  # noqa: BLE001  # reported by every call
            self._refusal = f"{type(cause).__name__} on {self._where}: {cause}"

    def write(self, jobs: Sequence[Job], number: int, part: int) -> Answer:
        """Compute and write a part of one of the jobs, which there are none of where the worker could not begin."""
        if self._refusal:
            return "stop", 0, self._refusal
        job = jobs[number]
        self._log.name_part(f"{job.label}, part {part}")
        fate: Fate = "failed"
        error = ""
        for attempt in range(1, ATTEMPTS + 1):
            counts: list[int] = []
            try:
                job.run(self._model, [part], lambda _, tokens, counts=counts: counts.append(tokens))
            except Exception as cause:  # noqa: BLE001  # reported with the part's problems
                logger.warning("attempt %d of %d: %s: %s", attempt, ATTEMPTS, type(cause).__name__, cause)
                error = f"{type(cause).__name__} on {self._where}: {cause}"
                fate = "stop" if isinstance(cause, StoreError | EngineError) else "failed"
            else:
                return "written", sum(counts), ""
        return fate, 0, error


def enter(folder: str) -> None:
    """Where the driver's relative paths lead to the same files; a node without that folder is told absolute ones."""
    if Path(folder).is_dir():
        os.chdir(folder)


class _PartNames(logging.Filter):
    """Puts the part in work before every log line of this process; Ray puts the actor and its node before that."""

    def __init__(self) -> None:
        super().__init__()
        self._part = "opening the model"
        handler = logging.StreamHandler()
        handler.addFilter(self)
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s [%(part)s] %(message)s", handlers=[handler], force=True)

    def name_part(self, part: str) -> None:
        self._part = part

    def filter(self, record: logging.LogRecord) -> bool:
        record.part = self._part
        return True
