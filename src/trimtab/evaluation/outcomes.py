"""Outcomes: what each problem came to under each arm."""

from dataclasses import dataclass

from trimtab.traces import Verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """One problem under one arm. ``p_fail`` and ``fired`` are the gate's, None where the arm reads no gate."""

    arm: str
    problem_id: str
    domain: str
    difficulty: int
    verdict: Verdict
    reason: str
    answer: str
    response: str
    tokens: int
    truncated: bool
    steps_right: bool | None = None
    p_fail: float | None = None
    fired: bool | None = None

    @property
    def correct(self) -> bool:
        return self.verdict is Verdict.CORRECT
