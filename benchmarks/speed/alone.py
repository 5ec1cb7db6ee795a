"""Actions in processes of their own, so that the memory of each is its own.

``python -m benchmarks.speed.alone`` has imported everything and computed nothing: for each line on stdin, a JSON list of an
action's name and its facts, it forks, and the child answers with one line of JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from benchmarks.speed import evaluating, ranking
from benchmarks.speed.sizes import FULL
from benchmarks.speed.timing import rounded, timed
from benchmarks.speed.ways import bare, record
from benchmarks.speed.ways.job import Job
from benchmarks.speed.worker import reset_peak, resident_bytes
from benchmarks.speed.workers import ROOT
from trimtab.model import open_model

PASSES = 2
Facts = Mapping[str, object]
Measure = Callable[[str, Facts], dict[str, object]]


@contextmanager
def own_processes() -> Iterator[Measure]:
    """Yields :func:`measured`, which runs in a new process at every call."""
    command = [sys.executable, "-m", "benchmarks.speed.alone"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        asked, answers = server.stdin, server.stdout

        def measured_there(name: str, facts: Facts) -> dict[str, object]:
            print(json.dumps([name, facts]), file=asked, flush=True)
            answer = answers.readline()
            if not answer:
                raise click.ClickException(f"{name} with {facts} has failed; its messages stand above")
            return json.loads(answer)

        yield measured_there


def measured(name: str, facts: Facts) -> dict[str, object]:
    """Seconds of the fastest pass; memory that the first took on top of what was loaded, and bytes that it left on disk."""
    act = ACTIONS[name](facts)
    before = resident_bytes("VmRSS")
    reset_peak()
    seconds, peak, disk = [], None, 0
    for number in range(PASSES):
        with tempfile.TemporaryDirectory() as folder:
            seconds.append(timed(lambda folder=folder: act(Path(folder))).wall)
            if number == 0:
                peak = resident_bytes("VmHWM")
                disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {
        "seconds": rounded(min(seconds)),
        "peak_mb": None if before is None or peak is None else round((peak - before) / 1e6, 1),
        "disk_kb": round(disk / 1e3),
    }


def _record(facts: Facts) -> Callable[[Path], object]:
    return record.prepare(Path(str(facts["model"])), Job.read(Path(str(facts["job"]))))


def _bare(facts: Facts) -> Callable[[Path], object]:
    return bare.prepare(Path(str(facts["model"])), Job.read(Path(str(facts["job"]))))


def _evaluate(facts: Facts) -> Callable[[Path], object]:
    problems, conditions, tokens = (int(str(facts[key])) for key in ("problems", "conditions", "tokens"))
    work = evaluating.random_work(open_model(str(facts["model"])), problems, tokens, conditions)
    return lambda folder: evaluating.evaluate(work, folder, plainly=False)


def _rank(facts: Facts) -> Callable[[Path], object]:
    sizes = replace(FULL, ranked_layers=int(str(facts["layers"])), ranked_d_ff=int(str(facts["d_ff"])))
    moments, traces, criterion = Path(str(facts["moments"])), int(str(facts["traces"])), str(facts["criterion"])
    return lambda folder: ranking.ranked(moments, traces, criterion, sizes)  # noqa: ARG005  # it leaves nothing there


ACTIONS: Mapping[str, Callable[[Facts], Callable[[Path], object]]] = {
    "record": _record,
    "bare": _bare,
    "evaluate": _evaluate,
    "rank": _rank,
}
"""What prepares a pass, by name."""


def main() -> None:
    """Serve until stdin ends, or a child fails."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is no answer
    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if child == 0:
            print(json.dumps(measured(*json.loads(line))), file=answers, flush=True)
            return
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(1)


if __name__ == "__main__":
    main()
