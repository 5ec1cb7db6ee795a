"""(g) Time and peak memory of ``record``, ``evaluate`` and ``rank`` against one dimension at a time.

A dimension takes its base times each of the factors while the others stay at theirs. Each point has a process of its own, and the
exponent between neighbours is the slope on logarithmic axes: 1 is in proportion, 0 is no growth.
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.speed import alone
from benchmarks.speed.ranking import write_moments
from benchmarks.speed.sizes import Sizes
from benchmarks.speed.workload import random_traces, save_job, save_random_model
from trimtab.model import open_model

LAYERS, WIDTH, D_FF = 2, 128, 384
"""Of the model that is evaluated; the width of all."""
RANKED_LAYERS = 4
CRITERIA = ("adaras", "auroc")
"""Class means alone, and what keeps every trace; see :mod:`benchmarks.speed.ranking`."""
Point = Mapping[str, int]
Row = dict[str, object]


def measure(sizes: Sizes, workshop: Path) -> dict[str, dict[str, list[Row]]]:
    """Rows by verb and dimension; beside ``record`` the bare forward over the same batches."""
    with alone.own_processes() as measured:
        return of_verbs(sizes, workshop, measured)


def of_verbs(sizes: Sizes, workshop: Path, measured: alone.Measure) -> dict[str, dict[str, list[Row]]]:
    """As :func:`measure`, by what measures a point."""
    recorded: Point = dict(zip(("traces", "tokens", "layers", "neurons"), sizes.recorded_base, strict=True))
    evaluated: Point = dict(zip(("problems", "conditions", "tokens"), sizes.evaluated_base, strict=True))
    ranked: Point = dict(zip(("traces", "neurons"), sizes.ranked_base, strict=True))
    endless = save_random_model(workshop / "curve-endless", LAYERS, WIDTH, D_FF, endless=True)

    def record(way: str, point: Point) -> Row:
        return measured(way, _recording(point, sizes, workshop))

    def evaluate(point: Point) -> Row:
        return measured("evaluate", {"model": str(endless), **point})

    def rank(criterion: str, point: Point) -> Row:
        return measured("rank", {"criterion": criterion, **_moments(point, sizes, workshop)})

    return {
        "record": curves(recorded, sizes, partial(record, "record")),
        "bare forward": curves(recorded, sizes, partial(record, "bare")),
        "evaluate": curves(evaluated, sizes, evaluate),
        **{f"rank, {criterion}": curves(ranked, sizes, partial(rank, criterion)) for criterion in CRITERIA},
    }


def curves(base: Point, sizes: Sizes, measured: Callable[[Point], Row]) -> dict[str, list[Row]]:
    """Rows by dimension; the base, which all dimensions have in common, is measured once."""
    known: dict[tuple[int, ...], Row] = {}

    def at(point: Point) -> Row:
        key = tuple(point.values())
        if key not in known:
            known[key] = measured(point)
        return known[key]

    return {
        dimension: with_exponents([{"size": size, **at({**base, dimension: size})} for size in _sizes(value, sizes.factors)])
        for dimension, value in base.items()
    }


def _sizes(base: int, factors: Sequence[float]) -> list[int]:
    return [max(1, round(base * factor)) for factor in factors]


def with_exponents(rows: Sequence[Row]) -> list[Row]:
    """Each row with the exponents from the row before it; None for the first, and where nothing was measured."""
    return [
        {
            "what": "one pass; exponents are those from the row before",
            **row,
            "exponent": exponent(rows[i - 1], row, "seconds") if i else None,
            "memory_exponent": exponent(rows[i - 1], row, "peak_mb") if i else None,
        }
        for i, row in enumerate(rows)
    ]


def exponent(before: Row, after: Row, what: str) -> float | None:
    """``log(b / a) / log(size_b / size_a)``; None where it has no value."""
    a, b = before[what], after[what]
    if not isinstance(a, int | float) or not isinstance(b, int | float) or min(a, b) <= 0 or before["size"] == after["size"]:
        return None
    return round(math.log(b / a) / math.log(float(str(after["size"])) / float(str(before["size"]))), 2)


def _recording(point: Point, sizes: Sizes, workshop: Path) -> alone.Facts:
    """A model of this size and a job of these traces."""
    folder = workshop / f"curve-{point['layers']}x{point['neurons']}"
    if not folder.exists():
        save_random_model(folder, point["layers"], WIDTH, point["neurons"])
    traces = random_traces(open_model(folder), [point["tokens"]] * point["traces"])
    job = save_job(workshop / "curve.json", traces, sizes.batch_tokens)
    return {"model": str(folder), "job": str(job)}


def _moments(point: Point, sizes: Sizes, workshop: Path) -> alone.Facts:
    """Moments, which stay in the page cache: reading the disk is what :mod:`benchmarks.speed.ranking` measures."""
    folder = workshop / "curve-moments"
    shutil.rmtree(folder, ignore_errors=True)
    write_moments(folder, point["traces"], replace(sizes, ranked_layers=RANKED_LAYERS, ranked_d_ff=point["neurons"]))
    return {"moments": str(folder), "layers": RANKED_LAYERS, "d_ff": point["neurons"], "traces": point["traces"]}
