"""(d), (e), (f): other ways to the same means, each in a process of its own, in turn with ours; time, disk and peak memory."""

import subprocess
from pathlib import Path

import click
import numpy as np

from benchmarks.speed.sizes import Sizes
from benchmarks.speed.timing import in_turn
from benchmarks.speed.workers import Worker
from benchmarks.speed.workload import random_traces, save_job, spread
from trimtab.model import open_model

PEERS = ("transformer_lens", "nnsight")


def published(model: Path, sizes: Sizes, workshop: Path) -> dict[str, dict[str, object]]:
    """(d) The published way over ours, with its Python loop and without, one trace at a time as it is described."""
    traces = random_traces(open_model(model), [sizes.published_tokens] * sizes.published_traces)
    job = save_job(workshop / "published.json", traces, sizes.batch_tokens, sizes.loop_tokens)
    rows = {}
    with Worker("record", model, job) as ours:
        for way in ("published", "published_without_loop"):
            with Worker(way, model, job) as theirs:
                pairs = in_turn(theirs.run, ours.run, max(1, sizes.pairs // 2), warm_up=False)
            _refuse_other_result(theirs, ours)
            rows[way] = {
                "what": f"seconds of {way} over those of record, {len(traces)} traces of {sizes.published_tokens} tokens",
                **pairs.to_json(),
                "seconds_extrapolated": [round(s, 1) for s in theirs.extrapolated],
                "disk_ratio": round(theirs.disk_bytes / ours.disk_bytes, 1),
                "disk_bytes": theirs.disk_bytes,
                "ours_disk_bytes": ours.disk_bytes,
                "peak_bytes": theirs.peak_bytes,
                "ours_peak_bytes": ours.peak_bytes,
            }
    return rows


def keeping_everything(model: Path, sizes: Sizes, workshop: Path, peers: Path | None) -> dict[str, dict[str, object] | None]:
    """(e), (f) Ways that keep every activation, and a bare forward, over ours; None for a library that is not installed."""
    traces = random_traces(open_model(model), spread(sizes.traces, sizes.shortest, sizes.longest))
    job = save_job(workshop / "peers.json", traces, sizes.batch_tokens)
    rows: dict[str, dict[str, object] | None] = {}
    with Worker("record", model, job) as ours:
        for way in ("bare", "plain_hooks", *PEERS):
            if way in PEERS and (peers is None or not _installed(peers, way)):
                rows[way] = None
                continue
            with _worker(way, model, job, peers) as theirs:
                pairs = in_turn(theirs.run, ours.run, sizes.pairs)
            _refuse_other_result(theirs, ours)
            rows[way] = {
                "what": f"seconds of {way} over those of record",
                **pairs.to_json(),
                "peak_bytes": theirs.peak_bytes,
                "ours_peak_bytes": ours.peak_bytes,
            }
    return rows


def peer_versions(peers: Path | None) -> dict[str, str | None]:
    """Versions of the other libraries, None where they are not installed."""
    return {way: _installed(peers, way) if peers is not None else None for way in PEERS}


def _worker(way: str, model: Path, job: Path, peers: Path | None) -> Worker:
    return Worker(way, model, job, peers) if way in PEERS and peers is not None else Worker(way, model, job)


def _installed(python: Path, way: str) -> str | None:
    """The version of a library in another environment."""
    code = f"from importlib.metadata import version; print(version({way.replace('_', '-')!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def _refuse_other_result(theirs: Worker, ours: Worker) -> None:
    """Raise ClickException unless a way found the same means: a faster way to another result would prove nothing."""
    assert ours.means is not None
    if theirs.means is not None and not np.allclose(theirs.means, ours.means, rtol=1e-3, atol=1e-5):
        difference = np.abs(theirs.means - ours.means).max()
        raise click.ClickException(f"{theirs.way} finds other means than record, by up to {difference:.3g}")
