"""Splits: by a hash of the question, so that a question is in the same one in every file, and their content."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from trimtab.errors import InputError
from trimtab.tasks.near_duplicates import MEASURE, THRESHOLD, Likeness, Pair, clusters_within, near_duplicates
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
        raise InputError(f"unknown split {name!r}; accepted: {', '.join(names)}", code="unknown-split")
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
            raise InputError(
                f"problems {other.id!r} and {problem.id!r} have the same question and stand in {where}; remove one",
                code="repeated-question",
            )


def _uniform(text: str) -> float:
    """A number in [0, 1) from the text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """Problems by split and by domain, and the problems of validation and test that stand in an earlier split.

    Args:
        problems: how many each split holds.
        domains: the same for each domain; empty where there are none.
        pairs: see :func:`trimtab.tasks.near_duplicates.near_duplicates`.
        threshold: least similarity of a pair.
        within: clusters in one split, see :func:`trimtab.tasks.near_duplicates.clusters_within`.
    """

    problems: dict[Split, int]
    domains: dict[str, dict[Split, int]]
    pairs: tuple[Pair, ...]
    threshold: float
    within: dict[str, list[str]] = field(default_factory=dict)

    def shared(self, split: Split) -> dict[Likeness, int]:
        """How many problems of this split also stand in an earlier one, by how alike they are."""
        return {kind: sum(p.split is split and p.likeness is kind for p in self.pairs) for kind in Likeness}

    def to_json(self) -> dict[str, object]:
        """Plain values. ``pairs`` names every problem that leaks, so that a report can be made without them."""
        return {
            "problems": dict(self.problems),
            "domains": {domain: dict(counts) for domain, counts in self.domains.items()},
            "near_duplicates": {
                "measure": MEASURE,
                "threshold": self.threshold,
                "validation": self.shared(Split.VALIDATION),
                "test": self.shared(Split.TEST),
                "pairs": [pair._asdict() for pair in self.pairs],
                "within": self.within,
            },
        }


def split_facts(problems: Sequence[Problem], threshold: float = THRESHOLD) -> SplitFacts:
    """Count what the splits hold and find what they share."""
    domains = sorted({problem.domain for problem in problems} - {""})
    return SplitFacts(
        problems=_by_split(problems),
        domains={domain: _by_split([p for p in problems if p.domain == domain]) for domain in domains},
        pairs=tuple(near_duplicates(problems, threshold)),
        threshold=threshold,
        within=clusters_within(problems, threshold),
    )


def _by_split(problems: Sequence[Problem]) -> dict[Split, int]:
    return {split: sum(problem.split is split for problem in problems) for split in Split}
