"""Where failures come from: read by the report alone, after the verdict."""

from collections.abc import Iterable
from dataclasses import dataclass

from trimtab.testbed.chains import check_steps
from trimtab.testbed.problems import parse


@dataclass(frozen=True, slots=True)
class FailureSource:
    """``mode``, ``content`` or ``capacity`` for a failed problem; ``solved`` for the others."""

    problem_id: str
    source: str


def failure_sources(answers: Iterable[tuple[str, str, str, bool]]) -> list[FailureSource]:
    """Name the source of each failure from (problem id, question, unsteered response, correct)."""
    rows = []
    for problem_id, question, chain, solved in answers:
        # a wrong answer after right steps was lost in the answer itself: that is capacity too
        source = "solved" if solved else check_steps(parse(question), chain).source or "capacity"
        rows.append(FailureSource(problem_id, source))
    return rows
