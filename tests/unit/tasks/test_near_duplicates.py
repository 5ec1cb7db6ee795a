"""Near-duplicates across splits, against a naive loop."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import InputError
from trimtab.stats import likeness
from trimtab.tasks import near_duplicates as module
from trimtab.tasks.near_duplicates import Likeness, clusters_within, near_duplicates
from trimtab.traces import Problem, Split

FIND, TUNE, TEST = Split.TRAIN, Split.VALIDATION, Split.TEST


def _problems(*questions: tuple[Split, str]) -> list[Problem]:
    return [Problem(f"p{i}", question, "1", split) for i, (split, question) in enumerate(questions)]


def _tokens(question: str) -> list[str]:
    return re.findall(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[+=-]", question.casefold()) or [question.strip()]


def _masked(question: str) -> list[str]:
    return ["0" if token[0].isdecimal() else token for token in _tokens(question)]


def _jaccard(one: list[str], two: list[str]) -> float:
    pairs = []
    for tokens in (one, two):
        words = ["", *tokens, ""]
        pairs.append({(words[i], words[i + 1]) for i in range(len(words) - 1)})
    return len(pairs[0] & pairs[1]) / len(pairs[0] | pairs[1])


def _similarity(one: str, two: str) -> float:
    content = [[token for token in _tokens(question) if not token[0].isalpha()] for question in (one, two)]
    return min(_jaccard(_masked(one), _masked(two)), _jaccard(*content))


def _naive(problems: list[Problem], threshold: float) -> list[tuple[str, str, float, str]]:
    found = []
    for problem in problems:
        earlier = {FIND: [], TUNE: [FIND], TEST: [FIND, TUNE]}[problem.split]
        best = None
        for other in (p for p in problems if p.split in earlier):
            same = _tokens(problem.question) == _tokens(other.question)
            numbers = _masked(problem.question) == _masked(other.question)
            similarity = _similarity(problem.question, other.question)
            if best is None or same + similarity > best[0]:
                best = (same + similarity, similarity, other, "same" if same else "numbers" if numbers else "near")
        if best is not None and best[1] >= threshold:
            found.append((problem.id, best[2].id, pytest.approx(best[1]), best[3]))
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([FIND, TUNE, TEST]),
            st.lists(st.sampled_from(["tom", "has", "3", "4", "+", "- ", "apples", "?", "Tom", "pears"]), min_size=1, max_size=6),
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
    monkeypatch.setattr(likeness, "_BLOCK", 3)
    assert near_duplicates(problems, 0.3) == whole


def test_questions_of_one_template_are_told_apart_by_their_numbers() -> None:
    """All 220 test problems of such a run were once called near-duplicates of its train split."""
    sums = [f"State the final answer to the following problem: {a} + {b} =" for a in range(10) for b in range(10)]
    problems = _problems(*((list(Split)[i % 3], question) for i, question in enumerate(sums)))
    assert near_duplicates(problems) == []
    again = Problem("again", sums[0].replace(" =", "=?"), "0", TEST)
    assert [(pair.id, pair.other, pair.likeness) for pair in near_duplicates([*problems, again])] == [("again", "p0", "same")]


@pytest.mark.parametrize(
    "other", ["What is 5 + 9?", "What is 9 - 5?", "What is 5 - 8?", "What is 5?", "What is five minus nine?"]
)
def test_operators_and_their_order_are_content(other: str) -> None:
    assert near_duplicates(_problems((FIND, "What is 5 - 9?"), (TEST, other)), 0.51) == []


def test_a_hyphen_is_no_operator() -> None:
    pairs = near_duplicates(_problems((FIND, "A self-driving car"), (TEST, "a self driving car")))
    assert [pair.likeness for pair in pairs] == [Likeness.SAME]


def test_one_number_of_many_by_hand() -> None:
    """Thirteen pairs of numbers, two of them changed: 11 common, 15 in all; the words are the same."""
    numbers = "Add 1 2 3 4 5 6 7 8 9 10 11 12 please"
    found = near_duplicates(_problems((FIND, numbers), (TEST, numbers.replace(" 6 ", " 60 "))))
    assert [(pair.similarity, pair.likeness) for pair in found] == [(pytest.approx(11 / 15), "numbers")]


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


def test_clusters_stand_in_one_split_and_are_joined_by_chains() -> None:
    texts = ("Tom has 3 apples and eats 2.", "Tom  has 3 apples and eats 2", "Ann has 9 pears.", "ann has 9 pears")
    assert clusters_within(_problems(*((TEST, text) for text in texts))) == {"p0": ["p0", "p1"], "p2": ["p2", "p3"]}
    assert clusters_within(_problems(*zip((FIND, TEST, TEST, FIND), texts, strict=True))) == {}
    assert clusters_within([]) == {}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 2), st.sampled_from(["", " so", " then so"])), max_size=8))
def test_clusters_are_the_components_of_similar_pairs(parts: list[tuple[str, int, str]]) -> None:
    problems = _problems(*((TEST, f"{word} has 3 apples in {n} red bags{end}") for word, n, end in parts))
    texts = [problem.question for problem in problems]
    component = list(range(len(texts)))
    for _ in texts:
        near = [[j for j in range(len(texts)) if _similarity(texts[i], texts[j]) >= module.THRESHOLD] for i in range(len(texts))]
        component = [min(component[j] for j in [*near[i], i]) for i in range(len(texts))]
    expected: dict[str, list[str]] = {}
    for i, label in enumerate(component):
        expected.setdefault(f"p{label}", []).append(f"p{i}")
    assert clusters_within(problems) == {name: ids for name, ids in expected.items() if len(ids) > 1}
