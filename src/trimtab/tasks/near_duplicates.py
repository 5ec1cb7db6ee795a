"""Problems that stand in two splits, exactly or nearly: what was found on one of them is no news on the other."""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.traces import Problem, Split

if TYPE_CHECKING:
    from scipy.sparse import csr_array

THRESHOLD = 0.7
MEASURE = "Jaccard index of word pairs, and of the pairs of numbers and operators alone"
EARLIER = {Split.VALIDATION: (Split.TRAIN,), Split.TEST: (Split.TRAIN, Split.VALIDATION)}

_BLOCK = 128
_NUMBER = r"\d+(?:[.,]\d+)*"
_OPERATOR = r"[+*/^=<>\u00d7\u00f7\u2212]|(?<![^\W\d_])-(?![^\W\d_])"
_TOKEN = re.compile(rf"{_NUMBER}|[^\W\d_]+|{_OPERATOR}")

Tokens = tuple[str, ...]


class Likeness(StrEnum):
    """``same`` words and numbers, the same words with some other ``numbers``, or merely ``near``."""

    SAME = "same"
    NUMBERS = "numbers"
    NEAR = "near"


class Pair(NamedTuple):
    """A problem, the most similar one of an earlier split, and how similar they are."""

    id: str
    split: Split
    other: str
    other_split: Split
    similarity: float
    likeness: Likeness


def near_duplicates(problems: Sequence[Problem], threshold: float = THRESHOLD) -> list[Pair]:
    """For each problem of validation and test the most similar one of the splits opened before it, if it is similar enough.

    Of each question two sequences are compared, in lower case and without punctuation: its words and operators, with every
    number as the same word; and its numbers and operators alone, since short questions of one template differ by nothing
    else. With S the set of neighbouring pairs of a sequence, its two ends counted as members, two sequences are alike by
    ``|S1 & S2| / |S1 | S2|``, and two questions by the smaller of the two. So "Tom has 3 apples" and "Tom has 4 apples" are
    0, like "5 - 9" and "9 - 5", and one other word within n gives (n - 1) / (n + 3): 0.69 for n = 10, 0.91 for n = 40. A text
    in a script without spaces is one word, found only when equal.

    Not found: the same problem in other words, with other numbers, or translated.

    Args:
        problems: of all splits, in the order in which ties are decided (the first wins).
        threshold: least similarity, above 0 and at most 1.

    Returns:
        At most one pair for each problem of validation (against train) and of test (against train and validation), in order. Of
        several equally similar problems an equal one is preferred.

    Raises:
        InputError: a threshold outside (0, 1].

    Example:
        >>> found = near_duplicates([Problem("a", "Tom has 3 apples.", "3", Split.TRAIN),
        ...                          Problem("b", "Tom has 3 apples!", "3", Split.TEST),
        ...                          Problem("c", "Tom has 4 apples.", "4", Split.TEST)])
        >>> [(pair.id, pair.other, pair.similarity, pair.likeness.value) for pair in found]
        [('b', 'a', 1.0, 'same')]
    """
    if not 0 < threshold <= 1:
        raise InputError(f"the threshold of near-duplicates must be above 0 and at most 1, got {threshold}")
    words = [_words(problem.question) for problem in problems]
    found: dict[int, Pair] = {}
    for split, earlier in EARLIER.items():
        later_rows = [i for i, problem in enumerate(problems) if problem.split is split]
        earlier_rows = [i for i, problem in enumerate(problems) if problem.split in earlier]
        for row, other, similarity, likeness in _nearest(words, later_rows, earlier_rows, threshold):
            one, two = problems[row], problems[other]
            found[row] = Pair(one.id, one.split, two.id, two.split, similarity, likeness)
    return [found[row] for row in sorted(found)]


def leaks(problems: Sequence[Problem], threshold: float = THRESHOLD) -> list[Pair]:
    """The test problems that also stand, exactly or nearly, in train or validation: see :func:`near_duplicates`."""
    return [pair for pair in near_duplicates(problems, threshold) if pair.split is Split.TEST]


def clusters_within(problems: Sequence[Problem], threshold: float = THRESHOLD) -> dict[str, list[str]]:
    """Near-duplicates that stand in one split: by the id of the first, the ids of all of a cluster, itself among them.

    Two problems are in one cluster where a chain of pairs, each similar enough as in :func:`near_duplicates`, joins them.

    Example:
        >>> clusters_within([Problem(name, text, "3", Split.TEST) for name, text in (("a", "Tom has 3."), ("b", "Tom has  3"))])
        {'a': ['a', 'b']}
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    found: dict[str, list[str]] = {}
    for split in Split:
        own = [problem for problem in problems if problem.split is split]
        if len(own) < 2:
            continue
        words = [_words(problem.question) for problem in own]
        rows, columns = _similar(words, threshold)
        graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(len(own), len(own)))
        _, labels = connected_components(graph, directed=False)
        by_label: dict[int, list[str]] = {}
        for problem, label in zip(own, labels.tolist(), strict=True):
            by_label.setdefault(label, []).append(problem.id)
        found |= {ids[0]: ids for ids in by_label.values() if len(ids) > 1}
    return found


def _similar(words: Sequence[Tokens], threshold: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which rows of some texts are similar enough to which others; equal ones are joined to the first of them."""
    first: dict[Tokens, int] = {}
    equal = [(row, first.setdefault(text, row)) for row, text in enumerate(words)]
    pairs = [(row, other) for row, other in equal if row != other]
    unique = list(first.values())
    by_words = _Alike([_masked(words[row]) for row in unique])
    by_content = _Alike([_content(words[row]) for row in unique])
    for start in range(0, len(unique), _BLOCK):
        block = [words[row] for row in unique[start : start + _BLOCK]]
        alike = by_content.to([_content(text) for text in block]).minimum(by_words.to([_masked(text) for text in block])).tocoo()
        near = alike.data >= threshold
        rows, columns = alike.row[near] + start, alike.col[near]
        pairs += [(unique[one], unique[other]) for one, other in zip(rows.tolist(), columns.tolist(), strict=True) if one < other]
    found = np.array(pairs, np.intp).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _nearest(
    words: Sequence[Tokens], later: list[int], earlier: list[int], threshold: float
) -> list[tuple[int, int, float, Likeness]]:
    first: dict[Tokens, int] = {}  # equal texts have equal neighbours, so one of each is enough
    for row in earlier:
        first.setdefault(words[row], row)
    found = [(row, first[words[row]], 1.0, Likeness.SAME) for row in later if words[row] in first]
    rest = [row for row in later if words[row] not in first]
    unique = list(first.values())
    best, similarity = _most_similar([words[row] for row in rest], [words[row] for row in unique])
    for i in np.flatnonzero(similarity >= threshold):
        row, other = rest[i], unique[best[i]]
        likeness = Likeness.NUMBERS if _masked(words[row]) == _masked(words[other]) else Likeness.NEAR
        found.append((row, other, float(similarity[i]), likeness))
    return found


def _most_similar(later: list[Tokens], earlier: list[Tokens]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """For each text of ``later`` the index of the most similar one of ``earlier`` and how similar they are.

    By blocks of rows, because the matrices of common pairs may be dense: memory does not grow with the number of texts squared.
    """
    best, similarity = np.zeros(len(later), np.intp), np.zeros(len(later))
    if not later or not earlier:
        return best, similarity
    by_words = _Alike([_masked(text) for text in earlier])
    by_content = _Alike([_content(text) for text in earlier])
    for start in range(0, len(later), _BLOCK):
        block = later[start : start + _BLOCK]
        by_block = by_words.to([_masked(text) for text in block])
        alike = cast("csr_array", by_content.to([_content(text) for text in block]).minimum(by_block))
        best[start : start + _BLOCK] = alike.argmax(axis=1)
        similarity[start : start + _BLOCK] = alike.max(axis=1).toarray().ravel()
    return best, similarity


class _Alike:
    """Some sequences, to which others are compared by the Jaccard index of their neighbouring pairs."""

    def __init__(self, sequences: Sequence[Tokens]) -> None:
        self._vocabulary: dict[Tokens, int] = {}
        self._columns = _incidence(sequences, self._vocabulary).T.tocsr()
        self._sizes = self._columns.sum(axis=0)

    def to(self, sequences: Sequence[Tokens]) -> "csr_array":
        """``[row, column]``: the index of each of these (rows) and each of those (columns)."""
        rows = _incidence(sequences, self._vocabulary)
        common = (rows[:, : self._columns.shape[0]] @ self._columns).tocsr()
        common.sort_indices()
        union = np.repeat(rows.sum(axis=1), np.diff(common.indptr)) + self._sizes[common.indices] - common.data
        common.data = common.data / union
        return common


def _incidence(texts: Sequence[Tokens], vocabulary: dict[Tokens, int]) -> "csr_array":
    """1 where the text (row) has the pair (column); pairs not seen before are added to the vocabulary."""
    from scipy.sparse import csr_array

    rows = [sorted({vocabulary.setdefault(pair, len(vocabulary)) for pair in _pairs(text)}) for text in texts]
    ends = np.cumsum([0, *map(len, rows)])
    columns = np.fromiter((column for row in rows for column in row), np.int32, ends[-1])
    return csr_array((np.ones(len(columns), np.int32), columns, ends), shape=(len(texts), len(vocabulary)))


def _words(text: str) -> Tokens:
    """The words and numbers of a text; of a text without any, the text itself."""
    return tuple(_TOKEN.findall(text.casefold())) or (text.strip(),)


def _masked(words: Tokens) -> Tokens:
    return tuple("0" if word[0].isdecimal() else word for word in words)


def _content(words: Tokens) -> Tokens:
    """The numbers and operators; none of them is content too, and equal to none."""
    return tuple(word for word in words if not word[0].isalpha())


def _pairs(words: Tokens) -> list[Tokens]:
    return list(zip(("", *words), (*words, ""), strict=True))
