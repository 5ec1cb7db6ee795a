"""The grader of mathematical answers: ``math-verify`` in worker processes, and a second check without computer algebra."""

import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
import weakref
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from trimtab.errors import TrimtabError
from trimtab.tasks.grading.grader import Judgement
from trimtab.tasks.grading.math_notation import decided_as_text, exact_number, for_math_verify, pair_for_math_verify
from trimtab.tasks.grading.math_text import LAST_NUMBER, gold_text, stated_answer
from trimtab.tasks.grading.math_worker import OUT_OF_MEMORY
from trimtab.tasks.grading.text import NO_ANSWER
from trimtab.traces import Problem, Score

EQUAL, UNEQUAL = "equal", "unequal"
GOLD_UNREADABLE, ANSWER_UNREADABLE = "gold unreadable", "answer unreadable"
FAILED, DIED, KILLED = "failed", "died", "killed"
BROKE = "broke"
"""It failed or died, and its gold answer alone does not."""

START_S = 120.0
GRACE_S = 5
"""Seconds after its deadline when the kernel ends a worker that nobody killed, because the parent is gone."""
PER_WORKER = 64
"""Comparisons that are worth a further worker, which takes half a second to start."""
ATTEMPTS = 2
OWN_SIGNALS = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGALRM, signal.SIGXCPU}
)
"""Signals by which a computation that went too deep or took too long ends its own process."""
_ROOT = Path(__file__).parents[3]
# the packages are entered as bare modules, so that nothing of their __init__ (pydantic, transformers) is imported
_BOOT = """
import sys
root, module = sys.argv[1:3]
for name in ("trimtab", "trimtab.tasks", "trimtab.tasks.grading"):
    package = sys.modules[name] = type(sys)(name)
    package.__path__ = [root + "/" + name.replace(".", "/")]
__import__(module, fromlist=["main"]).main()
"""


class Equality(NamedTuple):
    """The result of a comparison, one of the constants above, and why it failed if it did."""

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
        limits = [str(math.ceil(timeout_s) + GRACE_S), str(memory_mb)]
        command = [sys.executable, "-P", "-c", _BOOT, str(_ROOT), "trimtab.tasks.grading.math_worker", *limits]
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

    def compare(self, pairs: Sequence[tuple[str, str]]) -> list[Equality]:
        """One outcome per (gold, answer), in order. A comparison whose worker dies is tried once more, in another.

        Raises:
            TrimtabError: a worker does not start, for example because ``math-verify`` is not installed.
        """
        outcomes: dict[int, Equality] = {}
        waiting, deaths = deque(range(len(pairs))), Counter[int]()
        try:
            for worker in [worker for worker in self._alive if worker.process.poll() is not None]:
                self._end(worker)
            while len(outcomes) < len(pairs):
                self._hand_out(pairs, waiting, left=len(pairs) - len(outcomes))
                for job, outcome in self._collect():
                    died = outcome.result in (DIED, KILLED)
                    deaths[job] += died
                    if died and deaths[job] < ATTEMPTS:
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

    def _collect(self) -> Iterator[tuple[int, Equality]]:
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
                yield job, Equality(FAILED, f"failed ({reply['error']})") if "error" in reply else Equality(reply["result"])
        for worker in [worker for worker in busy if worker in self._alive and time.monotonic() >= worker.deadline]:
            if not worker.ready:
                raise _no_start(f"a worker was not ready after {START_S:.0f} s")
            if worker.job is not None:
                log.info("math-verify gave no answer in %g s; its worker is replaced", self.timeout_s)
                self._end(worker)
                yield worker.job, Equality(FAILED, f"timed out after {self.timeout_s:g} s")

    def _started(self, worker: _Worker, reply: dict[str, str]) -> None:
        if "error" in reply:
            raise _no_start(reply["error"])
        worker.ready, self._failed_starts = True, 0

    def _died(self, worker: _Worker) -> Iterator[tuple[int, Equality]]:
        """A signal that no computation raises by itself came from outside: from a person, or the kernel short of memory."""
        status = self._end(worker)
        result = KILLED if status < 0 and -status not in OWN_SIGNALS else DIED
        how = "out of memory" if status == OUT_OF_MEMORY else f"signal {-status}" if status < 0 else f"exit status {status}"
        log.info("a worker for math-verify ended (%s) and is replaced", how)
        if worker.job is not None:
            yield worker.job, Equality(result, f"died {ATTEMPTS} times ({how})")
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


DISAGREES = "the string check disagrees"
"""Stands in the reason of every judgement on which the two checks disagree."""
GUESSED = "read as the last number"
"""Stands in the reason where no answer was stated."""

TIMEOUT_S = 10.0
MEMORY_MB = 2_048
MOST_WORKERS = 8
LONGEST_SHOWN = 200

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An answer on which ``math-verify`` and the string check disagree, with the verdict that each alone would give."""

    problem_id: str
    gold: str
    answer: str
    math: Score
    string: Score


class _Comparison(NamedTuple):
    """What came of comparing an answer: as text and exact numbers, None where they do not decide, and as mathematics."""

    text: bool | None
    math: Equality


_NOT_ASKED = Equality("decided as text")


class MathGrader:
    """Correct when the stated answer equals the gold answer as mathematics.

    Equal texts, and exact numbers, times of the day, numbers with a base and words, are decided without computer algebra
    (:func:`trimtab.tasks.grading.math_notation.decided_as_text`); all others by ``math-verify``'s reading of both and
    :mod:`trimtab.tasks.grading.math_equal`, where exact inequality is final. A gold answer that mathematics cannot read is
    compared as text.

    An answer is incorrect when it is not equal, when it is no mathematics, when there is none, and when comparing it takes too
    long or breaks the comparison although the gold answer can be compared with itself. It is unscored when its worker was killed
    from outside, or when the gold answer alone breaks the comparison.

    Which part of a response is its answer: :func:`trimtab.tasks.grading.math_text.stated_answer`. What ``math-verify`` is not
    asked about: :func:`trimtab.tasks.grading.math_notation.for_math_verify`.

    Workers start at the first call that needs them and stay for the next one, until ``close``, the end of a ``with`` block or of
    the interpreter. One call at a time: the grader is not for several threads.

    Args:
        timeout_s: seconds for one comparison.
        workers: processes at most; one per 64 different answers is started.
        memory_mb: address space of one worker, held by Linux only.

    Example:
        >>> from trimtab.traces import Split
        >>> problem = Problem("p", "What is a half of a half?", r"\\frac{1}{4}", Split.TEST)
        >>> with MathGrader() as grader:
        ...     print(grader.judge([(problem, r"A half times a half is $\\boxed{0.25}$.")])[0].score)
        correct
    """

    def __init__(self, timeout_s: float = TIMEOUT_S, workers: int | None = None, memory_mb: int = MEMORY_MB) -> None:
        self.disagreements: list[Disagreement] = []
        """Those of the last call, in order."""
        self.pool = MathPool(timeout_s, workers or min(MOST_WORKERS, os.cpu_count() or 1), memory_mb)

    def judge(self, answers: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """One judgement per (problem, response), in order.

        Raises:
            TrimtabError: the workers cannot start.
        """
        self.disagreements = []
        golds = [gold_text(problem.answer) for problem, _ in answers]
        stated = [stated_answer(response) for _, response in answers]
        compared = self._compare(
            sorted({(gold, found.text) for gold, found in zip(golds, stated, strict=True) if found is not None})
        )
        judgements = []
        for (problem, _), gold, found in zip(answers, golds, stated, strict=True):
            if found is None:
                judgements.append(NO_ANSWER)
                continue
            comparison = compared[gold, found.text]
            if _disagree(comparison):
                self._note_disagreement(problem.id, gold, found.text)
            judgements.append(_judgement(gold, found.text, found.where == LAST_NUMBER, comparison))
        return judgements

    def close(self) -> None:
        """End the workers."""
        self.pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def unreadable_golds(self, problems: Sequence[Problem]) -> list[Problem]:
        """The problems whose gold answer mathematics cannot read, so that answers to them are compared as text."""
        golds = [gold_text(problem.answer) for problem in problems]
        written = [for_math_verify(gold) for gold in golds]
        asked = sorted({text for text in written if text is not None})
        read = dict(zip(asked, self.pool.compare([(text, text) for text in asked]), strict=True))
        return [
            problem
            for problem, gold, text in zip(problems, golds, written, strict=True)
            if exact_number(gold) is None and (text is None or read[text].result != EQUAL)
        ]

    def _compare(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], _Comparison]:
        texts = {pair: decided_as_text(*pair) for pair in pairs}
        written = {pair: pair_for_math_verify(*pair) for pair in pairs if texts[pair] is None}
        asked = sorted({(gold, answer) for gold, answer in written.values() if gold is not None and answer is not None})
        outcomes = dict(zip(asked, self.pool.compare(asked), strict=True))
        broken = sorted({gold for (gold, _), outcome in outcomes.items() if outcome.result in (FAILED, DIED)})
        sound = {gold: one.result == EQUAL for gold, one in zip(broken, self.pool.compare([(g, g) for g in broken]), strict=True)}
        for (gold, answer), outcome in outcomes.items():
            if outcome.result in (FAILED, DIED) and sound[gold]:
                outcomes[gold, answer] = Equality(BROKE, outcome.why)
        compared = {pair: _Comparison(decided, _NOT_ASKED) for pair, decided in texts.items()}
        for pair, (left, right) in written.items():
            unreadable = GOLD_UNREADABLE if left is None else ANSWER_UNREADABLE
            outcome = Equality(unreadable) if left is None or right is None else outcomes[left, right]
            compared[pair] = _Comparison(None, outcome)
        return compared

    def _note_disagreement(self, problem_id: str, gold: str, answer: str) -> None:
        self.disagreements.append(Disagreement(problem_id, gold, _shown(answer), Score.CORRECT, Score.INCORRECT))
        log.info("%s: equal as mathematics, not as text: gold %r, answer %r", problem_id, gold, _shown(answer))


def _disagree(comparison: _Comparison) -> bool:
    return comparison.text is None and comparison.math.result == EQUAL


def _judgement(gold: str, answer: str, guessed: bool, comparison: _Comparison) -> Judgement:
    (text, (result, why)), shown = comparison, _shown(answer)
    note = GUESSED if guessed else ""
    if text or (text is None and result == EQUAL):
        reason = ["equals the gold answer", note, DISAGREES if _disagree(comparison) else ""]
        return Judgement(Score.CORRECT, "; ".join(filter(None, reason)), shown)
    if text is None and result in (FAILED, DIED, KILLED):
        return Judgement(Score.UNSCORED, f"the math grader {why}", shown)
    reason = [f"differs from the gold answer {_shown(gold)}", note]
    if text is None:
        reason.append(_WHY_UNEQUAL.get(result, ""))
        reason.append(f"comparing it {why}, and the gold answer alone can be compared" if result == BROKE else "")
    return Judgement(Score.INCORRECT, "; ".join(filter(None, reason)), shown)


_WHY_UNEQUAL = {
    ANSWER_UNREADABLE: "cannot be read as mathematics",
    GOLD_UNREADABLE: "compared as text, since the gold answer cannot be read as mathematics",
}


def _shown(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}... ({len(text):,} characters)"
