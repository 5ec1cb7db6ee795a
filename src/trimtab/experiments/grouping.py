"""Problems in groups: by domain, or the easier and the harder half."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trimtab.experiments.workbench import Workbench
from trimtab.traces import Problem, Split

MIN_PROBLEMS = 5
"""A group of fewer problems in the contrast, or of fewer test problems, gets no set of its own and is not tested on."""
EASY, HARD = "easy", "hard"


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which group each problem belongs to, in every split.

    Args:
        of: the group by problem id; a problem outside every group is left out.
        names: the groups that are large enough, in the order in which they are shown.
        found_on: problems of each group in the contrast.
        left_out: groups that are too small, or beyond the number that the settings allow.
    """

    of: Mapping[str, str]
    names: tuple[str, ...]
    found_on: Mapping[str, int]
    left_out: tuple[str, ...] = ()

    def among(self, problems: Sequence[Problem], name: str) -> list[Problem]:
        """The problems of one group."""
        return [problem for problem in problems if self.of.get(problem.id) == name]


def by_domain(bench: Workbench) -> Grouping:
    """One group a domain; of more than ``settings.domains`` those with the most problems in the contrast."""
    grouping = _grouping(bench, {p.id: p.domain for p in _problems(bench) if p.domain})
    most = sorted(grouping.names, key=lambda name: -grouping.found_on[name])[: bench.settings.domains]
    beyond = tuple(name for name in grouping.names if name not in most)
    return Grouping(grouping.of, tuple(sorted(most)), grouping.found_on, (*grouping.left_out, *beyond))


def by_difficulty(bench: Workbench) -> Grouping:
    """The easier and the harder half: cut where it divides the problems of the contrast most evenly."""
    contrasted = {row.problem_id for row in bench.contrast}
    levels = sorted(p.difficulty for p in bench.split(Split.TRAIN) if p.id in contrasted)
    cuts = sorted(set(levels))[1:]
    if not cuts:
        return Grouping({}, (), {})
    cut = min(cuts, key=lambda level: abs(2 * sum(one < level for one in levels) - len(levels)))
    return _grouping(bench, {p.id: HARD if p.difficulty >= cut else EASY for p in _problems(bench)})


def _grouping(bench: Workbench, of: Mapping[str, str]) -> Grouping:
    found_on = Counter(of[problem_id] for problem_id in {row.problem_id for row in bench.contrast} if problem_id in of)
    tested_on = Counter(of[problem.id] for problem in bench.split(Split.TEST) if problem.id in of)
    everything = sorted(set(of.values()))
    names = tuple(name for name in everything if min(found_on[name], tested_on[name]) >= MIN_PROBLEMS)
    return Grouping(of, names, dict(found_on), tuple(name for name in everything if name not in names))


def _problems(bench: Workbench) -> list[Problem]:
    return [problem for problems in bench.problems.values() for problem in problems]
