"""The contrast: the traces that are compared, correct against incorrect, within each problem."""

import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trimtab.errors import NotEnoughDataError
from trimtab.traces import Score, ScoredTrace, Trace


class RecurrenceSettings(BaseModel):
    """Does the class of a trace come back when the model goes on from the trace's beginning (arXiv 2604.02113)? Off by default.

    Args:
        traces: of the contrast that are continued, as many correct as incorrect; 0 for none.
        times: continuations a trace, at the temperature of the sampling.
        share: of a trace's tokens that are kept.
        keep: leave out of the contrast every trace of which a smaller share of the continuations has its class, and every trace
            that was not continued; 0 leaves out none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    traces: int = Field(default=0, ge=0)
    times: int = Field(default=4, ge=1)
    share: float = Field(default=0.5, gt=0.0, lt=1.0)
    keep: float = Field(default=0.0, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _keeps_what_is_continued(self) -> Self:
        if self.keep and not self.traces:
            raise ValueError(
                f"contrast.recurrence.keep {self.keep} chooses among traces that are continued, and traces is 0; set "
                "contrast.recurrence.traces"
            )
        return self


class ContrastSettings(BaseModel):
    """``balanced`` takes equal numbers of correct and incorrect traces per problem, at most ``per_class`` of each (0: no bound).

    ``require_quality`` keeps a correct trace only when its steps were right too. ``recurrence`` continues some of the traces.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    balanced: bool = True
    per_class: int = Field(default=0, ge=0)
    truncated: bool = False
    require_quality: bool = False
    seed: int = 0
    recurrence: RecurrenceSettings = RecurrenceSettings()


@dataclass(frozen=True, slots=True)
class ContrastRow:
    """One trace of the contrast."""

    trace_id: str
    problem_id: str
    correct: bool


@dataclass(frozen=True, slots=True)
class ContrastCounts:
    """Where the traces went; stands in the file beside the neurons.

    ``empty_left_out`` counts responses of one token: it was never forwarded, so there is nothing to record.
    """

    traces: int
    unscored: int
    truncated_left_out: int
    empty_left_out: int
    quality_left_out: int
    problems_one_sided: int
    problems: int
    correct: int
    incorrect: int

    def to_json(self) -> dict[str, object]:
        """Plain numbers."""
        return asdict(self)


def choose_contrast(
    traces: Iterable[Trace], grades: Iterable[ScoredTrace], settings: ContrastSettings
) -> tuple[list[ContrastRow], ContrastCounts]:
    """Traces of the problems that have both scores.

    Raises:
        NotEnoughDataError: no problem has both a correct and an incorrect trace.
    """
    by_id = {trace.id: trace for trace in traces}
    classes: dict[str, dict[bool, list[str]]] = {}
    unscored = truncated = empty = weak = total = 0
    for grade in grades:
        total += 1
        correct = grade.score is Score.CORRECT
        if grade.score is Score.UNSCORED:
            unscored += 1
        elif by_id[grade.trace_id].truncated and not settings.truncated:
            truncated += 1
        elif len(by_id[grade.trace_id].response_ids) < 2:
            empty += 1
        elif correct and settings.require_quality and not grade.quality:
            weak += 1
        else:
            classes.setdefault(grade.problem_id, {True: [], False: []})[correct].append(grade.trace_id)
    both = {problem: sides for problem, sides in classes.items() if sides[True] and sides[False]}
    if not both:
        n_correct = sum(len(sides[True]) for sides in classes.values())
        n_incorrect = sum(len(sides[False]) for sides in classes.values())
        raise NotEnoughDataError(
            f"no problem has both a correct and an incorrect trace ({n_correct} correct, {n_incorrect} incorrect over "
            f"{len(classes)} problems, {truncated} truncated, {empty} empty and {unscored} unscored left out); sample more "
            "traces per problem, at a higher temperature, or give problems of middling difficulty",
            code="nothing-to-contrast",
        )
    rows = [row for problem, sides in both.items() for row in _take(problem, sides, settings)]
    n_correct = sum(row.correct for row in rows)
    counts = ContrastCounts(
        total, unscored, truncated, empty, weak, len(classes) - len(both), len(both), n_correct, len(rows) - n_correct
    )
    return rows, counts


def _take(problem: str, sides: dict[bool, list[str]], settings: ContrastSettings) -> list[ContrastRow]:
    size = min(len(sides[True]), len(sides[False])) if settings.balanced else None
    if settings.per_class:
        size = min(settings.per_class, size or settings.per_class)
    rng = random.Random(f"{settings.seed}/{problem}")
    rows = []
    for correct in (True, False):
        ids = sorted(sides[correct])
        chosen = rng.sample(ids, min(size, len(ids))) if size is not None else ids
        rows += [ContrastRow(trace_id, problem, correct) for trace_id in sorted(chosen)]
    return rows
