"""Ranking moments on disk, and choosing what a gate reads of them: seconds and memory of 10,000 traces x 172,032 neurons."""

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.sizes import Sizes
from benchmarks.speed.timing import timed
from benchmarks.speed.worker import resident_bytes
from benchmarks.speed.workers import ROOT
from trimtab.gate import PromptScope
from trimtab.gating import RecordedRows, columns
from trimtab.gating.features import choose_by_folds
from trimtab.neurons import ModelIdentity, Neurons
from trimtab.ranking import NEEDS, rank, recorded_class_moments
from trimtab.recording import Recording
from trimtab.store import Parts, Plan
from trimtab.tasks.contrast import ContrastRow

CRITERIA = ("adaras", "paired-t", "auroc")
"""Class means alone; the differences within each problem, which keep two sums of a problem to its last trace; the pairs within
each problem, which keep every trace."""
GATE, GATE_FEATURES, FOLDS = "gate", 4096, 5
"""As a gate reads its features: those chosen without each fold, and without none."""
TRACES_PER_PROBLEM, TRACES_PER_PART = 8, 32
MOMENTS = ("sum", "magnitude")


def measure(sizes: Sizes, workshop: Path) -> dict[str, dict[str, object]]:
    """Write synthetic moments, drop them from the page cache, and rank them in a process of its own.

    Where the disk has no room for all traces, or fewer are asked for, as many as fit in half of what is free are ranked, and
    ``seconds_for_all`` scales the seconds by their number: reading and summing cost the same for every trace.
    """
    folder = workshop / "ranked"
    bytes_per_trace = sizes.ranked_layers * sizes.ranked_d_ff * 4 * len(MOMENTS)
    room = shutil.disk_usage(workshop).free // 2 // bytes_per_trace
    traces = min(sizes.ranked_traces, sizes.ranked_at_most, room) // TRACES_PER_PROBLEM * TRACES_PER_PROBLEM
    write_moments(folder, traces, sizes)
    rows = {}
    for criterion in (*CRITERIA, GATE):
        _forget(folder)
        command = [sys.executable, "-m", "benchmarks.speed.ranking", folder, str(traces), criterion, json.dumps(asdict(sizes))]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        measured = json.loads(done.stdout)
        rows[criterion] = {
            "what": f"seconds to rank {sizes.ranked_traces} traces x {sizes.ranked_layers * sizes.ranked_d_ff} neurons from disk",
            "traces_ranked": traces,
            "bytes_on_disk": traces * bytes_per_trace,
            **measured,
            "seconds_for_all": round(measured["seconds"] * sizes.ranked_traces / traces, 1),
        }
    shutil.rmtree(folder)
    return rows


def write_moments(folder: Path, traces: int, sizes: Sizes) -> None:
    """Parts as a recording writes them: random numbers, the same block in every part but for where it begins.

    A recording is sorted by length, so the traces of a problem lie anywhere.
    """
    ids = [row.trace_id for row in contrast_rows(traces)]
    random.Random(0).shuffle(ids)
    chunks = tuple(tuple(ids[start : start + TRACES_PER_PART]) for start in range(0, traces, TRACES_PER_PART))
    parts = Parts(folder, ".safetensors")
    folder.mkdir(parents=True)
    parts.ensure_plan(Plan(chunks, {"synthetic": True}))
    shape = (TRACES_PER_PART, sizes.ranked_layers, sizes.ranked_d_ff)
    noise = np.random.default_rng(0).standard_normal(shape, np.float32)
    for number, chunk in enumerate(chunks):
        block = np.roll(noise, number, axis=2)[: len(chunk)]
        tensors = {"response.count": np.full(len(chunk), 100), "response.sum": block, "response.magnitude": np.abs(block)}
        parts.write_tensors(number, tensors, {})


def _forget(folder: Path) -> None:
    """Drop the parts from the page cache, so that they are read from the disk."""
    for path in folder.glob("part-*"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def contrast_rows(traces: int) -> list[ContrastRow]:
    """Every other trace of a problem is correct."""
    names = [(f"p{i // TRACES_PER_PROBLEM}", i % TRACES_PER_PROBLEM) for i in range(traces)]
    return [ContrastRow(f"{problem}/{sample}", problem, sample % 2 == 0) for problem, sample in names]


def ranked(folder: Path, traces: int, criterion: str, sizes: Sizes) -> Neurons:
    """The 50 best neurons."""
    rows = contrast_rows(traces)
    identity = ModelIdentity("synthetic", None, "synthetic", "0" * 64, sizes.ranked_layers, 2, sizes.ranked_d_ff, 2)
    moments = recorded_class_moments(Recording(folder), "response", rows, NEEDS[criterion])
    return rank(moments, criterion, 50, identity)


def gate_features(folder: Path, traces: int) -> NDArray[np.float32]:
    """What a gate is fitted on, with a trace in the place of a problem."""
    contrast = contrast_rows(traces)
    rows = RecordedRows(Recording(folder), cast("PromptScope", "response"), [row.trace_id for row in contrast])
    fold = np.arange(traces) // TRACES_PER_PROBLEM % FOLDS
    kept = [[k for k in range(FOLDS) if k != left_out] for left_out in range(FOLDS + 1)]
    chosen = choose_by_folds(rows, np.array([not row.correct for row in contrast]), GATE_FEATURES, fold, kept)
    union = np.unique(np.concatenate(chosen))
    return columns(rows, union // rows.shape[2], union % rows.shape[2])


def main() -> None:
    """Rank the folder of the command line and print seconds and peak memory."""
    folder, traces, criterion, sizes = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Sizes(**json.loads(sys.argv[4]))
    before = _fetched_bytes()
    spent = timed(lambda: gate_features(folder, traces) if criterion == GATE else ranked(folder, traces, criterion, sizes))
    peak = resident_bytes("VmHWM")  # not ru_maxrss, which begins at that of the process that started this one
    answer = {
        "seconds": round(spent.wall, 2),
        "processor_seconds": round(spent.processor, 2),
        "peak_gb": None if peak is None else round(peak / 1e9, 2),
        "fetched_gb": None if before is None else round(((_fetched_bytes() or 0) - before) / 1e9, 2),
    }
    print(json.dumps(answer))


def _fetched_bytes() -> int | None:
    """What this process made the disk read so far, read-ahead of mapped files included; None where the system does not say."""
    facts = Path("/proc/self/io")
    if not facts.exists():
        return None
    return next(int(line.split()[1]) for line in facts.read_text().splitlines() if line.startswith("read_bytes"))


if __name__ == "__main__":
    main()
