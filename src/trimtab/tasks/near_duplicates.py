"""Problems that stand in two splits, exactly or nearly: a finding on one of them is not independent of the other."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from trimtab.errors import InputError
from trimtab.stats.likeness import MEASURE, THRESHOLD, Tokens, cluster_labels, masked, most_similar, words_of
from trimtab.traces import Problem, Split

__all__ = ["EARLIER", "MEASURE", "THRESHOLD", "Likeness", "Pair", "clusters_within", "leaks", "near_duplicates"]

EARLIER = {Split.VALIDATION: (Split.TRAIN,), Split.TEST: (Split.TRAIN, Split.VALIDATION)}


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
    words = [words_of(problem.question) for problem in problems]
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
    found: dict[str, list[str]] = {}
    for split in Split:
        own = [problem for problem in problems if problem.split is split]
        if len(own) < 2:
            continue
        labels = cluster_labels([problem.question for problem in own], threshold)
        by_label: dict[int, list[str]] = {}
        for problem, label in zip(own, labels, strict=True):
            by_label.setdefault(label, []).append(problem.id)
        found |= {ids[0]: ids for ids in by_label.values() if len(ids) > 1}
    return found


def _nearest(
    words: Sequence[Tokens], later: list[int], earlier: list[int], threshold: float
) -> list[tuple[int, int, float, Likeness]]:
    first: dict[Tokens, int] = {}  # equal texts have equal neighbours, so one of each is enough
    for row in earlier:
        first.setdefault(words[row], row)
    found = [(row, first[words[row]], 1.0, Likeness.SAME) for row in later if words[row] in first]
    rest = [row for row in later if words[row] not in first]
    unique = list(first.values())
    best, similarity = most_similar([words[row] for row in rest], [words[row] for row in unique])
    for i in np.flatnonzero(similarity >= threshold):
        row, other = rest[i], unique[best[i]]
        likeness = Likeness.NUMBERS if masked(words[row]) == masked(words[other]) else Likeness.NEAR
        found.append((row, other, float(similarity[i]), likeness))
    return found
