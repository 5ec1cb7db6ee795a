"""Controls beside a verdict, from outcomes: the form of answers, the engine's noise, the beginning alone, the gate alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trimtab.evaluation.control_rows import (
    AnsweredGain,
    BeginningPart,
    Controls,
    CoveragePoint,
    Extraction,
    ExtractionRow,
    FirstToken,
    GateAlone,
    Noise,
)
from trimtab.evaluation.outcomes import Outcome, first_responses
from trimtab.evaluation.rows import AGAIN, ALWAYS, FIRST_TOKEN, GATED, RANDOM, RANDOM_NORM, UNSTEERED, place
from trimtab.evaluation.verdict import Clusters, ConditionVerdict, asked_too, judge, matched, paired
from trimtab.stats.estimates import mean_estimates, wilson
from trimtab.stats.paired import compare
from trimtab.stats.selective import aurc_estimate, best_aurc, rank_correlation, risk_coverage
from trimtab.stats.significance import sign_flip_p
from trimtab.stats.values import Estimate, PairedComparison
from trimtab.stats.verdict import percent, points
from trimtab.traces import Score

Reading = Literal["stated", "guessed", "missing", "truncated", "unscored"]
GUESSED = "read as the last number"
"""Marks a reason of the math grader where no answer was stated."""
POINTS = 100
"""Points of a coverage curve at most."""


def judged_with_controls(
    outcomes: Mapping[str, Sequence[Outcome]],
    condition: str,
    alpha: float = 0.05,
    first_tokens: int = 1,
    clusters: Clusters = MappingProxyType({}),
) -> tuple[ConditionVerdict, Controls]:
    """The verdict on a condition, and those controls that may qualify it, which its sentence then names.

    - No gain within the noise floor is called one (:func:`noise`).
    - A gain that is :func:`mostly_format` is named as that.
    - Where all or most of the gain comes of the beginning alone (:func:`first_token`), the sentence says so.

    Args:
        outcomes: by condition, the unsteered ones among them.
        condition: the one that is judged.
        alpha: two-sided level.
        first_tokens: how many tokens the condition ``first-token`` forced.
        clusters: of near-duplicate problems, see :func:`trimtab.evaluation.verdict.paired`.

    Raises:
        InputError: the conditions hold other problems.
    """
    base, judged = outcomes[UNSTEERED], outcomes[condition]
    found = Controls(
        extraction(outcomes, condition),
        noise(base, outcomes[AGAIN]) if AGAIN in outcomes else None,
        first_token(base, judged, outcomes[FIRST_TOKEN], first_tokens, alpha) if FIRST_TOKEN in outcomes else None,
    )
    verdict = judge(base, judged, alpha, found.noise.floor if found.noise else 0.0, clusters)
    gain, said = verdict.comparison.gain, []
    if found.noise and verdict.comparison.p <= alpha and 0 < abs(gain) <= found.noise.floor:
        said.append(f"The gain lies within the noise. {found.noise.sentence}")
    if found.extraction.mostly_format:
        said.append(found.extraction.sentence)
    if found.first_token and found.first_token.part in ("all", "most"):
        said.append(found.first_token.sentence)
    return replace(verdict, sentence=" ".join([verdict.sentence, *said])), found


def reading(outcome: Outcome) -> Reading:
    """How the grader came to the answer of a response. Without an answer that it read none was found, unless it is correct."""
    if outcome.unscored:
        return "unscored"
    if outcome.truncated:
        return "truncated"
    if not outcome.answer and not outcome.correct:
        return "missing"
    return "guessed" if GUESSED in outcome.reason else "stated"


def extraction(outcomes: Mapping[str, Sequence[Outcome]], condition: str) -> Extraction:
    """How answers were found under every condition, and whether the judged one's gain is one of form.

    Args:
        outcomes: by condition, the unsteered ones among them.
        condition: the one that is judged.
    """
    base = outcomes[UNSTEERED]
    rows = [_extraction_row(name, asked_too(base, rows), rows) for name, rows in outcomes.items() if not name.startswith(RANDOM)]
    for kind in (RANDOM, RANDOM_NORM):
        sets = [rows for name, rows in outcomes.items() if name.rpartition("-")[0] == kind]
        rows += [_counted(kind, sets)] if sets else []
    rows.sort(key=lambda row: place(row.condition))
    whole = paired(base, outcomes[condition])
    judged = next(row for row in rows if row.condition == condition)
    form = mostly_format(whole, judged.both)
    return Extraction(tuple(rows), form, _extraction_sentence(whole, rows[0], judged, form))


def mostly_format(whole: PairedComparison, both: AnsweredGain | None) -> bool:
    """Whether most of a gain (or loss) comes from finding an answer, and not from the answer found.

    It is when the interval of the whole gain leaves out 0, more than half of the gain comes from pairs in which not both
    conditions gave an answer, and the interval of the gain among the pairs in which both did includes 0 (or nobody did twice).

    Args:
        whole: the condition beside the base, all problems.
        both: the gain where both gave an answer.
    """
    if whole.gain_low <= 0 <= whole.gain_high or whole.gain == 0:
        return False
    if both is None:
        return True
    return both.low <= 0 <= both.high and (whole.gain - both.points) / whole.gain > 0.5


def _extraction_row(name: str, base: Sequence[Outcome], condition: Sequence[Outcome]) -> ExtractionRow:
    counted = _counted(name, [condition])
    if name == UNSTEERED:
        return counted
    return replace(counted, answered=paired(_answered(base), _answered(condition)), both=answered_gain(base, condition))


def _counted(name: str, sets: Sequence[Sequence[Outcome]]) -> ExtractionRow:
    """The counts alone, the mean over several sets."""
    kinds = Counter(reading(outcome) for rows in sets for outcome in rows)

    def mean(number: int) -> int:
        return round(number / len(sets))

    return ExtractionRow(
        condition=name,
        responses=mean(sum(map(len, sets))),
        stated=mean(kinds["stated"]),
        guessed=mean(kinds["guessed"]),
        missing=mean(kinds["missing"]),
        truncated=mean(kinds["truncated"]),
        unscored=mean(kinds["unscored"]),
        answered=None,
        both=None,
    )


def _answered(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Outcomes that are correct where the response held an answer; one that the grader failed on did."""
    return [replace(o, score=Score.INCORRECT if reading(o) in ("missing", "truncated") else Score.CORRECT) for o in outcomes]


def answered_gain(base: Sequence[Outcome], condition: Sequence[Outcome]) -> AnsweredGain | None:
    """The paired gain among pairs of responses in which both conditions gave an answer; None where there is no such pair.

    With one response a problem: exact McNemar and Newcombe's interval. With several: the mean over pairs, its interval
    bootstrapped over problems, and the sign-flip test of the problems' sums.

    Raises:
        InputError: the conditions hold other problems.
    """
    pairs = matched(base, condition)
    single = len(pairs) == len({before.problem_id for before, _ in pairs})
    both = [pair for pair in pairs if {reading(outcome) for outcome in pair} <= {"stated", "guessed"}]
    problems = [before.problem_id for before, _ in both]
    n = len(set(problems))
    if not both or (n < 2 and not single):
        return None
    before, after = (np.array([pair[side].correct for pair in both]) for side in (0, 1))
    difference = after.astype(np.int64) - before.astype(np.int64)
    shares, share = (float(before.mean()), float(after.mean())), float(difference.sum()) / len(pairs)
    if single:
        c = compare(before, after)
        return AnsweredGain(n, n, *shares, c.gain, c.gain_low, c.gain_high, c.p, share)
    (gain,) = mean_estimates(difference[:, None].astype(np.float64), problems)
    sums = np.bincount(np.unique(problems, return_inverse=True)[1], difference)
    return AnsweredGain(n, len(both), *shares, gain.value, gain.low, gain.high, sign_flip_p(sums), share)


def _extraction_sentence(whole: PairedComparison, base: ExtractionRow, judged: ExtractionRow, form: bool) -> str:
    without = [row.missing + row.truncated for row in (base, judged)]
    test = f", {_p(judged.answered.p)}" if judged.answered else ""
    found = (
        f"{_count(without[0])} of {_count(base.responses)} unsteered responses and {_count(without[1])} of "
        f"{_count(judged.responses)} under the condition held no answer, cut ones among them{test}"
    )
    lead = "The gain is mostly one of form: " if form and whole.gain > 0 else "The loss is mostly one of form: " if form else ""
    if judged.both is None:
        return f"{lead}{found}; to no problem did both give one."
    rest = whole.gain - judged.both.points
    both = f"where both gave one (n = {_count(judged.both.problems)}), the gain is {_gain(judged.both)}"
    share = f"; the other problems make up {points(rest)} of the whole {points(whole.gain)} points" if rest else ""
    return f"{lead}{found}; {both}{share}."


def noise(base: Sequence[Outcome], again: Sequence[Outcome]) -> Noise:
    """The unsteered model against itself, asked again in other batches (A/A): what its own rounding flips.

    Arithmetic of low precision depends on the shape of a batch, so a model may answer the same question in two ways. The floor is
    the end of the paired 95 % interval of this gain that is farther from 0: as much as rounding alone may have given.

    Args:
        base: the unsteered outcomes.
        again: those of the second time, on the same problems or on some of them.

    Raises:
        InputError: problems that the base lacks, or other responses.
    """
    before = asked_too(base, again)
    comparison = paired(before, again)
    pairs = matched(before, again)
    texts = sum(one.response != other.response for one, other in pairs)
    floor = max(abs(comparison.gain_low), abs(comparison.gain_high))
    flips = comparison.fixed + comparison.broken
    sentence = (
        f"Asked again in batches of another size, the unsteered model gave {_count(texts)} of {_count(len(pairs))} responses "
        f"another text and {_count(flips)} another score ({comparison.fixed} fixed, {comparison.broken} broken, "
        f"{_gain(comparison)}): no gain of {100 * floor:.1f} points or less is called one."
    )
    return Noise(comparison, texts, len(pairs), floor, sentence)


def first_token(
    base: Sequence[Outcome], judged: Sequence[Outcome], alone: Sequence[Outcome], tokens: int, alpha: float = 0.05
) -> FirstToken:
    """Whether the beginning that steering chose gains by itself, with the bare model writing on.

    Where both the judged condition and the beginning alone gain (p <= alpha each), the beginning is ``all`` of it unless the
    condition is shown to gain more than the beginning (p <= alpha), and else ``most`` or ``some`` of it by whether it gains at
    least half as much.

    Args:
        base, judged: unsteered and judged outcomes.
        alone: those of the beginning alone, on the same problems or on some of them.
        tokens: that were forced.
        alpha: two-sided level.

    Raises:
        InputError: problems that the others lack, or other responses.
    """
    before, steered = asked_too(base, alone), asked_too(judged, alone)
    gain, whole, beyond = paired(before, alone), paired(before, steered), paired(alone, steered)
    gains, helps, more = (c.p <= alpha and c.gain > 0 for c in (gain, whole, beyond))
    part: BeginningPart = "none"
    if helps and gains:
        part = "all" if not more else "most" if gain.gain >= whole.gain / 2 else "some"
    lead, forced = _beginning_lead(part, helps, gains, more), _tokens(tokens)
    sentence = (
        f"{lead}: with the first {forced} of its responses forced and the bare model writing on, accuracy {_change(gain)}; "
        f"under the whole steering it {_change(whole)} on the same n = {_count(whole.n)}"
        f"{f', {100 * beyond.gain:.1f} points more ({_p(beyond.p)})' if helps and more else ''}"
        f"{f', and more is not shown ({_p(beyond.p)})' if part == 'all' else ''}."
    )
    return FirstToken(tokens, gain, whole, beyond, part, sentence)


def _beginning_lead(part: BeginningPart, helps: bool, gains: bool, more: bool) -> str:
    if not helps:
        return "The beginning alone gains, the whole steering does not" if gains else "There is no gain to explain by a beginning"
    if part != "none":
        return {
            "all": "Steering may only choose a beginning",
            "most": "Most of the gain is the choice of a beginning",
            "some": "Less than half of the gain is the choice of a beginning",
        }[part]
    return "Steering is more than the choice of a beginning" if more else "No gain of the beginning alone is shown"


def gate_alone(outcomes: Mapping[str, Sequence[Outcome]], cutoff: float) -> GateAlone | None:
    """The gate without steering: abstain where it fires; and whether p(fail) says where steering helps.

    On the first response of each problem. The effect of steering is -1, 0 or 1: always steered minus unsteered. It goes up with
    p(fail) by arithmetic alone, since only what fails can be fixed, so the correlation is also given among the failures.

    Args:
        outcomes: by condition: unsteered, always, and gated ones, which hold p(fail).
        cutoff: the p(fail) from which the gate fires.

    Returns:
        None where no p(fail) was read, or fewer than two problems were asked.

    Raises:
        InputError: the conditions hold other problems.
    """
    read = {outcome.problem_id: outcome.p_fail for outcome in first_responses(outcomes[GATED])}
    pairs = matched(first_responses(outcomes[UNSTEERED]), first_responses(outcomes[ALWAYS]))
    if None in read.values() or len(pairs) < 2:
        return None
    p_fail = np.array([read[before.problem_id] for before, _ in pairs], np.float64)
    failed, steered_failed = (np.array([not pair[side].correct for pair in pairs]) for side in (0, 1))
    effect = failed.astype(np.int64) - steered_failed.astype(np.int64)
    n, n_failed = len(pairs), int(failed.sum())
    kept = ~failed[p_fail < cutoff]
    at = _coverage(int(kept.sum()), len(kept), n) if len(kept) else None
    area = aurc_estimate(failed, p_fail)
    whole = rank_correlation(p_fail, effect)
    among = rank_correlation(p_fail[failed], effect[failed]) if n_failed > 1 else None
    return GateAlone(
        n=n,
        n_failed=n_failed,
        at_threshold=at,
        aurc=area,
        random=n_failed / n,
        best=best_aurc(n, n_failed),
        correlation=whole,
        among_failed=among,
        curve=_coverage_curve(failed, p_fail),
        sentence=_gate_sentence(n_failed, n, at, area, whole, among),
    )


def _coverage_curve(failed: NDArray[np.bool_], p_fail: NDArray[np.float64]) -> tuple[CoveragePoint, ...]:
    n = len(failed)
    risk = risk_coverage(failed, p_fail).risk
    sizes = sorted({max(1, round(n * i / POINTS)) for i in range(1, POINTS + 1)})
    return tuple(_coverage((1 - float(risk[size - 1])) * size, size, n) for size in sizes)


def _coverage(right: float, answered: int, n: int) -> CoveragePoint:
    """A tie at the edge leaves a part of a problem right; the interval is that of the nearest whole number."""
    interval = wilson(round(right), answered)
    return CoveragePoint(answered / n, answered, right / answered, interval.low, interval.high)


def _gate_sentence(
    n_failed: int, n: int, at: CoveragePoint | None, area: Estimate, whole: Estimate | None, among: Estimate | None
) -> str:
    kept = (
        "It fires on every problem, so nothing would be answered"
        if at is None
        else f"Where it does not fire, on {percent(at.coverage)} of the problems, the unsteered model is right on "
        f"{percent(at.accuracy)} (95 % interval {percent(at.low)} to {percent(at.high)}), on all on {percent(1 - n_failed / n)}"
    )
    ranks = (
        f"area under risk and coverage {area.value:.3f} [{area.low:.3f}, {area.high:.3f}], in random order {n_failed / n:.3f}, "
        f"at best {best_aurc(n, n_failed):.3f}"
    )
    if whole is None:
        return f"{kept}; {ranks}. Steering has one effect on all problems, so p(fail) has no correlation with it."
    told = f"p(fail) goes with the effect of always steering by Spearman's {_estimate(whole)}"
    shown = among is not None and not among.low <= 0 <= among.high
    inside = (
        f"; among the {_count(n_failed)} failures, of which it would have to say which steering fixes, by {_estimate(among)}"
        f"{'' if shown else ', which shows nothing'}"
        if among is not None
        else ""
    )
    return f"{kept}; {ranks}. {told}{inside}."


def _change(c: PairedComparison) -> str:
    return f"changes by {_gain(c)}"


def _gain(c: PairedComparison | AnsweredGain) -> str:
    low, high = (c.low, c.high) if isinstance(c, AnsweredGain) else (c.gain_low, c.gain_high)
    return f"{points(c.gain)} points [{points(low)}, {points(high)}]"


def _estimate(value: Estimate) -> str:
    return f"{value.value:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"


def _p(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def _count(n: int) -> str:
    return f"{n:,}"


def _tokens(n: int) -> str:
    return f"{n} token" if n == 1 else f"{n} tokens"
