"""How a report says a number, names a condition and explains a table: the same on pages, in figures and in the terminal."""

import re
from collections.abc import Callable, Mapping, Sequence

from trimtab.evaluation.rows import (
    ADARAS,
    AGAIN,
    ALWAYS,
    BOTH_GATES,
    DIRECTION,
    FIRST_TOKEN,
    GATED,
    MAJORITY,
    MAJORITY_EQUAL_COST,
    NEGATIVE,
    PROMPT_ONLY,
    RANDOM,
    RANDOM_NORM,
    RUNNING,
    RUNNING_RANDOM,
    SAMPLED,
    SFT_LORA,
    TRAINED,
    UNSTEERED,
    ConditionSummary,
    is_claim,
)
from trimtab.findings import Cell, Unit
from trimtab.report.data import FlipKind, FlipTable, Report
from trimtab.stats.values import UNSCORED_LIMIT, PairedComparison, TestName

MINUS = "\u2212"
DASH = "\u2013"
TESTS: dict[TestName, str] = {
    "McNemar": "exact McNemar test",
    "permutation": "sign-flip permutation test over problems",
}
FLIP_KINDS: tuple[FlipKind, ...] = ("fixed", "broken", "still wrong", "still right")

_CONDITION_LABELS = {
    UNSTEERED: "Unsteered",
    ALWAYS: "Steered always",
    GATED: "Steered when the gate fires",
    AGAIN: "Unsteered again (A/A)",
    FIRST_TOKEN: "Beginning alone",
    NEGATIVE: "Negative strength",
    ADARAS: "AdaRAS criterion",
    PROMPT_ONLY: "Prompt only",
    SFT_LORA: "Fine-tuned (LoRA)",
    DIRECTION: "Direction (mean difference)",
    TRAINED: "Trained values",
    RUNNING: "Steered by the running gate",
    BOTH_GATES: "Both gates",
    RUNNING_RANDOM: "Running gate, tokens at random",
    SAMPLED: "Sampled responses",
    MAJORITY: "Majority vote",
    MAJORITY_EQUAL_COST: "Majority vote, equal tokens",
    RANDOM: "Random neurons",
    RANDOM_NORM: "Random, same norm",
}


def percent(share: float) -> str:
    """A fraction as percent with one decimal.

    Example:
        >>> percent(0.63249)
        '63.2 %'
    """
    return f"{100 * share:.1f} %"


def percent_interval(low: float, high: float) -> str:
    """The two ends in percent, without the sign.

    Example:
        >>> percent_interval(0.6053, 0.65871)
        '[60.5, 65.9]'
    """
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def points(gain: float) -> str:
    """A difference of two fractions in percentage points, signed unless it rounds to 0.

    Example:
        >>> points(0.353), points(-0.0004)
        ('+35.3', '0.0')
    """
    text = f"{100 * gain:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def points_interval(low: float, high: float) -> str:
    """The two ends in percentage points.

    Example:
        >>> points_interval(0.331, 0.3749)
        '[+33.1, +37.5]'
    """
    return f"[{points(low)}, {points(high)}]"


def detectable(gain: float | None) -> str:
    """The smallest gain that n problems find, in percentage points; "none" where they could find no gain of any size.

    Example:
        >>> detectable(0.0479), detectable(None)
        ('4.8', 'none')
    """
    return "none" if gain is None else f"{100 * gain:.1f}"


def p_value(p: float) -> str:
    """Two significant digits.

    Example:
        >>> p_value(0.03456), p_value(0.25), p_value(0.0009)
        ('0.035', '0.25', '< 0.001')
    """
    if p < 0.001:
        return "< 0.001"
    # the exponent after rounding, which may carry: 0.0999 is 0.10
    exponent = int(f"{p:.1e}".partition("e")[2])
    return f"{p:.{1 - exponent}f}"


def count(number: float) -> str:
    """A count with thousands separated, or a mean: one decimal below 100, none above.

    Example:
        >>> count(1200), count(31.44), count(1234.5)
        ('1,200', '31.4', '1,234')
    """
    return f"{number:,.1f}" if isinstance(number, float) and abs(number) < 100 else f"{number:,.0f}"


def fixed_broken(row: ConditionSummary | PairedComparison) -> str:
    """Fixed and broken pairs of responses; a dash where the two conditions have no response with the same seed and sample."""
    return f"{count(row.fixed)} / {count(row.broken)}" if row.pairs else DASH


def significant(number: float) -> str:
    """Three significant digits, for activations and scores.

    Example:
        >>> significant(0.6), significant(123.0)
        ('0.600', '123')
    """
    return f"{number:#.3g}".rstrip(".").replace("-", MINUS)


def cell(value: Cell, unit: Unit) -> str:
    """A cell of a table in its unit; a dash where there is no value.

    Example:
        >>> cell(0.198, "points"), cell(0.66, "share"), cell(None, "count")
        ('+19.8', '66.0 %', '–')
    """
    if value is None:
        return DASH
    if isinstance(value, str):
        return value
    return _UNITS[unit](value)


def duration(seconds: float) -> str:
    """Seconds below a minute, else minutes, else hours.

    Example:
        >>> duration(4.21), duration(95), duration(7500)
        ('4.2 s', '1 min 35 s', '2 h 5 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def tight(sentence: str) -> str:
    """A sentence whose numbers stay on the line of their sign, unit or name.

    Example:
        >>> tight("p < 0.01, n = 9, 5 %")
        'p\\xa0<\\xa00.01, n\\xa0=\\xa09, 5\\xa0%'
    """
    return re.sub(r"(?<=\b[pn]) (?=[<=])|(?<=[<=]) (?=\d)|(?<=\d) (?=%)", "\u00a0", sentence)


_UNITS: dict[Unit, Callable[[float], str]] = {
    "text": str,
    "count": count,
    "share": percent,
    "points": points,
    "number": significant,
}


def condition_name(rows: Sequence[ConditionSummary], random_gains: Mapping[str, Sequence[float]], condition: str) -> str:
    """The reader's name of a condition, with how many sets, responses or problems it stands for where these are other numbers
    than those of the table; one without a name keeps its own."""
    name = _CONDITION_LABELS.get(condition, condition)
    n = next((row.n for row in rows if row.condition == condition), 0)
    if 0 < n < max(row.n for row in rows):
        return f"{name} ({count(n)} problems)"
    sets = len(random_gains.get(condition, ()))
    responses = next((row.k for row in rows if row.condition == SAMPLED), 0)
    if sets:
        return f"{name} ({sets} sets)"
    return f"{name} ({responses} responses)" if responses and condition in (SAMPLED, MAJORITY) else name


def condition_label(report: Report, condition: str) -> str:
    """:func:`condition_name` within a report."""
    return condition_name(report.conditions, report.random_gains, condition)


def base_condition(report: Report) -> ConditionSummary:
    """The unsteered model: the first row."""
    return report.conditions[0]


def is_random(report: Report, condition: str) -> bool:
    """Whether a row folds several random sets into one."""
    return condition in report.random_gains


def ordered_groups(table: FlipTable) -> list[str]:
    """Groups in reading order, which JSON does not keep: numbers by value, then names by letter."""

    def key(group: str) -> tuple[bool, float, str]:
        numeric = group.isdecimal()
        return (not numeric, float(group) if numeric else 0.0, group)

    return sorted(table, key=key)


def flip_counts(table: FlipTable, group: str) -> dict[FlipKind, int]:
    """All four counts of a group, 0 where a kind was left out."""
    return {kind: table[group].get(kind, 0) for kind in FLIP_KINDS}


def random_spread(report: Report) -> list[tuple[str, int, float, float, float]]:
    """Per kind of random set: name, number of sets, and the lowest, mean and highest gain."""
    return [
        (kind, len(gains), min(gains), sum(gains) / len(gains), max(gains))
        for kind, gains in sorted(report.random_gains.items())
        if gains
    ]


def accuracy_intervals(rows: Sequence[ConditionSummary]) -> str:
    """The kind of the intervals of the accuracies."""
    several = any(row.k > 1 for row in rows)
    return "95 % intervals, Wilson's or, of several responses, bootstrapped over problems" if several else "95 % Wilson intervals"


def p_note(report: Report) -> str:
    """Which test gave the p of which conditions, and how they were corrected."""
    compared = [row for row in report.conditions if row.condition != UNSTEERED]
    several = [row for row in compared if row.test == "permutation"]
    if several and len(several) < len(compared):
        names = ", ".join(condition_label(report, row.condition) for row in several)
        test = f"{TESTS['McNemar']}, two-sided; of {names} {TESTS['permutation']}"
    else:
        test = f"{TESTS['permutation' if several else 'McNemar']}, two-sided"
    claims = sum(is_claim(row.condition) for row in report.conditions)
    holm = f" p (Holm): corrected for the {claims} conditions that are claims; controls are not." if claims > 1 else ""
    return f"p: {test}.{holm}"


def responses_note(report: Report) -> str:
    """What accuracy, fixed and broken mean with several responses; empty when each problem has one."""
    if all(row.k == 1 for row in report.conditions):
        return ""
    return (
        "With k responses a problem accuracy is avg@k, the mean over problems of the share of correct responses; fixed and "
        "broken count pairs of responses with the same seed and sample."
    )


def unscored_note(report: Report) -> str:
    """Conditions on which there is no verdict, because the grader failed too often; empty when there is none."""
    if _too_many(base_condition(report)):
        return f"More than {percent(UNSCORED_LIMIT)} of the unsteered responses could not be scored: no condition has a verdict."
    names = [condition_label(report, row.condition) for row in report.conditions if _too_many(row)]
    if not names:
        return ""
    return (
        f"More than {percent(UNSCORED_LIMIT)} of the responses could not be scored, so there is no verdict: {', '.join(names)}."
    )


def disagreement_note(report: Report) -> str:
    """How often the two checks of the math grader disagree; empty when they never do."""
    total = sum(row.disagreements for row in report.conditions)
    if not total:
        return ""
    conditions = ", ".join(
        f"{condition_label(report, row.condition)} {count(row.disagreements)}" for row in report.conditions if row.disagreements
    )
    return f"The math grader's second, textual check disagrees with its verdict on {count(total)} responses: {conditions}."


def notes(report: Report) -> list[str]:
    """All sentences that apply to the table of conditions, in reading order."""
    sentences = (
        p_note(report),
        responses_note(report),
        unscored_note(report),
        disagreement_note(report),
        sampling_note(report),
    )
    return [sentence for sentence in sentences if sentence]


def sampling_note(report: Report) -> str:
    """How responses were generated, where that is not the usual way; empty where it is."""
    return f"How responses were generated: {report.run.sampling}." if report.run.sampling else ""


def _too_many(row: ConditionSummary) -> bool:
    return row.unscored > UNSCORED_LIMIT * row.n * row.k
