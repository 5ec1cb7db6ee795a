"""``sweep``: what K, strength, threshold, factor, scope and layers do to the gain, one at a time, on the validation split
alone."""

from trimtab.evaluation.pairing import paired
from trimtab.experiments.comparisons import gain_words
from trimtab.experiments.sweep_axes import Axis, Series, axes
from trimtab.experiments.sweep_tables import Measured, Rows, TuneAnswers, measure, sweep_figure, sweep_table
from trimtab.experiments.workbench import Workbench
from trimtab.results import Result
from trimtab.stats.values import PairedComparison
from trimtab.traces import Split


def sweep(bench: Workbench) -> Result:
    """Vary one setting at a time around the point that tune chose.

    The test split is never read, so nothing here may be used to choose again and be reported as if it had not been.
    """
    problems = bench.split(Split.VALIDATION)[: bench.settings.sweep.problems]
    answers = TuneAnswers(bench, problems)
    measured = [(axis, measure(axis, answers)) for axis in axes(bench)]
    findings = [optimism(answers)]
    if bench.class_moments.correct_magnitude is None:
        findings.append("Mean magnitudes were not recorded, so there is no ratio and its threshold is not swept.")
    return Result(
        name="sweep",
        title="Sweeps around the chosen point",
        question="How much does each setting matter, and does the chosen point stand on a plateau or on a peak?",
        findings=(*findings, *(finding(axis, rows) for axis, rows in measured)),
        split=Split.VALIDATION,
        tables=tuple(sweep_table(axis, rows, answers) for axis, rows in measured),
        figures=tuple(sweep_figure(axis, rows, answers) for axis, rows in measured),
    )


def optimism(answers: TuneAnswers) -> str:
    """What the chosen point gains where it was chosen, and on the problems of the split that had no say in it."""
    bench, n = answers.bench, len(answers.problems)
    outcomes = answers.under(bench.steering, bench.steering.gate.reads, "chosen point")
    used = min(bench.tune.problems, n)
    start = f"All figures are of {n} problems of the validation split, and the test split was not read."
    chosen_on = gain_words(paired(answers.base[:used], outcomes[:used]))
    if used == n:
        return f"{start} The point was chosen on these problems, so its gain is optimistic: {chosen_on}."
    held_out = gain_words(paired(answers.base[used:], outcomes[used:]))
    return (
        f"{start} The point was chosen on the first {used}, where choosing makes its gain optimistic: {chosen_on}; "
        f"on the other {n - used}, which had no say in it beyond the gate's threshold, {held_out}."
    )


def finding(axis: Axis, rows: Rows) -> str:
    """What every view came to, the first one in full."""
    parts = [_of_series(axis, series, measured, full=i == 0) for i, (series, measured) in enumerate(rows) if measured]
    return f"{axis.title[0].upper()}{axis.title[1:]}: {'; '.join(parts)}."


def _of_series(axis: Axis, series: Series, measured: list[Measured], full: bool) -> str:
    """Best and worst setting; ``full`` adds the published one and those that are as good as the chosen one."""
    if all(_holds_zero(m.gain) for m in measured):
        return f"{series.label}, no evidence of an effect at any of {len(measured)} settings"
    best, worst = (pick(measured, key=lambda m: m.gain.gain) for pick in (max, min))
    words = [f"{series.label}, best {_setting_words(best)}"]
    words += [f"worst {_setting_words(worst)}"] if worst is not best else []
    others = [m for m in measured if m.against is not None]
    if full and best in others:
        words += [_setting_words(m) for m in measured if m.against is None]
    if full:
        words += [f"published {_setting_words(m)}" for m in others if m.setting.x == axis.published]
    if len(others) < len(measured) and others:
        alike = [m.setting.label for m in others if m.against is not None and _holds_zero(m.against)]
        named = f" ({', '.join(alike)})" if alike else ""
        words.append(f"no evidence of a difference from the chosen point at {len(alike)} of {len(others)} others{named}")
    return ", ".join(words)


def _setting_words(m: Measured) -> str:
    return f"{m.setting.label}{' (chosen)' if m.against is None else ''} {gain_words(m.gain)}"


def _holds_zero(comparison: PairedComparison) -> bool:
    return comparison.gain_low <= 0 <= comparison.gain_high
