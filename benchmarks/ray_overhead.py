"""The cost of Ray: one actor against this process, two actors against one, and a part that does nothing.

Samples from the bundled reasoner, one thread each. Start-up is measured apart: the clock of a pool starts when each of its actors
has opened the model, of which none begins before all have. Run it on an idle machine with two cores:

    python -m benchmarks.ray_overhead --seconds 60

The last line is JSON.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path

import torch

from trimtab.execution import LOCAL, ExecutorSettings
from trimtab.execution.ray_executor import RayExecutor, connected
from trimtab.model import LanguageModel, open_model
from trimtab.progress import Advance, silent
from trimtab.sampling import SampleJob, SamplingSettings, sample_job
from trimtab.store import Parts, Plan, make_plan
from trimtab.testbed.problems import unique_problems
from trimtab.traces import Problem, Split

MODEL = "testbed:reasoner"
SAMPLING = SamplingSettings(n=4, temperature=1.0, max_new_tokens=104, batch_tokens=16_000)
ROWS_A_PART = 100
EMPTY_PARTS = 200


@dataclass(frozen=True)
class EmptyJob:
    """Parts that hold nothing to compute."""

    parts: Parts
    label: str = "nothing"

    @property
    def plan(self) -> Plan:
        return self.parts.plan

    def missing(self) -> list[int]:
        return self.parts.missing()

    def run(self, model: LanguageModel, parts: Iterable[int], advance: Advance) -> None:  # noqa: ARG002
        for part in parts:
            self.parts.write_table(part, [Name(name) for name in self.plan.parts[part]])
            advance(1, 0)


@dataclass(frozen=True)
class Name:
    """A row."""

    name: str


def open_together(folder: Path, actors: int) -> LanguageModel:
    """Open the model and wait until as many have."""
    model = open_model(MODEL)
    (folder / f"ready-{time.time_ns()}").touch()
    while len(list(folder.glob("ready-*"))) < actors:
        time.sleep(0.01)
    return model


def ready_at(folder: Path) -> float:
    """When the last actor had opened the model, on the clock of :func:`time.time`."""
    return max(int(path.name.partition("-")[2]) for path in folder.glob("ready-*")) / 1e9


def sampling(model: LanguageModel, folder: Path, n: int) -> SampleJob:
    """Problems to sample, in a folder of their own."""
    problems = [Problem(f"p{i}", p.question, p.answer, Split.TRAIN) for i, p in enumerate(unique_problems(Split.TRAIN, n, 0))]
    return sample_job(model, problems, SAMPLING, folder)


def locally(model: LanguageModel, folder: Path, n: int) -> float:
    """Seconds of this process."""
    job = sampling(model, folder, n)
    start = time.time()
    LOCAL.run(model, [job], silent)
    return time.time() - start


@contextmanager
def pool(folder: Path, actors: int) -> Iterator[RayExecutor]:
    """So many actors of the cluster, each of which signs in the folder."""
    folder.mkdir()
    settings = ExecutorSettings(kind="ray", actors=actors)
    with RayExecutor(settings, partial(open_together, folder, actors)) as executor:
        yield executor


def by_actors(model: LanguageModel, folder: Path, n: int, actors: int) -> tuple[float, float]:
    """Seconds from the moment that the actors are ready, and seconds until then."""
    begun = time.time()
    with pool(folder, actors) as executor:
        executor.run(model, [sampling(model, folder / "traces", n)], silent)
        ended = time.time()
    return ended - ready_at(folder), ready_at(folder) - begun


def milliseconds_a_part(model: LanguageModel, folder: Path) -> dict[str, float]:
    """What a part costs that computes nothing: here, and through one actor."""
    jobs = {}
    for name in ("local", "ray"):
        parts = Parts(folder / name / "parts")
        parts.ensure_plan(make_plan([f"{i:05d}" for i in range(EMPTY_PARTS)], [1] * EMPTY_PARTS, 1, {}))
        jobs[name] = EmptyJob(parts)
    start = time.time()
    LOCAL.run(model, [jobs["local"]], silent)
    local = time.time() - start
    with pool(folder / "actors", 1) as executor:
        executor.run(model, [jobs["ray"]], silent)
        ray = time.time() - ready_at(folder / "actors")
    return {name: round(1000 * seconds / EMPTY_PARTS, 2) for name, seconds in (("local", local), ("ray", ray))}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="at least so long in this process")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    model = open_model(MODEL)
    with connected("local"), tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        locally(model, root / "warm", 2 * ROWS_A_PART // SAMPLING.n)
        probe = 8 * ROWS_A_PART // SAMPLING.n
        n = max(probe, ceil(1.1 * seconds * probe / locally(model, root / "probe", probe)))
        local = locally(model, root / "local", n)
        print(f"{n} problems here: {local:.1f} s", file=sys.stderr)
        one, start_one = by_actors(model, root / "one", n, 1)
        print(f"one actor: {one:.1f} s after {start_one:.1f} s", file=sys.stderr)
        two, start_two = by_actors(model, root / "two", n, 2)
        print(f"two actors: {two:.1f} s after {start_two:.1f} s", file=sys.stderr)
        figures = {
            "parts": len(Parts(root / "local").plan.parts),
            "local_s": round(local, 2),
            "one_actor_s": round(one, 2),
            "two_actors_s": round(two, 2),
            "overhead": round(one / local - 1, 4),
            "two_over_one": round(one / two, 3),
            "start_s": [round(start_one, 1), round(start_two, 1)],
            "milliseconds_a_part": milliseconds_a_part(model, root / "empty"),
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
