"""Which texts are almost the same: the measure behind near-duplicates of problems and of compared documents."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

THRESHOLD = 0.7
MEASURE = "Jaccard index of word pairs, and of the pairs of numbers and operators alone"

_BLOCK = 128
_NUMBER = r"\d+(?:[.,]\d+)*"
_OPERATOR = r"[+*/^=<>\u00d7\u00f7\u2212]|(?<![^\W\d_])-(?![^\W\d_])"
_TOKEN = re.compile(rf"{_NUMBER}|[^\W\d_]+|{_OPERATOR}")

Tokens = tuple[str, ...]


def cluster_labels(texts: Sequence[str], threshold: float = THRESHOLD) -> list[int]:
    """A number for each text, the same for texts that a chain of pairs joins, each similar enough.

    Of each text two sequences are compared, in lower case and without punctuation: its words and operators, with every number as
    the same word; and its numbers and operators alone, since short questions of one template differ by nothing else. With S the
    set of neighbouring pairs of a sequence, its two ends counted as members, two sequences are alike by
    ``|S1 & S2| / |S1 | S2|``, and two texts by the smaller of the two.

    Args:
        texts: any number.
        threshold: least similarity, above 0 and at most 1.

    Example:
        >>> cluster_labels(["Tom has 3.", "Ann has 4.", "Tom has  3!"])
        [0, 1, 0]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not texts:
        return []
    rows, columns = _similar([words_of(text) for text in texts], threshold)
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(len(texts), len(texts)))
    _, labels = connected_components(graph, directed=False)
    return labels.tolist()


def _similar(words: Sequence[Tokens], threshold: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which rows of some texts are similar enough to which others; equal ones are joined to the first of them."""
    first: dict[Tokens, int] = {}
    equal = [(row, first.setdefault(text, row)) for row, text in enumerate(words)]
    pairs = [(row, other) for row, other in equal if row != other]
    unique = list(first.values())
    by_words = _Alike([masked(words[row]) for row in unique])
    by_content = _Alike([_content(words[row]) for row in unique])
    for start in range(0, len(unique), _BLOCK):
        block = [words[row] for row in unique[start : start + _BLOCK]]
        alike = by_content.to([_content(text) for text in block]).minimum(by_words.to([masked(text) for text in block])).tocoo()
        near = alike.data >= threshold
        rows, columns = alike.row[near] + start, alike.col[near]
        pairs += [(unique[one], unique[other]) for one, other in zip(rows.tolist(), columns.tolist(), strict=True) if one < other]
    found = np.array(pairs, np.intp).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def most_similar(later: list[Tokens], earlier: list[Tokens]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """For each text of ``later`` the index of the most similar one of ``earlier`` and how similar they are.

    By blocks of rows, because the matrices of common pairs may be dense: memory does not grow with the number of texts squared.
    """
    best, similarity = np.zeros(len(later), np.intp), np.zeros(len(later))
    if not later or not earlier:
        return best, similarity
    by_words = _Alike([masked(text) for text in earlier])
    by_content = _Alike([_content(text) for text in earlier])
    for start in range(0, len(later), _BLOCK):
        block = later[start : start + _BLOCK]
        by_block = by_words.to([masked(text) for text in block])
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


def words_of(text: str) -> Tokens:
    """The words and numbers of a text; of a text without any, the text itself."""
    return tuple(_TOKEN.findall(text.casefold())) or (text.strip(),)


def masked(words: Tokens) -> Tokens:
    """The words with every number as the same one."""
    return tuple("0" if word[0].isdecimal() else word for word in words)


def _content(words: Tokens) -> Tokens:
    """The numbers and operators; none of them is content too, and equal to none."""
    return tuple(word for word in words if not word[0].isalpha())


def _pairs(words: Tokens) -> list[Tokens]:
    return list(zip(("", *words), (*words, ""), strict=True))
