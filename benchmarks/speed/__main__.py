"""``python -m benchmarks.speed``: measure, print the table, write benchmarks/results.json."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from benchmarks.speed import (
    compiled,
    curves,
    decoding,
    drafts,
    evaluating,
    machine,
    others,
    padding,
    ranking,
    recording,
    sampling,
    sharing,
)
from benchmarks.speed.sizes import FULL, QUICK, Sizes
from benchmarks.speed.table import ratios_of, table
from benchmarks.speed.workers import ROOT
from benchmarks.speed.workload import open_random_model
from trimtab.model import open_model

MEASUREMENTS = (
    "record",
    "decode",
    "drafts",
    "evaluate",
    "compiled",
    "sample",
    "published",
    "peers",
    "curves",
    "sharing",
    "ranking",
    "padding",
)


@click.command()
@click.option("--quick", is_flag=True, help="Tiny sizes, to see that everything runs; the figures say nothing.")
@click.option("--only", type=click.Choice(MEASUREMENTS), multiple=True, help="Measure only this; can be given several times.")
@click.option("--pairs", type=click.IntRange(min=1), help="Repetitions of each pair.")
@click.option(
    "--peers",
    type=click.Path(path_type=Path),
    default=ROOT / "benchmarks" / ".peers",
    show_default="benchmarks/.peers",
    help="Virtual environment with TransformerLens and nnsight (make bench-peers).",
)
@click.option("--traces", type=click.Path(path_type=Path, exists=True), help="File of real traces, whose padding is measured.")
@click.option("--ranked-traces", type=click.IntRange(min=8), help="Rank at most this many traces, 1.4 MB of disk each.")
@click.option("--demo-problems", type=click.IntRange(min=1), help="Test problems of the demo that are evaluated; 200 by default.")
@click.option(
    "--real-model",
    type=click.Path(path_type=Path, exists=True),
    help="A GGUF file or folder, such as that of make demo-real, whose conditions are evaluated too.",
)
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks" / "results.json", show_default=False)
def main(
    quick: bool,
    only: tuple[str, ...],
    pairs: int | None,
    peers: Path,
    traces: Path | None,
    ranked_traces: int | None,
    demo_problems: int | None,
    real_model: Path | None,
    out: Path,
) -> None:
    """Measure what identification and steering cost beside the model itself, and other ways beside ours."""
    sizes = (QUICK if quick else FULL).with_(pairs=pairs, ranked_at_most=ranked_traces, demo_problems=demo_problems)
    before = machine.machine()
    python = peers / "bin" / "python" if (peers / "bin" / "python").exists() else None
    versions = {**machine.versions(), **others.peer_versions(python)}
    results: dict[str, object] = {}
    for details in measure(sizes, set(only or MEASUREMENTS), python, traces, real_model):
        results = {"machine": before, "versions": versions, "ratios": ratios_of(details), "details": details}
        out.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")  # what is measured survives a stop
    click.echo(table(results))


def measure(
    sizes: Sizes, wanted: set[str], peers: Path | None, traces: Path | None, real_model: Path | None
) -> Iterator[Mapping[str, object]]:
    """Every measurement that is wanted, by its name: what is there after each of them."""
    details: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as name:
        workshop = Path(name)
        shape = (sizes.layers, sizes.width, sizes.d_ff)
        twelve = open_random_model(workshop / "model", *shape)
        actions = {
            "record": lambda: recording.measure(twelve, open_model("testbed:reasoner"), sizes),
            "decode": lambda: decoding.measure(open_random_model(workshop / "endless", *shape, endless=True), sizes),
            "drafts": lambda: drafts.measure(
                open_random_model(workshop / "endless", *shape, endless=True), open_model("testbed:reasoner"), sizes
            ),
            "evaluate": lambda: evaluating.measure(
                open_random_model(workshop / "endless", *shape, endless=True), real_model, sizes, workshop
            ),
            "compiled": lambda: compiled.measure(sizes, workshop),
            "sample": lambda: sampling.measure(twelve, sizes),
            "published": lambda: others.published(workshop / "model", sizes, workshop),
            "peers": lambda: others.keeping_everything(workshop / "model", sizes, workshop, peers),
            "curves": lambda: curves.measure(sizes, workshop),
            "sharing": lambda: sharing.measure(open_model("testbed:reasoner"), sizes, workshop),
            "ranking": lambda: ranking.measure(sizes, workshop),
        }
        if traces is not None:
            actions["padding"] = lambda: padding.measure(twelve, traces, sizes)
        for measurement, action in actions.items():
            if measurement in wanted:
                click.echo(f"{measurement} ...", err=True)
                details[measurement] = action()
                yield details


if __name__ == "__main__":
    main()
