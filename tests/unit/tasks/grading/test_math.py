"""Mathematical answers, and the worker processes that compare them.

The workers have a math-verify of our own that hangs, dies, raises and eats memory when told to.
"""

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trimtab.errors import TrimtabError
from trimtab.tasks.grading.math import (
    ANSWER_UNREADABLE,
    DIED,
    DISAGREES,
    EQUAL,
    FAILED,
    GOLD_UNREADABLE,
    GUESSED,
    KILLED,
    UNEQUAL,
    Disagreement,
    Equality,
    MathGrader,
    MathPool,
)
from trimtab.traces import AnswerKind, Problem, Score, Split

GOLDS = ["18", "3", "70000", "1,430", "-4", "0"]
FORMS = {
    "boxed": r"So she makes $\boxed{{{n}}}$.",
    "bare": "16 - 3 - 4 = 9.\n</think>\n\n{n}",
    "units": "x</think>{n} dollars",
    "units in the box": r"\boxed{{{n}\text{{ eggs}}}}",
    "separators": r"\boxed{{{n:,}}}",
    "hashes": "She sells 9 * 2.\n#### {n:,}",
    "fraction": r"\boxed{{\frac{{{twice}}}{{2}}}}",
    "statement": "It takes 2 days.\nThe answer is **{n}** per day, not 1.",
    "currency": r"**Answer:** John pays **\${n:,}** in taxes.",
    "last number": "She sells 9 eggs for $2 each and makes {n} dollars",
    "percent": r"\boxed{{{n}\%}}",
    "assignment": r"\boxed{{x = {n}}}",
}


@pytest.fixture(scope="module")
def grader() -> Iterator[MathGrader]:
    with MathGrader(timeout_s=30) as grader:
        yield grader


def _problem(gold: str, name: str = "p") -> Problem:
    return Problem(name, "how many?", gold, Split.TEST, kind=AnswerKind.MATH)


def _boxed(grader: MathGrader, pairs: list[tuple[str, str]]) -> list[str]:
    return [j.score.value for j in grader.judge([(_problem(gold), rf"\boxed{{{answer}}}") for gold, answer in pairs])]


def test_every_form_of_the_gold_answer_is_correct_and_of_its_neighbour_incorrect(grader: MathGrader) -> None:
    for offset, verdict in ((0, Score.CORRECT), (1, Score.INCORRECT)):
        cases = [
            (gold, name, form.format(n=number, twice=2 * number))
            for gold in GOLDS
            for name, form in FORMS.items()
            for number in [int(gold.replace(",", "")) + offset]
        ]
        judged = grader.judge([(_problem(gold), response) for gold, _, response in cases])
        assert [case for case, judgement in zip(cases, judged, strict=True) if judgement.score is not verdict] == []
        assert {name for (_, name, _), judgement in zip(cases, judged, strict=True) if GUESSED in judgement.reason} == {
            "last number"
        }
    assert grader.disagreements == []


EQUAL_PAIRS = [
    (r"\frac{1}{2}", "0.5"),
    (r"\frac{3}{2}", "1 1/2"),
    (r"\frac{1}{3}", r"0.\overline{3}"),
    ("12.5", r"12.5\%"),
    ("0.125", r"12.5\%"),
    (r"11\sqrt{2}", r"\sqrt{242}"),
    ("x^2-1", "(x-1)(x+1)"),
    ("6-5i", "-5i+6"),
    (r"(-\infty,2)\cup(3,\infty)", r"(-\infty, 2) \cup (3, \infty)"),
    (r"x\in[-2,7]", "[-2,7]"),
    ("x<2", r"(-\infty,2)"),
    (r"\{1,2\}", r"\{2, 1\}"),
    ("107,112", "112, 107"),
    (r"3\pm\sqrt{2}", r"3+\sqrt2, 3-\sqrt2"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}"),
    (r"\text{June 20}", "June 20"),
    (r"\text{Evelyn}", "Evelyn"),
    (r"A\cup B", r"A \cup B"),
    ("9^{9^{9^9}}", "9^{9^{9^9}}"),
    ("17", "17.000000"),
]
UNEQUAL_PAIRS = [
    ("0", "100 000"),
    ("19/2", "18 1/2"),
    ("11", "5 6"),
    ("east", "seat"),
    ("54", "54 million"),
    ("3", r"3\text{ apples and }5\text{ pears}"),
    ("7", "5 or 7"),
    ("5", r"\pm 5"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "[1,2]"),
    ("x=5", "y=5"),
    ("2", r"garbage \frac{4}{2} garbage"),
    ("18", "1.8"),
    ("1800", r"18\%"),
    ("5", "1/0"),
    ("5", r"\text{no}"),
    ("5", "5\x00"),
    ("5", "{" * 300 + "5" + "}" * 300),
]


def test_equal_as_mathematics(grader: MathGrader) -> None:
    assert _boxed(grader, EQUAL_PAIRS) == ["correct"] * len(EQUAL_PAIRS)


def test_unequal_as_mathematics(grader: MathGrader) -> None:
    assert _boxed(grader, UNEQUAL_PAIRS) == ["incorrect"] * len(UNEQUAL_PAIRS)


def test_an_inequality_equals_its_interval_whichever_is_the_gold_answer(grader: MathGrader) -> None:
    interval = r"(-\infty,2)"
    pairs = [("x<2", interval), (interval, "x<2"), (r"x\le 2", interval)]
    assert [outcome.result for outcome in grader.pool.compare(pairs)] == [EQUAL, EQUAL, UNEQUAL]


def test_both_checks_are_heard(grader: MathGrader) -> None:
    answers = [("a", "18", "18"), ("b", "x+1", "1+x"), ("c", "x+1", "x+2"), ("d", r"\text{June 20}", "June 20")]
    judged = grader.judge([(_problem(gold, name), rf"\boxed{{{answer}}}") for name, gold, answer in answers])
    assert [judgement.reason for judgement in judged] == [
        "equals the gold answer",
        f"equals the gold answer; {DISAGREES}",
        "differs from the gold answer x+1",
        "equals the gold answer",
    ]
    assert grader.disagreements == [
        Disagreement("b", "x+1", "1+x", Score.CORRECT, Score.INCORRECT),
    ]


def test_what_cannot_be_read(grader: MathGrader) -> None:
    judged = grader.judge(
        [(_problem(r"A\cup B"), r"\boxed{A\cap B}"), (_problem("5"), r"\boxed{5 ? 6}"), (_problem("1/0"), "#### 3")]
    )
    assert [(judgement.score.value, judgement.reason) for judgement in judged] == [
        (
            "incorrect",
            r"differs from the gold answer A\cup B; compared as text, since the gold answer cannot be read as mathematics",
        ),
        ("incorrect", "differs from the gold answer 5; cannot be read as mathematics"),
        ("incorrect", "differs from the gold answer 1/0"),
    ]


def test_no_answer_is_incorrect(grader: MathGrader) -> None:
    reasons = {
        judgement.reason for judgement in grader.judge([(_problem("5"), text) for text in ("", "  ", r"\boxed{5", "x</think>")])
    }
    assert reasons == {"no answer found"}


MEGABYTE = {
    "a number": r"\boxed{" + "5" * 1_000_000 + "}",
    "words": "x" * 1_000_000,
    "boxes that never close": r"\boxed{" * 150_000,
    "a number and many more": "5 " * 500_000,
    "announcements": "answer: " * 125_000,
    "announcements on lines": "the answer is 6\n" * 60_000,
    "hashes": "#" * 1_000_000,
    "hashes on lines": "####\n" * 200_000,
    "spaces": r"\boxed" + " " * 1_000_000,
    "brackets": "(" * 1_000_000,
    "dollars": "$7" * 500_000,
    "zeros": "\x00" * 1_000_000,
    "lone surrogates": "\ud800" * 1_000_000,
    "binary": bytes(range(256)).decode("latin-1") * 4_000,
}


def test_a_megabyte_is_never_correct_nor_slow(grader: MathGrader) -> None:
    start = time.process_time()
    judged = dict(zip(MEGABYTE, grader.judge([(_problem("41"), text) for text in MEGABYTE.values()]), strict=True))
    assert {name: judgement.score.value for name, judgement in judged.items()} == dict.fromkeys(MEGABYTE, "incorrect")
    assert time.process_time() - start < 10
    assert max(len(judgement.answer) + len(judgement.reason) for judgement in judged.values()) < 1_000


def test_a_few_answers_start_one_worker() -> None:
    with MathGrader(workers=2) as grader:
        assert grader.judge([]) == []
        assert (
            grader.judge([(_problem("5"), "no number anywhere, nor any other answer, to be sure")])[0].reason == "no answer found"
        )
        assert grader.pool.pids == []
        assert _boxed(grader, [("5", "5"), ("5", "6")]) == ["correct", "incorrect"]
        assert grader.pool.pids == []
        assert _boxed(grader, [("x+1", "1+x"), ("x", "y")]) == ["correct", "incorrect"]
        assert len(grader.pool.pids) == 1


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
        7: ("hang", Equality(FAILED, "timed out after 2 s")),
        20: ("die", Equality(KILLED, "died 2 times (signal 9)")),
        21: (f"die once:{fake / 'died'}", Equality(UNEQUAL)),
        33: ("raise:x", Equality(FAILED, "failed (KeyError: 'x')")),
        50: ("bomb", Equality(DIED, "died 2 times (out of memory)")),
        51: ("eat", Equality(DIED, "died 2 times (out of memory)")),
        80: ("words", Equality(ANSWER_UNREADABLE)),
        99: ("print", Equality(UNEQUAL)),
    }
    pairs = [(str(i), bad[i][0] if i in bad else str(i if i % 3 else i + 1)) for i in range(150)]
    pairs.append(("words", "1"))
    expected = [bad[i][1] if i in bad else Equality(EQUAL if i % 3 else UNEQUAL) for i in range(150)]
    assert pool.compare(pairs) == [*expected, Equality(GOLD_UNREADABLE)]
    assert len(pool.pids) <= 2


def test_the_memory_of_the_parent_is_not_counted(pool: MathPool) -> None:
    """A child starts with the peak of its parent in getrusage; a parent that holds a model must not spoil its workers."""
    ballast = b"x" * (300 << 20)
    assert pool.compare([("1", "2")]) == [Equality(UNEQUAL)]
    assert len(ballast) > pool.memory_mb << 20


def test_workers_that_were_killed_from_outside_are_replaced(pool: MathPool) -> None:
    pairs = [(str(i), str(i)) for i in range(100)]
    assert pool.compare(pairs) == [Equality(EQUAL)] * 100
    for pid in pool.pids:
        os.kill(pid, signal.SIGKILL)
    assert pool.compare(pairs) == [Equality(EQUAL)] * 100


def test_a_comparison_whose_worker_is_killed_is_tried_again(pool: MathPool) -> None:
    assert pool.compare([("1", "1")]) == [Equality(EQUAL)]
    (victim,) = pool.pids
    killer = threading.Timer(0.2, os.kill, (victim, signal.SIGKILL))
    killer.start()
    assert pool.compare([("a", "sleep:0.8"), ("b", "b")]) == [Equality(UNEQUAL), Equality(EQUAL)]
    killer.join()
    assert victim not in pool.pids


def test_a_stopped_worker_is_hung(pool: MathPool) -> None:
    pool.compare([("1", "1")])
    os.kill(pool.pids[0], signal.SIGSTOP)
    assert pool.compare([("1", "1")]) == [Equality(FAILED, "timed out after 2 s")]


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
    assert pool.compare([("1", "1")]) == [Equality(EQUAL)]


def test_a_forgotten_pool_leaves_no_worker(fake: Path) -> None:
    pool = MathPool(timeout_s=1, workers=1, memory_mb=256)
    pool.compare([("1", "1")])
    (pid,) = pool.pids
    del pool
    gc.collect()
    assert _ended(pid)


def test_a_worker_whose_parent_is_gone_ends_by_itself(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.tasks.grading.math.GRACE_S", 0)
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
        grader.judge([(Problem("p", "?", "x", Split.TEST), r"\boxed{y}")])
    assert grader.pool.pids == []


def test_a_slow_start_is_no_start(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fake / "math_verify.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr("trimtab.tasks.grading.math.START_S", 0.5)
    start = time.monotonic()
    with MathGrader() as grader, pytest.raises(TrimtabError, match="a worker was not ready after 0 s"):
        grader.judge([(Problem("p", "?", "x", Split.TEST), r"\boxed{y}")])
    assert time.monotonic() - start < 30


def test_failures_of_the_grader_are_unscored_and_lose_only_themselves(fake: Path) -> None:
    answers = ["5", "hang:1", "6", "die:1", "raise:x", "die:1", "5"]
    with MathGrader(timeout_s=2, workers=2, memory_mb=256) as grader:
        judged = grader.judge([(Problem("p", "?", "5", Split.TEST, kind=AnswerKind.MATH), rf"\boxed{{{a}}}") for a in answers])
    assert [(j.score, j.reason) for j in judged] == [
        (Score.CORRECT, "equals the gold answer"),
        (
            Score.INCORRECT,
            "differs from the gold answer 5; comparing it timed out after 2 s, and the gold answer alone can be compared",
        ),
        (Score.INCORRECT, "differs from the gold answer 5"),
        (Score.UNSCORED, "the math grader died 2 times (signal 9)"),
        (
            Score.INCORRECT,
            "differs from the gold answer 5; comparing it failed (KeyError: 'x'), and the gold answer alone can be compared",
        ),
        (Score.UNSCORED, "the math grader died 2 times (signal 9)"),
        (Score.CORRECT, "equals the gold answer"),
    ]
