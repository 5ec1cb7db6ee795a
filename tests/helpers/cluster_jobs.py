"""Jobs and openers that live tests send to the actors of a cluster, whose processes import this file."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from trimtab.execution import Job
from trimtab.model import LanguageModel, open_model
from trimtab.progress import Advance
from trimtab.store import Parts, Plan, make_plan


@dataclass(frozen=True)
class Line:
    """A row of a part."""

    name: str


@dataclass(frozen=True)
class LineJob:
    """Writes the names of its items; some parts raise, and some kill their actor."""

    parts: Parts
    raising: frozenset[int] = frozenset()
    killing: frozenset[int] = frozenset()
    label: str = "lines"

    @property
    def plan(self) -> Plan:
        return self.parts.plan

    def missing(self) -> list[int]:
        return self.parts.missing()

    def run(self, model: LanguageModel, parts: Iterable[int], advance: Advance) -> None:
        for part in parts:
            if part in self.killing:
                os.kill(os.getpid(), signal.SIGKILL)
            if part in self.raising:
                raise ValueError(f"part {part} is broken")
            self.parts.write_table(part, [Line(name) for name in self.plan.parts[part]])
            advance(1, 10)


def line_job(folder: Path, n_parts: int, **kinds: frozenset[int]) -> LineJob:
    """A job of so many parts with one item each."""
    ids = [f"problem-{i:05d}" for i in range(n_parts)]
    parts = Parts(folder)
    parts.ensure_plan(make_plan(ids, [1] * n_parts, 1, {}))
    return LineJob(parts, **kinds)


@dataclass(frozen=True)
class Slowed:
    """Another job, each part of which waits first: so that there is something to kill."""

    job: Job
    seconds: float

    @property
    def label(self) -> str:
        return self.job.label

    @property
    def plan(self) -> Plan:
        return self.job.plan

    def missing(self) -> list[int]:
        return self.job.missing()

    def run(self, model: LanguageModel, parts: Iterable[int], advance: Advance) -> None:
        for part in parts:
            time.sleep(self.seconds)
            self.job.run(model, [part], advance)


def slowed(jobs: Sequence[Job], seconds: float) -> list[Job]:
    """All of them."""
    return [Slowed(job, seconds) for job in jobs]


def open_and_sign(hf_model: Path, folder: Path) -> LanguageModel:
    """Open a model and leave a file named after this process."""
    model = open_model(hf_model)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / str(os.getpid())).touch()
    return model


def open_never(message: str) -> LanguageModel:
    """Fail as a model that cannot be opened does."""
    from trimtab.errors import ModelError

    raise ModelError(message)


def open_with_full_disk(model: Path) -> LanguageModel:
    """Open a model in a process that can write nothing any more."""
    import errno

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    os.fsync = full
    return open_model(model)


@contextmanager
def killing(signatures: Path, every_s: float = 4.0) -> Iterator[list[int]]:
    """Every few seconds ``kill -9`` one of the processes that signed; yields those that were killed."""
    killed: list[int] = []
    ended: set[int] = set()
    over, draw = threading.Event(), random.Random(0)

    def kill() -> None:
        while not over.wait(every_s):
            signed = [int(path.name) for path in signatures.glob("*") if int(path.name) not in ended]
            if signed:
                victim = draw.choice(signed)
                ended.add(victim)
                with suppress(ProcessLookupError):  # it was ended, and another begun
                    os.kill(victim, signal.SIGKILL)
                    killed.append(victim)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()
