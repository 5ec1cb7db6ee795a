"""The report's data: exact round trips, and fields that match what they are made from."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from outcome_samples import outcomes
from report_sample import make_report
from trimtab.errors import StoreError
from trimtab.evaluation.rows import TunePoint
from trimtab.evaluation.summary import summarise
from trimtab.evaluation.verdict import judge
from trimtab.report import (
    CriterionRow,
    Report,
    UnscoredBounds,
    read_report,
)
from trimtab.store import write_json


def test_the_rows_of_the_conditions_are_the_summaries(report: Report) -> None:
    conditions = {name: outcomes(name, "1010", "1000") for name in ("unsteered", "gated")}
    rows = tuple(summarise(conditions).values())
    again = Report.model_validate_json(report.model_copy(update={"conditions": rows}).model_dump_json())
    assert again.conditions == rows


@pytest.mark.parametrize(
    ("change", "named"), [({"surprise": 1}, "surprise"), ({"gain": float("nan")}, "gain"), ({"test": "t"}, "test")]
)
def test_a_row_of_another_form_is_refused(report: Report, change: dict[str, object], named: str) -> None:
    row = {**asdict(report.conditions[1]), **change}
    with pytest.raises(ValidationError, match=named):
        Report.model_validate({**report.model_dump(), "conditions": [row]})
    with pytest.raises(ValidationError, match="p_holm"):
        Report.model_validate({**report.model_dump(), "conditions": [{k: v for k, v in row.items() if k != "p_holm"}]})


def test_unscored_bounds_take_the_ranges_of_a_verdict() -> None:
    result = judge(outcomes("unsteered", "1010001"), outcomes("gated", "1111u00"))
    assert result.ranges is not None
    assert UnscoredBounds(**result.ranges).model_dump() == result.ranges


@pytest.mark.parametrize("section", ["breakdowns", "tune", "gate", "run"])
def test_values_within_a_section_refuse_what_does_not_fit(report: Report, section: str) -> None:
    data = report.model_dump(mode="json")
    value = {
        "breakdowns": lambda: data["breakdowns"][0]["rows"][0]["comparison"],
        "tune": lambda: data["tune"]["points"][0],
        "gate": lambda: data["gate"]["assessment"]["auroc"],
        "run": lambda: data["run"]["model"],
    }[section]()
    value["surprise"] = 1
    with pytest.raises(ValidationError, match="surprise"):
        Report.model_validate_json(json.dumps(data))
    del value["surprise"]
    assert Report.model_validate_json(json.dumps(data)) == report
    value.pop(next(iter(value)))
    with pytest.raises(ValidationError, match="Field required"):
        Report.model_validate_json(json.dumps(data))


@pytest.mark.parametrize("gate", [True, False])
def test_json_round_trip_is_exact(tmp_path: Path, gate: bool) -> None:
    report = make_report(gate=gate, unscored=True)
    path = tmp_path / "report.json"
    write_json(path, report.model_dump(mode="json"), "")
    again = read_report(path)
    assert read_report(str(path)) == again
    assert again == report
    first = path.read_bytes()
    write_json(path, again.model_dump(mode="json"), "")
    assert path.read_bytes() == first


@given(st.floats(allow_nan=False, allow_infinity=False), st.text())
def test_numbers_and_text_survive_json(number: float, text: str) -> None:
    row = TunePoint(criterion=text, intervention=text, k=1, strength=number, n=1, unsteered=number, always=number, gated=number)
    assert CriterionRow.model_validate_json(CriterionRow(best=row).model_dump_json()).best == row


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"surprise": 1}, "surprise"),
        ({"format": 1}, "format"),
        ({"claims": None}, "claims"),
        ({"conditions": []}, "conditions"),
        ({"random_gains": {"random": [float("nan")]}}, "random_gains"),
    ],
)
def test_what_does_not_fit_is_named(report: Report, change: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Report.model_validate({**report.model_dump(), **change})


def test_at_most_four_examples(report: Report) -> None:
    with pytest.raises(ValidationError, match="examples"):
        Report.model_validate({**report.model_dump(), "examples": report.model_dump()["examples"] * 5})


def test_report_is_frozen(report: Report) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        report.verdict.n = 3


def test_truncated_and_foreign_files_are_refused(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(path, report.model_dump(mode="json"), "")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StoreError, match="truncated"):
        read_report(path)
    write_json(path, {**report.model_dump(mode="json"), "surprise": 1}, "")
    with pytest.raises(StoreError, match="surprise"):
        read_report(path)
