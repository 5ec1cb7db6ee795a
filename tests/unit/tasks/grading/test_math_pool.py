"""The worker processes, with a math-verify of our own that hangs, dies, raises and eats memory when told to."""

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trimtab.errors import TrimtabError
from trimtab.tasks.grading.math import MathGrader
from trimtab.tasks.grading.math_pool import ANSWER_UNREADABLE, DIED, EQUAL, FAILED, GOLD_UNREADABLE, UNEQUAL, MathPool, Outcome
from trimtab.traces import AnswerKind, Problem, Split, Verdict

FAKE = """
import os, pathlib, signal, time

class LatexExtractionConfig:
    def __init__(self, **settings):
        pass

def parse(latex, *settings, **more):
    text = latex[len("\\\\boxed{"):-1]
    return [text] if text == "words" else [("expression", text), text]

def verify(gold, answer, **settings):
    kind, _, rest = answer[1].partition(":")
    if kind == "hang":
        while True:
            pass
    if kind == "sleep":
        time.sleep(float(rest))
    if kind == "die" or (kind == "die once" and not pathlib.Path(rest).exists()):
        kind == "die" or pathlib.Path(rest).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "raise":
        raise KeyError(rest)
    if kind == "print":
        print("not a reply")
    if kind == "bomb":
        raise MemoryError
    if kind == "eat":
        try:
            [bytearray(10 << 20) for _ in range(1000)]
        except MemoryError:
            return False
    return gold[1] == answer[1]
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Workers import this math_verify."""
    (tmp_path / "math_verify.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def pool(fake: Path) -> Iterator[MathPool]:
    pool = MathPool(timeout_s=2, workers=2, memory_mb=256)
    yield pool
    pool.close()


def _ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_every_outcome_belongs_to_its_pair_whatever_happens_to_the_workers(pool: MathPool, fake: Path) -> None:
    bad = {
        7: ("hang", Outcome(FAILED, "timed out after 2 s")),
        20: ("die", Outcome(DIED, "died 2 times (signal 9)")),
        21: (f"die once:{fake / 'died'}", Outcome(UNEQUAL)),
        33: ("raise:x", Outcome(FAILED, "failed (KeyError: 'x')")),
        50: ("bomb", Outcome(DIED, "died 2 times (out of memory)")),
        51: ("eat", Outcome(DIED, "died 2 times (out of memory)")),
        80: ("words", Outcome(ANSWER_UNREADABLE)),
        99: ("print", Outcome(UNEQUAL)),
    }
    pairs = [(str(i), bad[i][0] if i in bad else str(i if i % 3 else i + 1)) for i in range(150)]
    pairs.append(("words", "1"))
    expected = [bad[i][1] if i in bad else Outcome(EQUAL if i % 3 else UNEQUAL) for i in range(150)]
    assert pool.compare(pairs) == [*expected, Outcome(GOLD_UNREADABLE)]
    assert len(pool.pids) <= 2


def test_the_memory_of_the_parent_is_not_counted(pool: MathPool) -> None:
    """A child starts with the peak of its parent in getrusage; a parent that holds a model must not spoil its workers."""
    ballast = b"x" * (300 << 20)
    assert pool.compare([("1", "2")]) == [Outcome(UNEQUAL)]
    assert len(ballast) > pool.memory_mb << 20


def test_workers_that_were_killed_from_outside_are_replaced(pool: MathPool) -> None:
    pairs = [(str(i), str(i)) for i in range(100)]
    assert pool.compare(pairs) == [Outcome(EQUAL)] * 100
    for pid in pool.pids:
        os.kill(pid, signal.SIGKILL)
    assert pool.compare(pairs) == [Outcome(EQUAL)] * 100


def test_a_comparison_whose_worker_is_killed_is_tried_again(pool: MathPool) -> None:
    assert pool.compare([("1", "1")]) == [Outcome(EQUAL)]
    (victim,) = pool.pids
    killer = threading.Timer(0.2, os.kill, (victim, signal.SIGKILL))
    killer.start()
    assert pool.compare([("a", "sleep:0.8"), ("b", "b")]) == [Outcome(UNEQUAL), Outcome(EQUAL)]
    killer.join()
    assert victim not in pool.pids


def test_a_stopped_worker_is_hung(pool: MathPool) -> None:
    pool.compare([("1", "1")])
    os.kill(pool.pids[0], signal.SIGSTOP)
    assert pool.compare([("1", "1")]) == [Outcome(FAILED, "timed out after 2 s")]


def test_an_interrupt_leaves_no_worker(pool: MathPool) -> None:
    pool.compare([("1", "1")])
    (pid,) = pool.pids
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            pool.compare([("1", "hang")])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert pool.pids == []
    assert _ended(pid)
    assert pool.compare([("1", "1")]) == [Outcome(EQUAL)]


def test_a_forgotten_pool_leaves_no_worker(fake: Path) -> None:
    pool = MathPool(timeout_s=1, workers=1, memory_mb=256)
    pool.compare([("1", "1")])
    (pid,) = pool.pids
    del pool
    gc.collect()
    assert _ended(pid)


def test_a_worker_whose_parent_is_gone_ends_by_itself(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.tasks.grading.math_pool.GRACE_S", 0)
    pool = MathPool(timeout_s=1, workers=1, memory_mb=256)
    pool.compare([("1", "1")])
    worker = pool._alive[0]
    worker.send(0, ("1", "hang"))
    assert worker.process.wait(timeout=60) == -signal.SIGALRM
    pool.close()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("raise ImportError('no such library')", "cannot start: ImportError: no such library; .* pip install math-verify"),
        ("import os; os._exit(3)", r"its worker ended 2 times before it was ready \(exit status 3\)"),
    ],
)
def test_a_grader_that_cannot_start_says_why(fake: Path, module: str, message: str) -> None:
    (fake / "math_verify.py").write_text(module)
    with MathGrader() as grader, pytest.raises(TrimtabError, match=message):
        grader.judge([(Problem("p", "?", "1", Split.TEST), r"\boxed{2}")])
    assert grader.pool.pids == []


def test_a_slow_start_is_no_start(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fake / "math_verify.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr("trimtab.tasks.grading.math_pool.START_S", 0.5)
    start = time.monotonic()
    with MathGrader() as grader, pytest.raises(TrimtabError, match="a worker was not ready after 0 s"):
        grader.judge([(Problem("p", "?", "1", Split.TEST), r"\boxed{2}")])
    assert time.monotonic() - start < 30


def test_failures_of_the_grader_are_unscored_and_lose_only_themselves(fake: Path) -> None:
    answers = ["5", "hang:1", "6", "die:1", "raise:x", "die:1", "5"]
    with MathGrader(timeout_s=2, workers=2, memory_mb=256) as grader:
        judged = grader.judge([(Problem("p", "?", "5", Split.TEST, kind=AnswerKind.MATH), rf"\boxed{{{a}}}") for a in answers])
    assert [(j.verdict, j.reason) for j in judged] == [
        (Verdict.CORRECT, "equals the gold answer"),
        (Verdict.UNSCORED, "the math grader timed out after 2 s"),
        (Verdict.INCORRECT, "differs from the gold answer 5"),
        (Verdict.UNSCORED, "the math grader died 2 times (signal 9)"),
        (Verdict.UNSCORED, "the math grader failed (KeyError: 'x')"),
        (Verdict.UNSCORED, "the math grader died 2 times (signal 9)"),
        (Verdict.CORRECT, "equals the gold answer"),
    ]
