"""The report of a run: bounds, groups, several responses, and a finished artifact."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.rows import GATED, UNSTEERED
from trimtab.evaluation.summary import break_down, summarise
from trimtab.evaluation.verdict import judge
from trimtab.report import Report, read_report
from trimtab.sampling.ways import Way
from trimtab.study import Study
from trimtab.study.demo_json import demo_json
from trimtab.study.report_data import build_report
from trimtab.traces import Score

Change = Callable[[str, Sequence[Outcome]], list[Outcome]]


def _report(study: Study, change: Change | None = None) -> Report:
    """The report of the finished run, or of the same run with other outcomes."""
    evaluation, tuning = study.evaluate(), study.tuned()
    if change is not None:
        outcomes = {name: change(name, rows) for name, rows in evaluation.outcomes.items()}
        alpha = study.settings.evaluation.alpha
        verdict = judge(outcomes[UNSTEERED], outcomes[evaluation.condition], alpha)
        evaluation = replace(evaluation, outcomes=outcomes, rows=summarise(outcomes, alpha), verdict=verdict)
    return build_report(study, evaluation, tuning)


def test_the_verdict_is_taken_apart_by_group(study: Study) -> None:
    report, outcomes = _report(study), study.evaluate().outcomes
    tables = break_down(outcomes[UNSTEERED], outcomes[GATED])
    assert report.breakdowns == tables
    assert [table.by for table in report.breakdowns] == ["domain", "difficulty"]
    for table in report.breakdowns:
        assert sum(row.comparison.n for row in table.rows) == 40
    assert report.verdict.bounds is None


def test_unscored_problems_have_bounds(study: Study) -> None:
    def spoil(name: str, rows: Sequence[Outcome]) -> list[Outcome]:
        return [replace(row, score=Score.UNSCORED) if name == GATED and i < 2 else row for i, row in enumerate(rows)]

    report = _report(study, spoil)
    bounds = report.verdict.bounds
    assert bounds is not None
    assert report.verdict.word == "no verdict"
    assert bounds.condition_high - bounds.condition_low == pytest.approx(2 / 40)
    assert bounds.gain_high - bounds.gain_low == pytest.approx(2 / 40)
    assert (bounds.base_low, bounds.base_high) == (report.conditions[0].accuracy,) * 2
    assert next(row.unscored for row in report.conditions if row.condition == GATED) == 2


def test_several_responses_count_a_problem_once(study: Study) -> None:
    once = _report(study)

    def twice(name: str, rows: Sequence[Outcome]) -> list[Outcome]:
        return [replace(row, sample=sample) for row in rows for sample in (0, 1)]

    report = _report(study, twice)
    assert report.verdict.n == 40
    assert {row.k for row in report.conditions} == {2}
    assert {row.test for row in report.conditions} == {"permutation"}
    assert [row.accuracy for row in report.conditions] == pytest.approx([row.accuracy for row in once.conditions])
    assert report.gate is not None
    assert once.gate is not None
    assert (report.gate.assessment.n, report.gate.assessment.auroc) == (40, once.gate.assessment.auroc)
    assert [example.problem_id for example in report.examples] == [example.problem_id for example in once.examples]
    assert sum(sum(group.values()) for group in report.flips.by_domain.values()) == 80
    demo_json(report, 0.0)


def test_a_gate_with_one_class_is_not_assessed(study: Study) -> None:
    def fail(name: str, rows: Sequence[Outcome]) -> list[Outcome]:
        return [replace(row, score=Score.INCORRECT) for row in rows]

    report = _report(study, fail)
    assert report.gate is None
    assert report.verdict.word == "no evidence"


def test_a_finished_artifact_has_no_tuning_and_no_text_baseline(study: Study) -> None:
    found = _report(study)
    report = build_report(study, study.evaluate(), None)
    assert (report.tune, report.criteria) == (None, ())
    assert report.gate is not None
    assert found.gate is not None
    alone, beside = report.gate.assessment, found.gate.assessment
    assert (alone.text_auroc, alone.difference, alone.text_brier) == (None, None, None)
    assert (alone.auroc, alone.brier, alone.roc) == (beside.auroc, beside.brier, beside.roc)
    for name in ("criterion", "intervention", "k", "share", "strength", "scope", "layer_counts"):
        assert getattr(report.neurons, name) == getattr(found.neurons, name), name
    assert report.conditions == found.conditions


def test_the_report_of_a_notebook_goes_where_it_is_told(study: Study, tmp_path: Path) -> None:
    assert study.report(tmp_path / "mine.html") == tmp_path / "mine.html"
    assert read_report(tmp_path / "mine.json").verdict.n == 40


def test_the_report_says_how_rows_were_sampled_where_the_usual_way_is_not_proved(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _report(study).run.sampling == ""
    way = Way(grouped=False, drops=False, reason="a state cannot be selected")
    monkeypatch.setattr("trimtab.study.report_data.way_of", lambda _: way)
    assert _report(study).run.sampling == "padded batches, finished rows kept, since a state cannot be selected"
