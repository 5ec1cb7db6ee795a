"""The sentences under a table: which test, which correction, and what its figures leave out."""

from trimtab.evaluation.names import UNSTEERED, is_claim
from trimtab.evaluation.rows import ConditionSummary
from trimtab.report.data import Report
from trimtab.report.wording import base_condition, condition_label, count, percent
from trimtab.stats.values import UNSCORED_LIMIT, TestName

TESTS: dict[TestName, str] = {
    "McNemar": "exact McNemar test",
    "permutation": "sign-flip permutation test over problems",
}


def accuracy_intervals(report: Report) -> str:
    """What the intervals of the accuracies are."""
    several = any(row.k > 1 for row in report.conditions)
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


def chains_note(report: Report) -> str:
    """What accuracy, fixed and broken mean with several responses; empty when each problem has one."""
    if all(row.k == 1 for row in report.conditions):
        return ""
    return (
        "With k chains a problem accuracy is avg@k, the mean over problems of the share of correct responses; fixed and broken "
        "count pairs of responses with the same seed and sample."
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
    return f"The math grader's second, textual check disagrees with its verdict on {count(total)} chains: {conditions}."


def notes(report: Report) -> list[str]:
    """All sentences that apply to the table of conditions, in reading order."""
    sentences = (p_note(report), chains_note(report), unscored_note(report), disagreement_note(report))
    return [sentence for sentence in sentences if sentence]


def _too_many(row: ConditionSummary) -> bool:
    return row.unscored > UNSCORED_LIMIT * row.n * row.k
