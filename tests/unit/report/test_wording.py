"""Rounding, order and names."""

import doctest
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report_sample import make_report, with_responses
from trimtab.evaluation.rows import CLAIMS, CONTROLS, UNSTEERED
from trimtab.report import Report, wording


def test_examples_hold() -> None:
    result = doctest.testmod(wording)
    assert result.attempted >= 10
    assert result.failed == 0


@pytest.mark.parametrize(("share", "text"), [(0.63249, "63.2 %"), (0.6325001, "63.3 %"), (1.0, "100.0 %"), (0.0, "0.0 %")])
def test_percent(share: float, text: str) -> None:
    assert wording.percent(share) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (1.0, "1.0"),
        (0.25, "0.25"),
        (0.05, "0.050"),
        (0.03456, "0.035"),
        (0.0999, "0.10"),
        (0.00999, "0.010"),
        (0.001, "0.0010"),
        (0.00099999, "< 0.001"),
        (0.0, "< 0.001"),
    ],
)
def test_p_value(p: float, text: str) -> None:
    assert wording.p_value(p) == text


@given(st.floats(0.001, 1.0))
def test_p_has_two_significant_digits(p: float) -> None:
    text = wording.p_value(p)
    assert len(text.replace(".", "").lstrip("0")) == 2
    assert abs(float(text) - p) <= 0.0501 * p


@pytest.mark.parametrize(
    ("gain", "text"), [(0.353, "+35.3"), (-0.0412, "\u22124.1"), (0.0, "0.0"), (-0.0001, "0.0"), (0.0004, "0.0")]
)
def test_points(gain: float, text: str) -> None:
    assert wording.points(gain) == text


@pytest.mark.parametrize(("number", "text"), [(7, "7"), (12345, "12,345"), (31.44, "31.4"), (99.94, "99.9"), (1234.56, "1,235")])
def test_count(number: float, text: str) -> None:
    assert wording.count(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (59.96, "1 min 0 s"), (3599.7, "1 h 0 min"), (3725, "1 h 2 min")])
def test_duration(seconds: float, text: str) -> None:
    assert wording.duration(seconds) == text


def test_groups_are_ordered_by_value_then_name() -> None:
    assert wording.ordered_groups({"b": {}, "10": {}, "2": {}, "a": {}}) == ["2", "10", "a", "b"]


def test_kinds_left_out_are_zero() -> None:
    counts = wording.flip_counts({"a": {"fixed": 3}}, "a")
    assert counts == {"fixed": 3, "broken": 0, "still wrong": 0, "still right": 0}


def test_random_spread(report: Report) -> None:
    name, sets, low, mean, high = wording.random_spread(report)[0]
    gains = report.random_gains["random"]
    assert (name, sets, low, high) == ("random", 5, -0.124, 0.035)
    assert mean == pytest.approx(sum(gains) / 5)


def test_condition_labels(report: Report) -> None:
    assert wording.condition_label(report, "gated") == "Steered when the gate fires"
    assert wording.condition_label(report, "random") == "Random neurons (5 sets)"
    assert wording.condition_label(report, "my own") == "my own"
    assert wording.condition_label(report, "majority-equal-cost") == "Majority vote, equal tokens"
    responses = with_responses(make_report())
    assert wording.condition_label(responses, "sampled") == "Sampled responses (8 responses)"
    assert wording.condition_label(responses, "majority") == "Majority vote (8 responses)"


def test_every_condition_that_is_known_has_a_label(report: Report) -> None:
    labels = [wording.condition_label(report, condition) for condition in (UNSTEERED, *CLAIMS, *CONTROLS)]
    assert len(set(labels)) == len(labels)
    assert all(label[0].isupper() for label in labels)


def test_fixed_and_broken_need_pairs(report: Report) -> None:
    gated = report.conditions[2]
    assert wording.fixed_broken(gated) == "424 / 2"
    assert wording.fixed_broken(replace(gated, pairs=0)) == wording.DASH
