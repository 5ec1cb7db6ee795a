"""Does the class of a trace come back when the model goes on from the trace's beginning? A share, and a filter of the contrast.

A contrast names each trace by its answer. Where the class of a trace comes back from its first half, that half already holds what
makes the difference; where it does not, the label says more of luck than of the trace (arXiv 2604.02113).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trimtab.evaluation.control_rows import Recurrence
from trimtab.sampling import read_traces
from trimtab.sampling.continuation import continuations_job, whole_traces
from trimtab.stats.estimates import mean_estimates
from trimtab.stats.values import Estimate
from trimtab.stats.verdict import percent
from trimtab.store import AnyPath, Entry, digest_of, read_table, write_table
from trimtab.study.values import Traces
from trimtab.tasks import grade_traces
from trimtab.tasks.contrast import ContrastRow, RecurrenceSettings
from trimtab.traces import Score, Trace

if TYPE_CHECKING:
    from trimtab.study.study import Study

CONTINUED = "continued.parquet"


@dataclass(frozen=True, slots=True)
class Continued:
    """A trace of the contrast and its continuations: ``again`` of ``scored`` continuations have its class."""

    trace_id: str
    problem_id: str
    correct: bool
    again: int
    scored: int

    @property
    def share(self) -> float:
        return self.again / self.scored


def continued(study: "Study", rows: Sequence[ContrastRow], found: Traces, contrast: Entry) -> tuple[list[Continued], Entry]:
    """Continue some traces of a contrast and grade the continuations; a trace of which nothing was scored is left out.

    Args:
        study: whose model, sampling and grader are used.
        rows: the contrast.
        found: its traces, among others.
        contrast: its entry.

    Raises:
        InputError: ``sampling.temperature`` is 0.
    """
    settings, sampling = study.settings.contrast.recurrence, study.settings.sampling
    facts = {
        "contrast": contrast.name,
        "settings": settings.model_dump(mode="json", exclude={"keep"}),
        "sampling": sampling.model_dump(mode="json"),
        **study.grader_facts,
    }
    entry = study.entry("recur", {**facts, **study.engine_facts()})

    def work(folder: AnyPath) -> None:
        by_id = {trace.id: trace for trace in found.traces}
        begun = [by_id[row.trace_id] for row in chosen(rows, settings)]
        job = continuations_job(study.model, begun, settings.share, settings.times, sampling, folder, generator=study.generator)
        study.run([job])
        whole = whole_traces(study.model, begun, read_traces(folder, list(job.requests)), sampling.max_new_tokens)
        scores = grade_traces([trace for _, trace in whole], found.problems, study.grader)
        classes = {row.trace_id: row.correct for row in rows}
        pairs = [(origin, score.score) for (origin, _), score in zip(whole, scores, strict=True)]
        write_table(folder / CONTINUED, _counted(begun, pairs, classes), Continued)

    return study.compute("recur", entry, work, lambda folder: read_table(folder / CONTINUED, Continued)), entry


def chosen(rows: Sequence[ContrastRow], settings: RecurrenceSettings) -> list[ContrastRow]:
    """Pairs of a correct and an incorrect trace of one problem, one pair of each problem first; in an order given by the ids."""
    sides: dict[str, dict[bool, list[ContrastRow]]] = {}
    for row in sorted(rows, key=lambda row: digest_of(row.trace_id)):
        sides.setdefault(row.problem_id, {True: [], False: []})[row.correct].append(row)
    pairs = [
        (number, pair)
        for problem in sorted(sides, key=digest_of)
        for number, pair in enumerate(zip(sides[problem][True], sides[problem][False], strict=False))
    ]
    pairs.sort(key=lambda numbered: numbered[0])
    return [row for _, pair in pairs[: settings.traces // 2] for row in pair]


def _counted(begun: Sequence[Trace], scores: Sequence[tuple[Trace, Score]], classes: dict[str, bool]) -> list[Continued]:
    wanted = {trace.id: Score.CORRECT if classes[trace.id] else Score.INCORRECT for trace in begun}
    again, scored = Counter[str](), Counter[str]()
    for origin, score in scores:
        if score is not Score.UNSCORED:
            scored[origin.id] += 1
            again[origin.id] += score is wanted[origin.id]
    return [
        Continued(trace.id, trace.problem_id, classes[trace.id], again[trace.id], scored[trace.id])
        for trace in begun
        if scored[trace.id]
    ]


def kept(rows: Sequence[Continued], keep: float) -> set[str]:
    """The traces whose class comes back in that share of their continuations or more."""
    return {row.trace_id for row in rows if row.share >= keep}


def summarised(rows: Sequence[Continued], settings: RecurrenceSettings) -> Recurrence:
    """The shares with their intervals over problems, and a sentence."""
    sides = [[row for row in rows if row.correct is correct] for correct in (True, False)]
    correct, incorrect = (_mean([row.share for row in side], [row.problem_id for row in side]) for side in sides)
    after: dict[str, dict[bool, list[float]]] = {}
    for row in rows:
        right = row.share if row.correct else 1 - row.share
        after.setdefault(row.problem_id, {True: [], False: []})[row.correct].append(right)
    # a problem weighs as many pairs as it has, so that the difference is that of the two shares
    pairs = [
        (problem, float(np.mean(side[True]) - np.mean(side[False])))
        for problem, side in after.items()
        for _ in range(min(len(side[True]), len(side[False])))
    ]
    difference = _mean([value for _, value in pairs], [problem for problem, _ in pairs])
    counts = (len(rows), len(after), len(sides[0]), len(sides[1]))
    return Recurrence(
        traces=len(rows),
        problems=len(after),
        share=settings.share,
        times=settings.times,
        correct=correct,
        incorrect=incorrect,
        difference=difference,
        keep=settings.keep,
        left_out=len(rows) - len(kept(rows, settings.keep)) if settings.keep else 0,
        sentence=_sentence(settings, counts, correct, incorrect, difference),
    )


def _mean(values: Sequence[float], problems: Sequence[str]) -> Estimate | None:
    return mean_estimates(np.array(values)[:, None], problems)[0] if len(set(problems)) > 1 else None


def _sentence(
    settings: RecurrenceSettings,
    counts: tuple[int, int, int, int],
    correct: Estimate | None,
    incorrect: Estimate | None,
    difference: Estimate | None,
) -> str:
    _, problems, n_correct, n_incorrect = counts
    if correct is None or incorrect is None or difference is None:
        return f"Traces of {problems} problem{'s' if problems != 1 else ''} were continued, too few to say what comes back."
    more, low, high = (f"{100 * end:.1f}" for end in (difference.value, difference.low, difference.high))
    shown = "so" if difference.low > 0 else "which does not show that"
    return (
        f"Continued {settings.times} times from {percent(settings.share)} of its tokens, a trace's class came back in "
        f"{_percent(correct)} of the continuations of {n_correct:,} correct traces and in {_percent(incorrect)} of those of "
        f"{n_incorrect:,} incorrect ones. A continuation is correct {more} points [{low}, {high}] more often after a "
        "correct trace's beginning than after an incorrect one's of the same "
        f"problem ({problems:,} problems), {shown} the beginnings already differ."
    )


def _percent(value: Estimate) -> str:
    return f"{percent(value.value)} [{100 * value.low:.1f}, {100 * value.high:.1f}]"
