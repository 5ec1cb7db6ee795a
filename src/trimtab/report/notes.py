"""The sentences under a table: which test, which correction, and what its figures leave out."""

from trimtab.evaluation.names import UNSTEERED, is_claim
from trimtab.evaluation.rows import ArmSummary
from trimtab.report.data import Report
from trimtab.report.wording import arm_label, base_arm, count, percent
from trimtab.stats.values import UNSCORED_LIMIT, TestName

TESTS: dict[TestName, str] = {
    "McNemar": "exact McNemar test",
    "permutation": "sign-flip permutation test over problems",
}


def accuracy_intervals(report: Report) -> str:
    """What the intervals of the accuracies are."""
    several = any(row.k > 1 for row in report.arms)
    return "95 % intervals, Wilson's or, of several chains, bootstrapped over problems" if several else "95 % Wilson intervals"


def p_note(report: Report) -> str:
    """Which test gave the p of which arms, and how they were corrected."""
    compared = [row for row in report.arms if row.arm != UNSTEERED]
    several = [row for row in compared if row.test == "permutation"]
    if several and len(several) < len(compared):
        names = ", ".join(arm_label(report, row.arm) for row in several)
        test = f"{TESTS['McNemar']}, two-sided; of {names} {TESTS['permutation']}"
    else:
        test = f"{TESTS['permutation' if several else 'McNemar']}, two-sided"
    claims = sum(is_claim(row.arm) for row in report.arms)
    holm = f" p (Holm): corrected for the {claims} arms that are claims; controls are not." if claims > 1 else ""
    return f"p: {test}.{holm}"


def chains_note(report: Report) -> str:
    """What accuracy, fixed and broken mean with several chains; empty when each problem has one."""
    if all(row.k == 1 for row in report.arms):
        return ""
    return (
        "With k chains a problem accuracy is avg@k, the mean over problems of the share of correct chains; fixed and broken "
        "count pairs of chains with the same seed and sample."
    )


def unscored_note(report: Report) -> str:
    """Arms on which there is no verdict, because the grader failed too often; empty when there is none."""
    if _too_many(base_arm(report)):
        return f"More than {percent(UNSCORED_LIMIT)} of the unsteered chains could not be scored: no arm has a verdict."
    names = [arm_label(report, row.arm) for row in report.arms if _too_many(row)]
    if not names:
        return ""
    return f"More than {percent(UNSCORED_LIMIT)} of the chains could not be scored, so there is no verdict: {', '.join(names)}."


def disagreement_note(report: Report) -> str:
    """How often the two checks of the math grader disagree; empty when they never do."""
    total = sum(row.disagreements for row in report.arms)
    if not total:
        return ""
    arms = ", ".join(f"{arm_label(report, row.arm)} {count(row.disagreements)}" for row in report.arms if row.disagreements)
    return f"The math grader's second, textual check disagrees with its verdict on {count(total)} chains: {arms}."


def notes(report: Report) -> list[str]:
    """All sentences that apply to the table of arms, in reading order."""
    sentences = (p_note(report), chains_note(report), unscored_note(report), disagreement_note(report))
    return [sentence for sentence in sentences if sentence]


def _too_many(row: ArmSummary) -> bool:
    return row.unscored > UNSCORED_LIMIT * row.n * row.k
