"""The verb ``record``: traces to moments on disk, in parts that a killed run keeps, and how they are read back.

A recording may be made while its traces are sampled. Which traces a contrast compares is known only after grading; every sampled
trace is in the parts by then, so the index names those that count and nothing is copied: a ranking picks the rows of its contrast
as it reads (:func:`trimtab.ranking.labelled`).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from trimtab.errors import InputError
from trimtab.execution import LOCAL, Executor
from trimtab.model import LanguageModel
from trimtab.moments import ALL_MOMENTS, Moments, TokenScope
from trimtab.progress import Advance, Progress, silent
from trimtab.recording.forward import Recorded, Site, start_batch
from trimtab.recording.tokens import n_forwarded, prompt_traces
from trimtab.store import AnyPath, Parts, Plan, TensorSlice, make_plan, open_tensor, open_tensors, write_arrow
from trimtab.traces import Trace

if TYPE_CHECKING:
    import pandas


INDEX = "index.parquet"


class RecordedShape(NamedTuple):
    """Sizes of a recording: ``n_blocks`` of a layer stand side by side in ``d_ff``, each with counts of its own.

    They are experts, or parts of layers of different widths; 0 where every neuron of a trace has the same count.
    """

    n_layers: int
    d_ff: int
    n_blocks: int


class Recording:
    """Moments on disk. Iterating streams one part at a time, in the order of the plan."""

    def __init__(self, folder: AnyPath) -> None:
        self.folder = folder
        self._parts = Parts(folder, ".safetensors")

    @property
    def scopes(self) -> tuple[str, ...]:
        """The token scopes that were recorded."""
        return tuple(self._parts.plan.settings["recording"]["scopes"])  # type: ignore[index]

    def __len__(self) -> int:
        return sum(map(len, self._parts.plan.parts))

    def __repr__(self) -> str:
        layers, d_ff, blocks = self.shape(self.scopes[0])  # type: ignore[arg-type]
        width = f"{blocks} blocks of {d_ff // blocks} neurons" if blocks else f"{d_ff} neurons"
        return f"recording of {len(self):,} traces, {layers} layers of {width}, scopes {', '.join(self.scopes)}"

    def to_pandas(self) -> "pandas.DataFrame":
        """One row a trace: its id, and the part and the row in it that hold its moments."""
        import pandas

        rows = [(name, part, row) for part, ids in enumerate(self._parts.plan.parts) for row, name in enumerate(ids)]
        return pandas.DataFrame(rows, columns=["trace_id", "part", "row"])

    def stream(
        self, scope: TokenScope, moments: Collection[str] = ALL_MOMENTS, layers: slice = slice(None)
    ) -> Iterator[tuple[tuple[str, ...], Moments]]:
        """Yield (trace ids, moments) of every part. Only what is asked for is read from disk.

        Args:
            scope: one of those that were recorded.
            moments: of :data:`trimtab.moments.ALL_MOMENTS`; one that was not recorded stays None.
            layers: which layers.

        Raises:
            InputError: the scope was not recorded.
            StoreError: a part is missing or truncated.
        """
        for part, ids in enumerate(self._parts.plan.parts):
            with self._opened(part, scope) as tensors:
                arrays = {name: tensors[name][:, layers] for name in ALL_MOMENTS if name in moments and name in tensors}
                if "tokens" in tensors:
                    found = Moments(tensors["count"][:, layers], **arrays, tokens=tensors["tokens"][:])
                else:
                    found = Moments(tensors["count"][:], **arrays)
            yield ids, found

    def shape(self, scope: TokenScope) -> RecordedShape:
        """Sizes of its moments; all 0 for a recording of no trace. Raises as :meth:`stream`."""
        if not self._parts.plan.parts:
            return RecordedShape(0, 0, 0)
        with self._opened(0, scope) as tensors:
            _, n_layers, d_ff = next(tensors[name].get_shape() for name in ALL_MOMENTS if name in tensors)
            return RecordedShape(n_layers, d_ff, tensors["count"].get_shape()[2] if "tokens" in tensors else 0)

    def means(self, scope: TokenScope, order: Sequence[str]) -> NDArray[np.float32]:
        """Mean activations over the tokens of a scope, float32 ``[trace, layer, d_ff]``, in the given order of ids.

        As a gate reads them: a token counts as 0 in experts that it is not routed to.
        """
        rows: dict[str, NDArray[np.float32]] = {}
        for ids, moments in self.stream(scope, ("sum",)):
            rows.update(zip(ids, moments.mean_of_all_tokens(), strict=True))
        return np.stack([rows[name] for name in order])

    @contextmanager
    def _opened(self, part: int, scope: TokenScope) -> Iterator[Mapping[str, TensorSlice]]:
        """The tensors of one scope in a part: ``count``, the moments, and for experts ``tokens``."""
        with open_tensors(self._parts.path(part)) as tensors:
            own = {name.removeprefix(f"{scope}."): tensor for name, tensor in tensors.items() if name.startswith(f"{scope}.")}
            if not own:
                scopes = sorted({name.partition(".")[0] for name in tensors})
                raise InputError(f"{self.folder} holds the scopes {', '.join(scopes)}, not {scope!r}; record again with it")
            yield own


class RecordingSettings(BaseModel):
    """``batch_tokens`` bounds rows x longest row of one forward; it is part of the stored plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scopes: tuple[TokenScope, ...] = ("response",)
    moments: tuple[str, ...] = ("sum", "magnitude")
    batch_tokens: int = Field(default=16_384, ge=1)


@dataclass(frozen=True)
class RecordJob:
    """One folder of moments. A part is written while the next one is computed, so the moments of two batches are in memory."""

    traces: Mapping[str, Trace]
    settings: RecordingSettings
    parts: Parts
    label: str = "record"
    site: Site = "neurons"

    @property
    def plan(self) -> Plan:
        return self.parts.plan

    def missing(self) -> list[int]:
        return self.parts.missing()

    def run(self, model: LanguageModel, parts: Iterable[int], advance: Advance) -> None:
        def write(part: int, batch: Sequence[Trace], collect: Callable[[], Recorded]) -> None:
            self.parts.write_tensors(part, tensors_of(collect()), {})
            advance(len(batch), sum(n_forwarded(trace) for trace in batch))

        with in_background() as start:
            for part in parts:
                batch = [self.traces[trace_id] for trace_id in self.plan.parts[part]]
                start(
                    partial(write, part, batch, start_batch(model, batch, self.settings.scopes, self.settings.moments, self.site))
                )

    def finish(self) -> Recording:
        """Once every part is written: write the index, and open the recording."""
        rows = []
        for part, ids in enumerate(self.plan.parts):
            rows += [(trace_id, self.traces[trace_id].problem_id, part, row) for row, trace_id in enumerate(ids)]
        return write_index(self.parts.folder, rows)


def record_traces(
    model: LanguageModel,
    traces: Sequence[Trace],
    settings: RecordingSettings,
    folder: AnyPath,
    *,
    executor: Executor = LOCAL,
    progress: Progress = silent,
) -> Recording:
    """Record the moments of every neuron for every trace into ``folder``.

    Killed at any moment and called again, it goes on with the parts that are missing and ends with the same bytes.

    Raises:
        ConfigError: the folder holds parts of another plan.
        StoreError: a part cannot be written.
        InputError: a trace that cannot be recorded; what was recorded before stays.
    """
    job = record_job(model, traces, settings, folder)
    executor.run(model, [job], progress)
    return job.finish()


def record_job(
    model: LanguageModel,
    traces: Sequence[Trace],
    settings: RecordingSettings,
    folder: AnyPath,
    *,
    label: str = "record",
    site: Site = "neurons",
) -> RecordJob:
    """Plan what :func:`record_traces` does, store the plan, and record nothing yet.

    Args:
        site: ``residual`` records the stream after every decoder block, ``d_model`` wide, in place of the neurons.
    """
    lengths = [n_forwarded(trace) for trace in traces]
    facts = {**facts_of(model, settings), **({"site": site} if site != "neurons" else {})}
    plan = make_plan([trace.id for trace in traces], lengths, settings.batch_tokens, facts)
    parts = Parts(folder, ".safetensors")
    parts.ensure_plan(plan)
    return RecordJob({trace.id: trace for trace in traces}, settings, parts, label, site)


def record_prompts(
    model: LanguageModel,
    prompts: dict[str, tuple[int, ...]],
    folder: AnyPath,
    *,
    scopes: tuple[TokenScope, ...] = ("last-prompt",),
    batch_tokens: int = 16_384,
    executor: Executor = LOCAL,
    progress: Progress = silent,
) -> Recording:
    """Record what a gate reads of each prompt: its last token (``last-prompt``), the mean of its tokens (``prompt``), or both.

    Keys are problem ids.
    """
    job = prompts_job(model, prompts, folder, scopes=scopes, batch_tokens=batch_tokens)
    executor.run(model, [job], progress)
    return job.finish()


def prompts_job(
    model: LanguageModel,
    prompts: dict[str, tuple[int, ...]],
    folder: AnyPath,
    *,
    scopes: tuple[TokenScope, ...] = ("last-prompt",),
    batch_tokens: int = 16_384,
    label: str = "record prompts",
) -> RecordJob:
    """Plan what :func:`record_prompts` does, store the plan, and record nothing yet."""
    settings = RecordingSettings(scopes=scopes, moments=("sum",), batch_tokens=batch_tokens)
    return record_job(model, prompt_traces(prompts), settings, folder, label=label)


def facts_of(model: LanguageModel, settings: RecordingSettings) -> dict[str, object]:
    """What decides the content of the parts beside their traces; for the plan."""
    return {
        "recording": settings.model_dump(mode="json"),
        "model": model.identity.fingerprint,
        "dtype": str(model.hf_model.dtype),
        "tokenizer": model.tokenizer_fingerprint,
    }


def tensors_of(recorded: Recorded) -> dict[str, np.ndarray]:
    """What a part holds: ``SCOPE.count``, ``SCOPE.MOMENT``, and for experts ``SCOPE.tokens``."""
    tensors: dict[str, np.ndarray] = {}
    for scope, moments in recorded.items():
        tensors[f"{scope}.count"] = moments.count
        for name in (*ALL_MOMENTS, "tokens"):
            array = getattr(moments, name)
            if array is not None:
                tensors[f"{scope}.{name}"] = array
    return tensors


def write_index(folder: AnyPath, rows: Sequence[tuple[str, str, int, int]]) -> Recording:
    """Name the traces that count, as ``(trace, problem, part, row)``; that makes the parts a recording."""
    columns = map(list, zip(*rows, strict=True))
    write_arrow(folder / INDEX, pa.table(dict(zip(("trace_id", "problem_id", "part", "row"), columns, strict=True))))
    return Recording(folder)


Job = Callable[[], None]


@contextmanager
def in_background() -> Iterator[Callable[[Job], None]]:
    """Yield a function that starts a job in a thread and returns, as soon as the job before it has ended.

    Jobs run in the order they were given, one at a time, and the block does not end before the last one has. A job that raises
    is the last that runs: its error is raised by the next call, or when the block ends; an error of the block itself wins.

    Example:
        >>> written = []
        >>> with in_background() as start:
        ...     for part in range(3):
        ...         start(lambda part=part: written.append(part))
        >>> written
        [0, 1, 2]
    """
    with ThreadPoolExecutor(1, "trimtab-writer") as thread:
        before = thread.submit(lambda: None)

        def start(job: Job) -> None:
            nonlocal before
            before.result()
            before = thread.submit(job)

        yield start
        before.result()


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
