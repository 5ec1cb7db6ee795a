"""The contrast in memory, to ask which neurons other problems or other labels would have selected."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trimtab.experiments.search import Search
from trimtab.neurons import Neurons
from trimtab.ranking import CRITERIA, NEEDS, Choice, ClassMoments, Ranking, Statistic, TraceMeans
from trimtab.tasks.contrast import ContrastRow

_ARRAYS: Mapping[Statistic, int] = {"magnitude": 1, "square": 2, "contribution": 1}
"""How many arrays of per-trace values a statistic needs beside the means."""


@dataclass(frozen=True)
class Redrawn:
    """Rankings of the contrast under other choices of problems, traces or labels.

    Args:
        criteria: what can be asked of the recording.
        left_out: problems of the contrast that the bound on memory kept out.
    """

    search: Search
    means: TraceMeans
    criteria: tuple[str, ...]
    left_out: int

    @classmethod
    def load(cls, search: Search, criteria: Iterable[str]) -> "Redrawn":
        """Read the recording once, for those of the criteria whose moments were recorded."""
        possible = tuple(name for name in dict.fromkeys(criteria) if search.ranking(name) is not None)
        statistics = frozenset[Statistic]().union(*(NEEDS[name] for name in possible))
        row_bytes = 4 * search.class_moments.correct_mean.size * (1 + sum(_ARRAYS.get(s, 0) for s in statistics))
        bound = int(search.settings.stability.memory_gb * 1e9)
        rng = np.random.default_rng(search.settings.seed)
        rows = fitting(search.contrast, bound // row_bytes, rng)
        means = TraceMeans.load(search.recording.stream(search.scope), rows, statistics, bound)
        return cls(search, means, possible, len({row.problem_id for row in search.contrast}) - len(means.problems))

    @property
    def n_problems(self) -> int:
        return len(self.means.problems)

    @cached_property
    def whole(self) -> dict[str, Ranking]:
        """The ranking of the whole contrast, by criterion."""
        return next(self.rankings([Choice()]))

    def size(self, criterion: str) -> int:
        """K, or as many neurons as the criterion finds in the whole contrast."""
        return min(self.search.k, len(self.whole[criterion].order))

    def rankings(self, choices: Iterable[Choice], criteria: Collection[str] | None = None) -> Iterator[dict[str, Ranking]]:
        """The ranking of each choice, by criterion; all criteria unless some are given."""
        names = self.criteria if criteria is None else tuple(criteria)
        for moments in self.moments(choices, names):
            yield {name: CRITERIA[name](moments) for name in names}

    def moments(self, choices: Iterable[Choice], criteria: Iterable[str]) -> Iterator[ClassMoments]:
        """The moments of each choice."""
        statistics = frozenset[Statistic]().union(*(NEEDS[name] for name in criteria))
        columns = self.search.class_moments.column_norm
        for moments in self.means.resampled(choices, statistics):
            yield replace(moments, column_norm=columns)

    def neurons(self, choice: Choice) -> Neurons:
        """The set that the chosen criterion finds in a choice; smaller than K where it finds fewer."""
        moments = next(self.moments([choice], [self.search.criterion]))
        found = len(CRITERIA[self.search.criterion](moments).order)
        return self.search.neurons(self.search.criterion, min(self.search.k, found), moments)

    def some_problems(self, rng: np.random.Generator, *sizes: int) -> list[Choice]:
        """Disjoint random draws of equally many problems."""
        drawn = np.split(rng.permutation(self.n_problems), np.cumsum(sizes))[: len(sizes)]
        return [Choice(copies=np.isin(np.arange(self.n_problems), part).astype(np.int64)) for part in drawn]

    def bootstrap(self, rng: np.random.Generator) -> Choice:
        """As many problems drawn with replacement, each with all its traces."""
        copies = np.bincount(rng.integers(self.n_problems, size=self.n_problems), minlength=self.n_problems)
        return Choice(copies=copies.astype(np.int64))

    def shuffled(self, rng: np.random.Generator) -> Choice:
        """The labels permuted within each problem."""
        return Choice(correct=self.means.shuffled(rng))

    def only(self, trace_ids: Collection[str]) -> Choice:
        """Some of the traces."""
        return Choice(times=np.isin(self.means.trace_ids, list(trace_ids)).astype(np.int64))


def fitting(rows: Sequence[ContrastRow], traces: int, rng: np.random.Generator) -> list[ContrastRow]:
    """All rows if there is room for their traces, else those of whole problems drawn at random until the next does not fit."""
    if len(rows) <= traces:
        return list(rows)
    by_problem: dict[str, list[ContrastRow]] = {}
    for row in rows:
        by_problem.setdefault(row.problem_id, []).append(row)
    names = list(by_problem)
    kept: list[ContrastRow] = []
    for i in rng.permutation(len(names)).tolist():
        if len(kept) + len(by_problem[names[i]]) > traces:
            break
        kept += by_problem[names[i]]
    return kept


def shared(first: Ranking, second: Ranking, k: int) -> int:
    """How many neurons the k best of two rankings have in common."""
    return len(np.intersect1d(first.order[:k], second.order[:k], assume_unique=True))


def jaccard(first: Ranking, second: Ranking, k: int) -> float:
    """What the k best of two rankings share, over all that either has; 0 for two empty sets."""
    both = shared(first, second, k)
    either = min(k, len(first.order)) + min(k, len(second.order)) - both
    return both / either if either else 0.0


def middle(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean, and the ends of the central 95 % of random draws: their spread, not a confidence interval."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high)
