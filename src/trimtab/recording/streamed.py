"""A recording made while its traces were sampled: every sampled trace is in its parts, and the index names those that count.

Which traces a contrast compares is known only after grading. Their moments are on disk by then, so choosing them copies nothing:
a ranking picks the rows of its contrast as it reads (:func:`trimtab.ranking.labelled`).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.model import LanguageModel
from trimtab.moments import Moments, TokenScope
from trimtab.recording.read import Recording
from trimtab.recording.record import RecordingSettings, facts_of, tensors_of, write_index
from trimtab.store import AnyPath, Parts, Plan, open_tensor
from trimtab.traces import Trace

_SAMPLING = "sampling"


class StreamedParts:
    """Where ``sample`` puts the moments of its batches: one part for each part of the traces, with the same rows."""

    def __init__(self, model: LanguageModel, settings: RecordingSettings, folder: AnyPath) -> None:
        self.settings = settings
        self._parts = Parts(folder, ".safetensors")
        self._facts = facts_of(model, settings)

    def ensure_plan(self, sampling: Plan) -> None:
        """Store the plan of the traces as that of their moments.

        Raises:
            ConfigError: the folder holds parts of another plan.
        """
        self._parts.ensure_plan(Plan(sampling.parts, {**self._facts, _SAMPLING: sampling.digest}))

    def missing(self) -> list[int]:
        """Numbers of the parts that are not written yet."""
        return self._parts.missing()

    def write(self, part: int, recorded: dict[TokenScope, Moments]) -> None:
        """Write the moments of one batch."""
        self._parts.write_tensors(part, tensors_of(recorded), {})


def is_streamed(folder: AnyPath) -> bool:
    """Whether a folder holds, or began to hold, a recording of this kind."""
    parts = Parts(folder, ".safetensors")
    return parts.begun and _SAMPLING in parts.plan.settings


def choose_traces(folder: AnyPath, traces: Sequence[Trace]) -> Recording:
    """Write the index of the traces that count, once every one of them is known to be there.

    Raises:
        InputError: a trace that was not recorded, or has no token in a recorded scope.
        StoreError: a part is missing or truncated.
    """
    parts = Parts(folder, ".safetensors")
    wanted = {trace.id: trace.problem_id for trace in traces}
    rows = [(i, wanted[i], part, row) for part, ids in enumerate(parts.plan.parts) for row, i in enumerate(ids) if i in wanted]
    absent = sorted(set(wanted) - {row[0] for row in rows})
    if absent:
        raise InputError(f"{len(absent)} traces are not in {folder}, first {absent[0]!r}; record them from their text instead")
    for scope in parts.plan.settings["recording"]["scopes"]:  # type: ignore[index]
        _refuse_empty(parts, rows, scope)
    return write_index(folder, rows)


def _refuse_empty(parts: Parts, rows: Sequence[tuple[str, str, int, int]], scope: str) -> None:
    """Raise InputError for a trace that has no token in the scope."""
    counts: dict[int, NDArray[np.int64]] = {}
    for trace_id, _, part, row in rows:
        if part not in counts:
            with open_tensor(parts.path(part), f"{scope}.count") as count:
                counts[part] = count[:]
        if not counts[part][row]:
            raise InputError(f"trace {trace_id} has no token in the scope {scope!r}; its response is too short to record")
