"""The actor of Ray Data's pool, and the task that applies a function."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from trimtab.execution.job import Item, Job, Value
from trimtab.execution.worker import Setting, Worker, enter
from trimtab.model import LanguageModel

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Work:
    """How to open the model, and the jobs."""

    open_model: Callable[[], LanguageModel]
    jobs: Sequence[Job]


class PartWriter:
    """Called by Ray Data with columns ``job`` and ``part``; adds each part's fate, its tokens and what went wrong.

    The work comes by reference, so that nothing of this package is unpickled before the packages were compared.
    """

    def __init__(self, setting: Setting, work: "ray.ObjectRef[Work]") -> None:
        self._jobs: Sequence[Job] = ()

        def open_model() -> LanguageModel:
            received = ray.get(work)
            self._jobs = received.jobs
            return received.open_model()

        self._worker = Worker(setting, open_model)

    def __call__(self, rows: Columns) -> Columns:
        """Write the parts of some rows."""
        pairs = zip(rows["job"].tolist(), rows["part"].tolist(), strict=True)
        fates, tokens, errors = zip(*(self._worker.write(self._jobs, job, part) for job, part in pairs), strict=True)
        return {**rows, "fate": np.array(fates), "tokens": np.array(tokens, np.int64), "error": np.array(errors, object)}


def apply(function: Callable[[Item], Value], item: Item, folder: str) -> Value:
    """A function applied to an item, in the driver's working directory."""
    enter(folder)
    return function(item)
