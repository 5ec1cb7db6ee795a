"""The sentences under the table of conditions: each where it applies, and nowhere else."""

from dataclasses import replace

import pytest

from report_sample import make_report, with_responses
from trimtab.report import Report
from trimtab.report.wording import accuracy_intervals, disagreement_note, notes, p_note, responses_note, unscored_note


def _changed(report: Report, changes: dict[str, dict[str, object]]) -> Report:
    """The report with other fields in the rows of some conditions."""
    return report.model_copy(
        update={"conditions": tuple(replace(row, **changes.get(row.condition, {})) for row in report.conditions)}
    )


def test_one_response_a_problem_needs_one_note(report: Report) -> None:
    assert notes(report) == [
        "p: exact McNemar test, two-sided. p (Holm): corrected for the 3 conditions that are claims; controls are not."
    ]
    assert accuracy_intervals(report.conditions) == "95 % Wilson intervals"


def test_the_test_is_named_per_condition() -> None:
    responses = with_responses(make_report())
    assert p_note(responses).startswith(
        "p: exact McNemar test, two-sided; of Sampled responses (8 responses) sign-flip permutation test over problems. "
    )
    everywhere = _changed(responses, {row.condition: {"test": "permutation", "k": 8} for row in responses.conditions})
    assert p_note(everywhere).startswith("p: sign-flip permutation test over problems, two-sided. ")
    assert "bootstrapped over problems" in accuracy_intervals(responses.conditions)
    assert responses_note(responses).startswith("With k responses a problem accuracy is avg@k")


def test_another_way_of_sampling_is_named(report: Report) -> None:
    run = report.run.model_copy(update={"sampling": "padded batches, finished rows kept, since a state cannot be selected"})
    assert notes(report.model_copy(update={"run": run}))[-1] == (
        "How responses were generated: padded batches, finished rows kept, since a state cannot be selected."
    )


def test_one_claim_needs_no_correction(report: Report) -> None:
    assert p_note(report.model_copy(update={"conditions": report.conditions[:2]})) == "p: exact McNemar test, two-sided."


@pytest.mark.parametrize(("unscored", "named"), [(12, False), (13, True)])
def test_above_one_percent_unscored_an_condition_is_named(report: Report, unscored: int, named: bool) -> None:
    note = unscored_note(_changed(report, {"always": {"unscored": unscored}}))
    assert note == (
        "More than 1.0 % of the responses could not be scored, so there is no verdict: Steered always." if named else ""
    )


def test_the_share_is_of_all_chains(report: Report) -> None:
    assert unscored_note(_changed(report, {"always": {"unscored": 96, "k": 8}})) == ""
    assert "Steered always" in unscored_note(_changed(report, {"always": {"unscored": 97, "k": 8}}))


def test_without_the_base_there_is_no_verdict_at_all(report: Report) -> None:
    assert unscored_note(_changed(report, {"unsteered": {"unscored": 13}})).endswith("no condition has a verdict.")


def test_disagreements_are_counted_per_condition(report: Report) -> None:
    assert disagreement_note(report) == ""
    note = disagreement_note(_changed(report, {"always": {"disagreements": 3}, "unsteered": {"disagreements": 1}}))
    assert note == (
        "The math grader's second, textual check disagrees with its verdict on 4 responses: Unsteered 1, Steered always 3."
    )
