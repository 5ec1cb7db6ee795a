"""The report of a run: bounds, groups, several responses, and a finished artifact."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from trimtab.pipeline import Line, RunConfig
from trimtab.pipeline.demo_json import demo_json
from trimtab.pipeline.reporting import build_report

from trimtab.evaluation.breakdown import break_down
from trimtab.evaluation.names import GATED, UNSTEERED
from trimtab.evaluation.outcomes import Outcome
from trimtab.steering import Steering
from trimtab.store import RunDirectory
from trimtab.traces import Verdict

Change = Callable[[str, Sequence[Outcome]], list[Outcome]]


@pytest.fixture
def line(finished: Path, config: RunConfig) -> Line:
    return Line(config, RunDirectory.open(finished))


def _changed(line: Line, monkeypatch: pytest.MonkeyPatch, change: Change) -> Line:
    """The same run with other outcomes."""
    outcomes = {name: change(name, rows) for name, rows in line.outcomes().items()}
    monkeypatch.setattr(line, "outcomes", lambda: outcomes)
    return line


def test_the_verdict_is_taken_apart_by_group(line: Line) -> None:
    report, outcomes = build_report(line), line.outcomes()
    tables = break_down(outcomes[UNSTEERED], outcomes[GATED])
    assert [table.model_dump() for table in report.breakdowns] == [asdict(table) for table in tables]
    assert [table.by for table in report.breakdowns] == ["domain", "difficulty"]
    for table in report.breakdowns:
        assert sum(row.comparison.n for row in table.rows) == 40
    assert report.verdict.bounds is None


def test_unscored_problems_have_bounds(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(name: str, rows: Sequence[Outcome]) -> list[Outcome]:
        return [replace(row, verdict=Verdict.UNSCORED) if name == GATED and i < 2 else row for i, row in enumerate(rows)]

    report = build_report(_changed(line, monkeypatch, spoil))
    bounds = report.verdict.bounds
    assert bounds is not None
    assert report.verdict.word == "no verdict"
    assert bounds.condition_high - bounds.condition_low == pytest.approx(2 / 40)
    assert bounds.gain_high - bounds.gain_low == pytest.approx(2 / 40)
    assert (bounds.base_low, bounds.base_high) == (report.conditions[0].accuracy,) * 2
    assert next(row.unscored for row in report.conditions if row.condition == GATED) == 2


def test_several_chains_count_a_problem_once(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    once = build_report(line)

    def twice(name: str, rows: Sequence[Outcome]) -> list[Outcome]:
        return [replace(row, sample=sample) for row in rows for sample in (0, 1)]

    report = build_report(_changed(line, monkeypatch, twice))
    assert report.verdict.n == 40
    assert {row.k for row in report.conditions} == {2}
    assert {row.test for row in report.conditions} == {"permutation"}
    assert [row.accuracy for row in report.conditions] == pytest.approx([row.accuracy for row in once.conditions])
    assert report.gate is not None
    assert once.gate is not None
    assert (report.gate.assessment.n, report.gate.assessment.auroc) == (40, once.gate.assessment.auroc)
    assert [example.problem_id for example in report.examples] == [example.problem_id for example in once.examples]
    assert sum(sum(group.values()) for group in report.flips.model_dump()["by_domain"].values()) == 80
    demo_json(report, 0.0)


def test_a_gate_with_one_class_is_not_assessed(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, rows: Sequence[Outcome]) -> list[Outcome]:
        return [replace(row, verdict=Verdict.INCORRECT) for row in rows]

    report = build_report(_changed(line, monkeypatch, fail))
    assert report.gate is None
    assert report.verdict.word == "no evidence"


def test_a_finished_artifact_has_no_tuning_and_no_text_baseline(finished: Path, config: RunConfig, line: Line) -> None:
    folder = finished / "steering"
    artifact = {"source": str(folder), "digest": Steering.from_pretrained(folder).digest}
    settings = config.model_validate({**config.model_dump(mode="json"), "artifact": artifact})
    report, found = build_report(Line(settings, RunDirectory.open(finished))), build_report(line)
    assert (report.tune, report.criteria) == (None, ())
    assert report.gate is not None
    assert found.gate is not None
    alone, beside = report.gate.assessment, found.gate.assessment
    assert (alone.text_auroc, alone.difference, alone.text_brier) == (None, None, None)
    assert (alone.auroc, alone.brier, alone.roc) == (beside.auroc, beside.brier, beside.roc)
    for name in ("criterion", "intervention", "k", "share", "strength", "scope", "layer_counts"):
        assert getattr(report.neurons, name) == getattr(found.neurons, name), name
    assert report.conditions == found.conditions
