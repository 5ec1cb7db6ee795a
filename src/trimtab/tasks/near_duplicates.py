"""Problems that stand in two splits, exactly or nearly: what was found on one of them is no news on the other."""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.traces import Problem, Split

if TYPE_CHECKING:
    from scipy.sparse import csr_array

THRESHOLD = 0.7
MEASURE = "Jaccard index of word pairs, numbers equal to each other"
EARLIER = {Split.VALIDATION: (Split.TRAIN,), Split.TEST: (Split.TRAIN, Split.VALIDATION)}

_BLOCK = 512
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+")

Tokens = tuple[str, ...]


class Likeness(StrEnum):
    """``same`` words and numbers, the same words with other ``numbers``, or merely ``near``."""

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

    The measure compares words only: lower case, punctuation and interventions ignored, every number counted as the same word.
    With S the set of pairs of neighbouring words, the text's two ends counted as words, the similarity of two questions is
    ``|S1 & S2| / |S1 | S2|``. So "Tom has 3 apples" and "Tom has 4 apples" are 1, and one other word within n gives
    (n - 1) / (n + 3): 0.69 for n = 10, 0.91 for n = 40. A text in a script without spaces is one word, found only when equal.

    Not found: the same problem in other words, or translated.

    Args:
        problems: of all splits, in the order in which ties are decided (the first wins).
        threshold: least similarity, above 0 and at most 1.

    Returns:
        At most one pair for each problem of validation (against train) and of test (against train and validation), in order. Of
        several equally similar problems one with the same numbers is preferred.

    Raises:
        InputError: a threshold outside (0, 1].

    Example:
        >>> found = near_duplicates([Problem("a", "Tom has 3 apples.", "3", Split.TRAIN),
        ...                          Problem("b", "Tom has 4 apples!", "4", Split.TEST)])
        >>> [(pair.id, pair.other, pair.similarity, pair.likeness.value) for pair in found]
        [('b', 'a', 1.0, 'numbers')]
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


def _nearest(
    words: Sequence[Tokens], later: list[int], earlier: list[int], threshold: float
) -> list[tuple[int, int, float, Likeness]]:
    same: dict[Tokens, int] = {}
    numbers: dict[Tokens, int] = {}
    for row in earlier:
        same.setdefault(words[row], row)
        numbers.setdefault(_masked(words[row]), row)
    found, rest = [], []
    for row in later:
        if words[row] in same:
            found.append((row, same[words[row]], 1.0, Likeness.SAME))
        elif (masked := _masked(words[row])) in numbers:
            found.append((row, numbers[masked], 1.0, Likeness.NUMBERS))
        else:
            rest.append(row)
    # equal texts have equal neighbours, so one of each is enough; a file of templates would else need every pair
    unique = sorted(numbers.values())
    best, similarity = _most_similar([_masked(words[row]) for row in rest], [_masked(words[row]) for row in unique])
    near = np.flatnonzero(similarity >= threshold)
    return found + [(rest[i], unique[best[i]], float(similarity[i]), Likeness.NEAR) for i in near]


def _most_similar(later: list[Tokens], earlier: list[Tokens]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """For each text of ``later`` the index of the most similar one of ``earlier`` and their Jaccard index.

    By blocks of rows, because the matrix of common pairs may be dense: its memory does not grow with the number of texts squared.
    """
    best, similarity = np.zeros(len(later), np.intp), np.zeros(len(later))
    if not later or not earlier:
        return best, similarity
    vocabulary: dict[Tokens, int] = {}
    columns = _incidence(earlier, vocabulary).T.tocsr()
    sizes = columns.sum(axis=0)
    for start in range(0, len(later), _BLOCK):
        rows = _incidence(later[start : start + _BLOCK], vocabulary)
        common = (rows[:, : columns.shape[0]] @ columns).tocsr()
        common.sort_indices()
        union = np.repeat(rows.sum(axis=1), np.diff(common.indptr)) + sizes[common.indices] - common.data
        common.data = common.data / union
        best[start : start + _BLOCK] = common.argmax(axis=1)
        similarity[start : start + _BLOCK] = common.max(axis=1).toarray().ravel()
    return best, similarity


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


def _pairs(words: Tokens) -> list[Tokens]:
    return list(zip(("", *words), (*words, ""), strict=True))
