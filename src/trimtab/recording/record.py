"""The verb ``record``: traces to moments on disk, in parts that a killed run keeps."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from trimtab.model import OpenModel
from trimtab.moments import MOMENTS, TokenScope
from trimtab.progress import Progress, silent
from trimtab.recording.forward import Recorded, start_batch
from trimtab.recording.read import INDEX, Recording
from trimtab.recording.tokens import n_forwarded, prompt_traces
from trimtab.recording.writing import in_background
from trimtab.store import Parts, make_plan, write_arrow
from trimtab.traces import Trace


class RecordingSettings(BaseModel):
    """``batch_tokens`` bounds rows x longest row of one forward; it is part of the stored plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scopes: tuple[TokenScope, ...] = ("response",)
    moments: tuple[str, ...] = ("sum", "magnitude")
    batch_tokens: int = Field(default=16_384, ge=1)


def record_traces(
    opened: OpenModel, traces: Sequence[Trace], settings: RecordingSettings, folder: Path, *, progress: Progress = silent
) -> Recording:
    """Record the moments of every neuron for every trace into ``folder``.

    Killed at any moment and called again, it goes on with the parts that are missing and ends with the same bytes. A part is
    written while the next one is computed, so the moments of two batches are in memory.

    Raises:
        ConfigError: the folder holds parts of another plan.
        StoreError: a part cannot be written.
        InputError: a trace that cannot be recorded; what was recorded before stays.
    """
    by_id = {trace.id: trace for trace in traces}
    lengths = [n_forwarded(trace) for trace in traces]
    facts = {
        "recording": settings.model_dump(mode="json"),
        "model": opened.identity.fingerprint,
        "dtype": str(opened.model.dtype),
        "tokenizer": opened.tokenizer_fingerprint,
    }
    plan = make_plan([trace.id for trace in traces], lengths, settings.batch_tokens, facts)
    parts = Parts(folder, ".safetensors")
    parts.ensure_plan(plan)
    missing = parts.missing()
    done = len(by_id) - sum(len(plan.parts[part]) for part in missing)
    with progress(f"record {folder.name}", len(by_id), done) as advance, in_background() as start:

        def write(part: int, batch: Sequence[Trace], collect: Callable[[], Recorded]) -> None:
            parts.write_tensors(part, _tensors(collect()), {})
            advance(len(batch), sum(n_forwarded(trace) for trace in batch))

        for part in missing:
            batch = [by_id[trace_id] for trace_id in plan.parts[part]]
            start(partial(write, part, batch, start_batch(opened, batch, settings.scopes, settings.moments)))
    _write_index(folder, plan.parts, by_id)
    return Recording(folder)


def record_prompts(
    opened: OpenModel,
    prompts: dict[str, tuple[int, ...]],
    folder: Path,
    *,
    scopes: tuple[TokenScope, ...] = ("last-prompt",),
    batch_tokens: int = 16_384,
    progress: Progress = silent,
) -> Recording:
    """Record what a gate reads of each prompt: its last token (``last-prompt``), the mean of its tokens (``prompt``), or both.

    Keys are problem ids.
    """
    settings = RecordingSettings(scopes=scopes, moments=("sum",), batch_tokens=batch_tokens)
    return record_traces(opened, prompt_traces(prompts), settings, folder, progress=progress)


def _tensors(recorded: Recorded) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for scope, moments in recorded.items():
        tensors[f"{scope}.count"] = moments.count
        for name in (*MOMENTS, "tokens"):
            array = getattr(moments, name)
            if array is not None:
                tensors[f"{scope}.{name}"] = array
    return tensors


def _write_index(folder: Path, parts: Sequence[Sequence[str]], by_id: dict[str, Trace]) -> None:
    rows = [
        (trace_id, by_id[trace_id].problem_id, part, row) for part, ids in enumerate(parts) for row, trace_id in enumerate(ids)
    ]
    columns = list(zip(*rows, strict=True))
    write_arrow(folder / INDEX, pa.table(dict(zip(("trace_id", "problem_id", "part", "row"), map(list, columns), strict=True))))
