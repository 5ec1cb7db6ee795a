"""A verdict by group: each row is the comparison of its problems, and averages weigh as they say."""

from dataclasses import replace

import numpy as np
import pytest

from outcome_samples import outcomes
from trimtab.errors import InputError
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.summary import UNKNOWN, Breakdown, break_down
from trimtab.evaluation.verdict import paired
from trimtab.stats.estimates import bootstrap_macro
from trimtab.stats.power import minimum_detectable_gain
from trimtab.stats.significance import holm


def _two(base: dict[str, str], condition: dict[str, str], **fields: object) -> tuple[list[Outcome], list[Outcome]]:
    """Two conditions with a pattern per domain."""
    sides = []
    for patterns in (base, condition):
        rows, start = [], 0
        for domain, pattern in patterns.items():
            rows += outcomes("x", pattern, domains=[domain], start=start)
            start += len(pattern)
        sides.append([replace(row, **fields) for row in rows])
    return sides[0], sides[1]


BASE = {"sums": "1000000000" * 2, "cups": "1100", "dates": "111000"}
CONDITION = {"sums": "1111111110" * 2, "cups": "1010", "dates": "1110u0"}


@pytest.fixture
def table() -> Breakdown:
    (table,) = break_down(*_two(BASE, CONDITION))
    return table


def test_each_row_is_the_comparison_of_its_problems(table: Breakdown) -> None:
    base, condition = _two(BASE, CONDITION)
    assert (table.by, [row.group for row in table.rows]) == ("domain", ["cups", "dates", "sums"])
    for row in table.rows:
        inside = [[outcome for outcome in side if outcome.domain == row.group] for side in (base, condition)]
        assert row.comparison == paired(*inside)
        c = row.comparison
        gain = minimum_detectable_gain(c.n, (c.fixed + c.broken) / c.n)
        assert row.minimum_detectable_gain == (gain if np.isfinite(gain) else None)
    assert [row.comparison.n for row in table.rows] == [4, 6, 20]
    assert [(row.comparison.fixed, row.comparison.broken) for row in table.rows] == [(1, 1), (0, 0), (16, 0)]
    assert [(row.base_unscored, row.unscored) for row in table.rows] == [(0, 0), (0, 1), (0, 0)]


def test_words_are_by_the_corrected_p(table: Breakdown) -> None:
    assert [row.p_holm for row in table.rows] == holm([row.comparison.p for row in table.rows]).tolist()
    assert [row.word for row in table.rows] == ["no evidence", "no verdict", "helps"]
    six = {"a": "000000", "b": "1" * 6, "c": "1" * 6}
    (table,) = break_down(*_two(six, {**six, "a": "111111"}))
    assert table.rows[0].comparison.p == 2 / 2**6
    assert table.rows[0].p_holm == 6 / 2**6
    assert table.rows[0].word == "no evidence", "below 0.05 alone, one of three groups"


def test_micro_weighs_problems_and_macro_domains(table: Breakdown) -> None:
    micro, macro = table.averages
    assert (micro.name, macro.name, micro.groups, macro.groups) == ("micro", "macro", 3, 3)
    assert (micro.base.value, micro.condition.value) == pytest.approx((7 / 30, 23 / 30))
    assert macro.base.value == pytest.approx((0.1 + 0.5 + 0.5) / 3)
    assert macro.condition.value == pytest.approx((0.9 + 0.5 + 0.5) / 3)
    assert macro.gain.value == pytest.approx(0.8 / 3)
    whole = paired(*_two(BASE, CONDITION))
    assert (micro.gain.low, micro.gain.high) == (whole.gain_low, whole.gain_high)
    strata = np.repeat(["sums", "cups", "dates"], [20, 4, 6])
    condition = np.array([mark == "1" for mark in "".join(CONDITION.values())], float)
    assert (macro.condition.low, macro.condition.high) == bootstrap_macro(condition, strata)
    assert macro.gain.low is not None
    assert macro.gain.high is not None
    assert macro.gain.low < macro.gain.value < macro.gain.high


def test_near_duplicates_count_once_in_every_row_and_average() -> None:
    base, condition = _two(BASE, CONDITION)
    clusters = {f"p{i}": f"p{i // 2 * 2}" for i in range(20)}
    (table,) = break_down(base, condition, clusters=clusters)
    assert [row.comparison.clusters for row in table.rows] == [None, None, 10]
    strata = np.repeat(["sums", "cups", "dates"], [20, 4, 6])
    gains = np.array(
        [int(a == "1") - int(b == "1") for a, b in zip("".join(CONDITION.values()), "".join(BASE.values()), strict=True)]
    )
    names = [clusters.get(f"p{i}", f"p{i}") for i in range(30)]
    _, macro = table.averages
    assert (macro.gain.low, macro.gain.high) == bootstrap_macro(gains, strata, names)
    assert (macro.gain.low, macro.gain.high) != bootstrap_macro(gains, strata)


def test_averages_of_several_responses_are_over_shares() -> None:
    base = [*outcomes("x", "10", "00", domains=["a"]), *outcomes("x", "1100", "1000", domains=["b"], start=2)]
    condition = [*outcomes("x", "11", "10", domains=["a"]), *outcomes("x", "1100", "1000", domains=["b"], start=2)]
    (table,) = break_down(base, condition)
    micro, macro = table.averages
    assert (micro.base.value, micro.condition.value) == pytest.approx((4 / 12, 6 / 12))
    assert (macro.base.value, macro.condition.value) == pytest.approx(((1 / 4 + 3 / 8) / 2, (3 / 4 + 3 / 8) / 2))
    assert table.rows[0].comparison.test == "permutation"


def test_a_macro_average_without_anything_to_draw_from_has_no_interval() -> None:
    (single,) = break_down(*_two({"a": "1010", "b": "1"}, {"a": "1110", "b": "0"}))
    assert (single.averages[1].gain.low, single.averages[1].gain.high) == (None, None)
    assert single.averages[1].gain.value == pytest.approx((0.25 - 1) / 2)
    (same,) = break_down(*_two({"a": "11", "b": "00"}, {"a": "11", "b": "01"}))
    assert (same.averages[1].base.low, same.averages[1].base.high) == (None, None)
    assert same.averages[1].condition.low is not None


def test_difficulties_are_in_order_and_have_no_average() -> None:
    levels = [10, 2, 0, 2]
    base, condition = (
        [replace(row, domain="", difficulty=levels[i]) for i, row in enumerate(outcomes("x", p))] for p in ("1010", "1110")
    )
    (table,) = break_down(base, condition)
    assert (table.by, [row.group for row in table.rows], table.averages) == ("difficulty", ["2", "10", UNKNOWN], ())
    assert [row.comparison.n for row in table.rows] == [2, 1, 1]


def test_both_tables_and_none() -> None:
    base, condition = _two(BASE, CONDITION)
    mixed = [[replace(row, difficulty=i % 3 + 1) for i, row in enumerate(side)] for side in (base, condition)]
    assert [table.by for table in break_down(*mixed)] == ["domain", "difficulty"]
    assert break_down(outcomes("x", "10", domains=[""]), outcomes("x", "11", domains=[""])) == ()


def test_the_level_is_that_of_the_words() -> None:
    sides = _two({"a": "000000", "b": "1111"}, {"a": "111111", "b": "1111"})
    assert [break_down(*sides, alpha)[0].rows[0].word for alpha in (0.05, 0.07)] == ["no evidence", "helps"]


def test_other_problems_are_refused() -> None:
    base, condition = _two(BASE, CONDITION)
    with pytest.raises(InputError, match="compared on the same problems"):
        break_down(base, condition[1:])
