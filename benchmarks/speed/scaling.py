"""(g) Time and memory against the length of a trace and the number of traces, ours beside a bare forward."""

from pathlib import Path

from benchmarks.speed.sizes import Sizes
from benchmarks.speed.timing import rounded
from benchmarks.speed.workers import Worker
from benchmarks.speed.workload import open_random_model, random_traces, save_job
from trimtab.model import LanguageModel

LAYERS, WIDTH, D_FF = 2, 128, 384
TOKENS = 256
"""Of each trace where their number varies."""


def measure(sizes: Sizes, workshop: Path) -> dict[str, list[dict[str, object]]]:
    """Rows by length and by number of traces, on a model of 2 layers x 128 x 384.

    A fresh process a row. Peak memory is what a pass took on top of the loaded model, so the difference between record and the
    bare forward is what recording itself takes.
    """
    folder = workshop / "small"
    model = open_random_model(folder, LAYERS, WIDTH, D_FF)
    by_length = [_row(folder, model, workshop, [length], sizes) for length in sizes.lengths]
    by_number = [_row(folder, model, workshop, [TOKENS] * n, sizes) for n in sizes.counts]
    return {"trace length": by_length, "number of traces": by_number}


def _row(folder: Path, model: LanguageModel, workshop: Path, lengths: list[int], sizes: Sizes) -> dict[str, object]:
    job = save_job(workshop / "scaling.json", random_traces(model, lengths), sizes.batch_tokens)
    row: dict[str, object] = {"what": "seconds and peak memory of one pass", "traces": len(lengths), "tokens": lengths[0]}
    for way in ("record", "bare"):
        with Worker(way, folder, job) as worker:
            seconds = [worker.run().wall for _ in range(2)]
        row[f"{way}_seconds"] = rounded(min(seconds))
        row[f"{way}_peak_mb"] = None if worker.peak_bytes is None else round(worker.peak_bytes / 1e6, 1)
        row[f"{way}_disk_bytes"] = worker.disk_bytes
    return row
