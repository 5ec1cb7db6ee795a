"""Near-duplicates across splits, against a naive loop."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import InputError
from trimtab.tasks import near_duplicates as module
from trimtab.tasks.near_duplicates import Likeness, near_duplicates
from trimtab.traces import Problem, Split

FIND, TUNE, TEST = Split.TRAIN, Split.VALIDATION, Split.TEST


def _problems(*questions: tuple[Split, str]) -> list[Problem]:
    return [Problem(f"p{i}", question, "1", split) for i, (split, question) in enumerate(questions)]


def _tokens(question: str) -> list[str]:
    return re.findall(r"\d+(?:[.,]\d+)*|[^\W\d_]+", question.casefold()) or [question.strip()]


def _masked(question: str) -> list[str]:
    return ["0" if token[0].isdecimal() else token for token in _tokens(question)]


def _jaccard(one: str, two: str) -> float:
    pairs = []
    for question in (one, two):
        words = ["", *_masked(question), ""]
        pairs.append({(words[i], words[i + 1]) for i in range(len(words) - 1)})
    return len(pairs[0] & pairs[1]) / len(pairs[0] | pairs[1])


def _naive(problems: list[Problem], threshold: float) -> list[tuple[str, str, float, str]]:
    found = []
    for problem in problems:
        earlier = {FIND: [], TUNE: [FIND], TEST: [FIND, TUNE]}[problem.split]
        best = None
        for other in (p for p in problems if p.split in earlier):
            same = _tokens(problem.question) == _tokens(other.question)
            numbers = _masked(problem.question) == _masked(other.question)
            rank = (2.0 if same else 1.0 if numbers else 0.0) + _jaccard(problem.question, other.question)
            if best is None or rank > best[0]:
                best = (rank, other, "same" if same else "numbers" if numbers else "near")
        if best is not None and _jaccard(problem.question, best[1].question) >= threshold:
            found.append((problem.id, best[1].id, pytest.approx(_jaccard(problem.question, best[1].question)), best[2]))
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([FIND, TUNE, TEST]),
            st.lists(st.sampled_from(["tom", "has", "3", "4", "apples", "?", "Tom", "pears"]), min_size=1, max_size=6),
        ),
        max_size=12,
    ),
    st.sampled_from([0.2, 0.5, 0.7, 1.0]),
)
def test_against_a_naive_loop(drawn: list[tuple[Split, list[str]]], threshold: float) -> None:
    problems = _problems(*((split, " ".join(words)) for split, words in drawn))
    found = near_duplicates(problems, threshold)
    assert [(pair.id, pair.other, pair.similarity, pair.likeness) for pair in found] == _naive(problems, threshold)
    splits = {problem.id: problem.split for problem in problems}
    assert all((splits[pair.id], splits[pair.other]) == (pair.split, pair.other_split) for pair in found)


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven"]
    questions = [" ".join(words[(i + j * j) % 7] for j in range(5 + i % 3)) for i in range(40)]
    problems = _problems(*((list(Split)[i % 3], question) for i, question in enumerate(questions)))
    whole = near_duplicates(problems, 0.3)
    assert any(pair.likeness is Likeness.NEAR for pair in whole)
    monkeypatch.setattr(module, "_BLOCK", 3)
    assert near_duplicates(problems, 0.3) == whole


def test_numbers_alone_do_not_tell_two_problems_apart() -> None:
    problems = _problems(
        (FIND, "Tom has 3 apples and buys 1,600.50 more."),
        (TEST, "Tom has 4 apples, and buys 7 more!"),
        (TEST, "tom has 3 apples and buys 1,600.50 more"),
    )
    found = near_duplicates(problems)
    assert [(pair.id, pair.likeness, pair.similarity) for pair in found] == [("p1", "numbers", 1.0), ("p2", "same", 1.0)]


def test_one_word_among_ten_by_hand() -> None:
    """Eleven pairs each; the changed word takes two of them: 9 are common, 13 different in all."""
    problems = _problems((FIND, "a b c d e f g h i j"), (TEST, "a b c d x f g h i j"))
    assert near_duplicates(problems, 0.7) == []
    assert near_duplicates(problems, 0.69)[0].similarity == pytest.approx(9 / 13)


def test_only_earlier_splits_count() -> None:
    problems = _problems((TEST, "the same question"), (TUNE, "the same question"), (TEST, "the same question"))
    assert [(pair.id, pair.other) for pair in near_duplicates(problems)] == [("p0", "p1"), ("p2", "p1")]
    assert near_duplicates(_problems((FIND, "x y"), (FIND, "x y"))) == []
    assert [pair.id for pair in module.leaks(_problems((FIND, "a b"), (TUNE, "a b"), (TEST, "a b")))] == ["p2"]


def test_texts_without_words() -> None:
    problems = _problems((FIND, "+?"), (TEST, "-?"), (TEST, "+?"), (TEST, "¿¡"))
    assert [(pair.id, pair.likeness) for pair in near_duplicates(problems, 0.1)] == [("p2", Likeness.SAME)]


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5, float("nan")])
def test_threshold(threshold: float) -> None:
    with pytest.raises(InputError, match="must be above 0 and at most 1"):
        near_duplicates([], threshold)
