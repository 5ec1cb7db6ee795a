"""The step checker on chains written by hand, and what authors write."""

import random
from collections import Counter

import pytest

from trimtab.tasks.grading.grade import testbed_steps as steps_right
from trimtab.testbed.chains import THINK_END, check_steps, write_chain
from trimtab.testbed.domains import DOMAINS
from trimtab.testbed.problems import draw, parse
from trimtab.testbed.sources import failure_sources
from trimtab.testbed.wordings import most_careful
from trimtab.traces import Problem, Split

DIAL = "now dial 5 : a +6 b -2 c +1 as ever ?"  # 1, 9, 0
RARE = "now dial 5 : a -7 b +1 as ever ?"  # 8, 9; misread: 9, 0
LINKS = "now from ann : a bob max b ann bob c max bob as ever ?"  # bob, max, bob


def _chain(*steps: str, answer: str = "0") -> str:
    return " ".join([*steps, THINK_END, answer])


A, B, C = "so a 5 +6 gives 1 .", "thus b 1 -2 yields 9 ;", "then c +1 9 is 0 !"


@pytest.mark.parametrize(
    ("question", "chain", "written", "right", "complete", "source"),
    [
        (DIAL, _chain(A, B, C), 3, 3, True, None),
        (DIAL, _chain("so a 5 +6 gives 2 .", "so b 2 -2 gives 0 .", "so c 0 +1 gives 1 ."), 3, 2, True, "mode"),
        (DIAL, _chain(A, "so b 1 -2 gives 5 .", "so c 5 +1 gives 6 ."), 3, 2, True, "capacity"),
        (DIAL, _chain(A, B), 2, 2, False, "capacity"),
        (DIAL, _chain(A, B, C, "so d 0 +1 gives 1 ."), 4, 3, False, "capacity"),
        (DIAL, _chain(A, "so c 1 -2 gives 9 .", C), 3, 2, True, "capacity"),
        (DIAL, _chain("so a 5 +6 gives mon .", B, C), 3, 0, True, "capacity"),
        (DIAL, _chain(), 0, 0, False, "capacity"),
        (DIAL, "", 0, 0, False, "capacity"),
        (RARE, _chain("so a 5 -7 gives 8 .", "so b 8 +1 gives 9 ."), 2, 2, True, None),
        (RARE, _chain("so a 5 -7 gives 9 .", "so b 9 +1 gives 0 ."), 2, 1, True, "content"),
        (RARE, _chain("so a 5 -7 gives 9 .", "so b 9 +1 gives 1 ."), 2, 0, True, "content"),
        (LINKS, _chain("so a ann is bob .", "so b bob is max .", "so c max is bob ."), 3, 3, True, None),
        (LINKS, _chain("so a ann is max .", "so b max is bob .", "so c bob is max ."), 3, 2, True, "mode"),
    ],
)
def test_check_steps(question: str, chain: str, written: int, right: int, complete: bool, source: str | None) -> None:
    report = check_steps(parse(question), chain)
    assert (report.written, report.right, report.complete, report.source) == (written, right, complete, source)
    assert report.all_right == (source is None)
    problem = Problem("p", question, parse(question).answer, Split.TEST)
    assert steps_right(problem, chain) == report.all_right


def test_a_step_after_a_wrong_one_is_judged_by_the_state_that_was_stated() -> None:
    report = check_steps(parse(DIAL), _chain("so a 5 +6 gives 7 .", "so b 7 -2 gives 5 .", "so c 5 +1 gives 6 ."))
    assert (report.right, report.source) == (2, "capacity")


@pytest.mark.parametrize("name", DOMAINS)
def test_careful_authors_write_right_chains(name: str) -> None:
    rng = random.Random(0)
    for _ in range(60):
        problem = draw(rng, name, rng.randint(2, 12))
        chain = write_chain(rng, problem, always_right=True)
        assert check_steps(problem, chain).all_right
        assert chain.rpartition(f"{THINK_END} ")[2] == problem.answer


@pytest.mark.parametrize("name", DOMAINS)
def test_mixed_authors_fail_by_mode_or_content_only(name: str) -> None:
    rng = random.Random(1)
    sources = Counter(check_steps(p, write_chain(rng, p)).source for p in (draw(rng, name, 6) for _ in range(250)))
    assert set(sources) == {None, "mode", "content"}


@pytest.mark.parametrize("name", DOMAINS)
def test_mode_changes_no_length(name: str) -> None:
    """Otherwise a mean over tokens would see the layout of a response, not its mode."""
    rng = random.Random(2)
    problem = draw(rng, name, 7)
    lengths = {len(write_chain(rng, problem, always_right=right).split()) for right in (True, False) for _ in range(40)}
    assert len(lengths) == 1


def test_no_word_gives_the_mode_away() -> None:
    """Every connective, verb and stop is written by both kinds of author."""
    rng = random.Random(3)
    wording = most_careful("dial", 1)[0]
    careful, mixed = Counter(), Counter()
    for _ in range(300):
        problem = draw(rng, "dial", 8, wording)
        careful.update(write_chain(rng, problem, always_right=True).split())
        mixed.update(write_chain(rng, problem).split())
    assert all(careful[word] for word in mixed)


def test_failure_sources() -> None:
    slipped = _chain("so a 5 +6 gives 2 .", "so b 2 -2 gives 0 .", "so c 0 +1 gives 1 .", answer="1")
    rows = failure_sources(
        [("p1", DIAL, _chain(A, B, C), True), ("p2", DIAL, slipped, False), ("p3", DIAL, _chain(A, B, C, answer="4"), False)]
    )
    assert [(row.problem_id, row.source) for row in rows] == [("p1", "solved"), ("p2", "mode"), ("p3", "capacity")]
