"""The actor of Ray Data's pool: it opens the model once and writes whole parts."""

import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from transformers.utils.logging import disable_progress_bar

from trimtab.errors import EngineError, StoreError
from trimtab.execution.job import Facts, Item, Job, Value, check_facts, model_facts, package_facts
from trimtab.model import LanguageModel

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""So often a part may raise before it is given up and reported."""

Fate = Literal["written", "failed", "stop"]
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Work:
    """How to open the model, and the jobs."""

    open_model: Callable[[], LanguageModel]
    jobs: Sequence[Job]


@dataclass(frozen=True, slots=True)
class Briefing:
    """Instructions for every actor. Plain values: they are read before it is known that both sides have the same packages.

    Args:
        packages: versions that the actor must find.
        model: what its model must be.
        threads: of torch.
        folder: the driver's working directory, to which paths may be relative.
        work: reference of the :class:`Work`.
    """

    packages: Facts
    model: Facts
    threads: int
    folder: str
    work: "ray.ObjectRef[Work]"


class PartWriter:
    """Called by Ray Data with columns ``job`` and ``part``; adds each part's fate, its tokens and what went wrong.

    It never raises, since Ray tells little of what raised. Whatever would make every part fail (a model that cannot be opened,
    an engine that cannot be started, another package, a disk that is full) has the fate ``stop``.
    """

    def __init__(self, briefing: Briefing) -> None:
        self._where = f"{socket.gethostname()}, process {os.getpid()}"
        self._log = _PartNames()
        self._refusal = ""
        try:
            self._open(briefing)
        except Exception as cause:  # noqa: BLE001  # reported by every call
            self._refusal = f"{type(cause).__name__} on {self._where}: {cause}"

    def __call__(self, rows: Columns) -> Columns:
        """Write the parts of some rows."""
        pairs = zip(rows["job"].tolist(), rows["part"].tolist(), strict=True)
        fates, tokens, errors = zip(*(self._write(job, part) for job, part in pairs), strict=True)
        return {**rows, "fate": np.array(fates), "tokens": np.array(tokens, np.int64), "error": np.array(errors, object)}

    def _open(self, briefing: Briefing) -> None:
        check_facts(briefing.packages, package_facts(), self._where)
        _enter(briefing.folder)
        torch.set_num_threads(briefing.threads)
        disable_progress_bar()  # of the weights, which would break into the run's own
        work = ray.get(briefing.work)
        self._opened, self._jobs = work.open_model(), work.jobs
        check_facts(briefing.model, model_facts(self._opened), self._where)

    def _write(self, job: int, part: int) -> tuple[Fate, int, str]:
        if self._refusal:
            return "stop", 0, self._refusal
        self._log.name_part(f"{self._jobs[job].label}, part {part}")
        fate: Fate = "failed"
        error = ""
        for attempt in range(1, ATTEMPTS + 1):
            counts: list[int] = []
            try:
                self._jobs[job].run(self._opened, [part], lambda _, tokens, counts=counts: counts.append(tokens))
            except Exception as cause:  # noqa: BLE001  # reported with the part's problems
                logger.warning("attempt %d of %d: %s: %s", attempt, ATTEMPTS, type(cause).__name__, cause)
                error = f"{type(cause).__name__} on {self._where}: {cause}"
                fate = "stop" if isinstance(cause, StoreError | EngineError) else "failed"
            else:
                return "written", sum(counts), ""
        return fate, 0, error


def apply(function: Callable[[Item], Value], item: Item, folder: str) -> Value:
    """A function applied to an item, in the driver's working directory."""
    _enter(folder)
    return function(item)


def _enter(folder: str) -> None:
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
