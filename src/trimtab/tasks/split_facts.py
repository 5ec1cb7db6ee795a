"""What the splits of a run hold, and what they share."""

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.tasks.near_duplicates import MEASURE, THRESHOLD, Likeness, Pair, near_duplicates
from trimtab.traces import Problem, Split


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """Problems by split and by domain, and the problems of validation and test that stand in an earlier split.

    Args:
        problems: how many each split holds.
        domains: the same for each domain; empty where there are none.
        pairs: see :func:`trimtab.tasks.near_duplicates.near_duplicates`.
        threshold: least similarity of a pair.
    """

    problems: dict[Split, int]
    domains: dict[str, dict[Split, int]]
    pairs: tuple[Pair, ...]
    threshold: float

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
    )


def _by_split(problems: Sequence[Problem]) -> dict[Split, int]:
    return {split: sum(problem.split is split for problem in problems) for split in Split}
