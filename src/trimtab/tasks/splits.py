"""Splits: by a hash of the question, so that a question is in the same one whatever file or order it comes in."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

from trimtab.errors import InputError
from trimtab.traces import Problem, Split

SHARES = {Split.TRAIN: 0.5, Split.VALIDATION: 0.2, Split.TEST: 0.3}


def split_by_hash(question: str, among: Sequence[Split] = tuple(Split)) -> Split:
    """One of these splits, each with its part of :data:`SHARES`, rescaled to 1 over those given.

    Example:
        >>> split_by_hash("What is 2 + 2?", (Split.TEST,))
        <Split.TEST: 'test'>
    """
    share = _uniform(question) * sum(SHARES[split] for split in among)
    for split in among:
        if share < SHARES[split]:
            return split
        share -= SHARES[split]
    return among[-1]


def named_split(name: object) -> Split:
    """The split of a row that names one. Raises InputError for another name."""
    names = [split.value for split in Split]
    if name not in names:
        raise InputError(f"unknown split {name!r}; accepted: {', '.join(names)}")
    return Split(str(name))


def shuffled(problems: Iterable[Problem], seed: int) -> list[Problem]:
    """In the order of a seeded hash of the question: the first n of a file that is sorted by subject are then a fair sample."""
    return sorted(problems, key=lambda problem: (_uniform(f"{seed}\n{problem.question}"), problem.id))


def bounded(problems: Iterable[Problem], counts: dict[Split, int]) -> list[Problem]:
    """The first ``counts[split]`` problems of each split: train, then validation, then test."""
    taken: Counter[Split] = Counter()
    kept: dict[Split, list[Problem]] = {split: [] for split in Split}
    for problem in problems:
        if taken[problem.split] < counts[problem.split]:
            taken[problem.split] += 1
            kept[problem.split].append(problem)
    return [problem for split in Split for problem in kept[split]]


def check_disjoint(problems: Iterable[Problem]) -> None:
    """Raise InputError when a question stands twice: in two splits it would leak, in one it would count twice."""
    seen: dict[str, Problem] = {}
    for problem in problems:
        other = seen.setdefault(problem.question, problem)
        if other is not problem:
            where = (
                f"the splits {other.split} and {problem.split}" if other.split != problem.split else f"the split {problem.split}"
            )
            raise InputError(f"problems {other.id!r} and {problem.id!r} have the same question and stand in {where}; remove one")


def _uniform(text: str) -> float:
    """A number in [0, 1) from the text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64
