"""Worker processes for ``math-verify``: each has one comparison at a time, a clock, and a successor when it dies."""

import json
import logging
import math
import os
import subprocess
import sys
import time
import weakref
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

from trimtab.errors import TrimtabError
from trimtab.tasks.grading.math_worker import OUT_OF_MEMORY

EQUAL, UNEQUAL = "equal", "unequal"
GOLD_UNREADABLE, ANSWER_UNREADABLE = "gold unreadable", "answer unreadable"
FAILED, DIED = "failed", "died"

START_S = 120.0
GRACE_S = 5
"""Seconds after its deadline when the kernel ends a worker that nobody killed, because the parent is gone."""
PER_WORKER = 64
"""Comparisons that are worth a further worker, which takes half a second to start."""
ATTEMPTS = 2
_SCRIPT = Path(__file__).with_name("math_worker.py")

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What came of a comparison, one of the constants above, and why it failed if it did."""

    result: str
    why: str = ""


class _Worker:
    """One process. ``job`` is the number of the comparison that it works on; None while it starts or waits."""

    def __init__(self, timeout_s: float, memory_mb: int) -> None:
        self.timeout_s = timeout_s
        self.job: int | None = None
        self.ready = False
        self.deadline = time.monotonic() + START_S
        self._unread = b""
        # -P: the folder of the script has a math.py, which must not hide the standard library's
        command = [sys.executable, "-P", str(_SCRIPT), str(math.ceil(timeout_s) + GRACE_S), str(memory_mb)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, start_new_session=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._requests, self._replies = self.process.stdin, self.process.stdout

    def fileno(self) -> int:
        return self._replies.fileno()

    def send(self, job: int, pair: tuple[str, str]) -> None:
        self.job, self.deadline = job, time.monotonic() + self.timeout_s
        with suppress(BrokenPipeError):  # it died: so its replies end, and there it is noticed
            self._requests.write(json.dumps(pair).encode() + b"\n")
            self._requests.flush()

    def receive(self) -> dict[str, str] | None:
        """A reply; an empty one while it is incomplete; None when the process is gone."""
        received = os.read(self.fileno(), 1 << 16)
        line, newline, rest = (self._unread + received).partition(b"\n")
        self._unread = rest if newline else line
        if newline:
            return json.loads(line)
        return {} if received else None

    def close(self) -> int:
        """Kill it and return how it ended."""
        self.process.kill()
        status = self.process.wait()
        self._replies.close()
        with suppress(BrokenPipeError):
            self._requests.close()
        return status


class MathPool:
    """Compares answers in worker processes, which are started when there is work for them and kept for the next call.

    Args:
        timeout_s: seconds for one comparison; then its worker is killed and replaced.
        workers: processes at most.
        memory_mb: address space of one worker (Linux).
    """

    def __init__(self, timeout_s: float, workers: int, memory_mb: int) -> None:
        self.timeout_s, self.workers, self.memory_mb = timeout_s, workers, memory_mb
        self._alive: list[_Worker] = []
        self._failed_starts = 0
        self._finalizer = weakref.finalize(self, _end_all, self._alive)

    @property
    def pids(self) -> list[int]:
        """The processes that live now."""
        return [worker.process.pid for worker in self._alive]

    def compare(self, pairs: Sequence[tuple[str, str]]) -> list[Outcome]:
        """One outcome per (gold, answer), in order. A comparison whose worker dies is tried once more, in another.

        Raises:
            TrimtabError: a worker does not start, for example because ``math-verify`` is not installed.
        """
        outcomes: dict[int, Outcome] = {}
        waiting, deaths = deque(range(len(pairs))), Counter[int]()
        try:
            for worker in [worker for worker in self._alive if worker.process.poll() is not None]:
                self._end(worker)
            while len(outcomes) < len(pairs):
                self._hand_out(pairs, waiting, left=len(pairs) - len(outcomes))
                for job, outcome in self._collect():
                    deaths[job] += outcome.result == DIED
                    if outcome.result == DIED and deaths[job] < ATTEMPTS:
                        waiting.appendleft(job)
                    else:
                        outcomes[job] = outcome
        except BaseException:
            self.close()
            raise
        return [outcomes[job] for job in range(len(pairs))]

    def close(self) -> None:
        """End every worker. The next comparison starts new ones."""
        _end_all(self._alive)

    def _hand_out(self, pairs: Sequence[tuple[str, str]], waiting: deque[int], left: int) -> None:
        while len(self._alive) < min(self.workers, math.ceil(left / PER_WORKER)):
            try:
                self._alive.append(_Worker(self.timeout_s, self.memory_mb))
            except OSError as error:
                raise _no_start(str(error)) from error
        for worker in self._alive:
            if waiting and worker.ready and worker.job is None:
                job = waiting.popleft()
                worker.send(job, pairs[job])

    def _collect(self) -> Iterator[tuple[int, Outcome]]:
        """Wait for a reply, a death or a deadline, and give every comparison that came to an end."""
        busy = [worker for worker in self._alive if worker.job is not None or not worker.ready]
        patience = min(worker.deadline for worker in busy) - time.monotonic()
        replying = wait([worker.fileno() for worker in busy], max(0.0, patience))
        for worker in [worker for worker in busy if worker.fileno() in replying]:
            reply, job = worker.receive(), worker.job
            if reply is None:
                yield from self._died(worker)
            elif reply and job is None:
                self._started(worker, reply)
            elif reply and job is not None:
                worker.job = None
                yield job, Outcome(FAILED, f"failed ({reply['error']})") if "error" in reply else Outcome(reply["result"])
        for worker in [worker for worker in busy if worker in self._alive and time.monotonic() >= worker.deadline]:
            if not worker.ready:
                raise _no_start(f"a worker was not ready after {START_S:.0f} s")
            if worker.job is not None:
                log.info("math-verify gave no answer in %g s; its worker is replaced", self.timeout_s)
                self._end(worker)
                yield worker.job, Outcome(FAILED, f"timed out after {self.timeout_s:g} s")

    def _started(self, worker: _Worker, reply: dict[str, str]) -> None:
        if "error" in reply:
            raise _no_start(reply["error"])
        worker.ready, self._failed_starts = True, 0

    def _died(self, worker: _Worker) -> Iterator[tuple[int, Outcome]]:
        status = self._end(worker)
        how = "out of memory" if status == OUT_OF_MEMORY else f"signal {-status}" if status < 0 else f"exit status {status}"
        log.info("a worker for math-verify ended (%s) and is replaced", how)
        if worker.job is not None:
            yield worker.job, Outcome(DIED, f"died {ATTEMPTS} times ({how})")
        elif not worker.ready:
            self._failed_starts += 1
            if self._failed_starts == ATTEMPTS:
                raise _no_start(f"its worker ended {ATTEMPTS} times before it was ready ({how})")

    def _end(self, worker: _Worker) -> int:
        self._alive.remove(worker)
        return worker.close()


def _end_all(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().close()


def _no_start(why: str) -> TrimtabError:
    return TrimtabError(f"the math grader cannot start: {why}; it needs the package math-verify: pip install math-verify")
