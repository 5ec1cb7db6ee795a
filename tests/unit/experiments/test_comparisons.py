"""Rows against the unsteered model: pairing, means over sets, Holm over the claims alone; and the choice of a strength."""

import numpy as np
import pytest

from outcome_samples import outcomes
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.verdict import paired
from trimtab.experiments import Search
from trimtab.experiments.comparisons import best_strength, compare_rows, gain_frame, strengths
from trimtab.stats.significance import holm
from trimtab.steering import Steering

BASE = outcomes("base", "1100110000")
BETTER = outcomes("better", "1111111100")
WORSE = outcomes("worse", "1000010000")


def test_a_row_is_the_paired_comparison_of_its_condition() -> None:
    row, other = compare_rows(BASE, {"better": BETTER, "worse": WORSE}, {})
    expected = paired(BASE, BETTER)
    assert row.comparisons == (expected,)
    cells = row.cells()
    assert cells["accuracy"] == 0.8
    assert cells["value"] == pytest.approx(0.4)
    assert (cells["low"], cells["high"], cells["n"]) == (expected.gain_low, expected.gain_high, 10)
    assert (cells["fixed"], cells["broken"]) == (4, 0)
    assert cells["p"] == expected.p == 0.125
    assert [row.p_holm, other.p_holm] == pytest.approx(holm([expected.p, paired(BASE, WORSE).p]).tolist())


def test_near_duplicates_count_once_and_the_frame_says_so() -> None:
    base, condition = outcomes("base", "0" * 24), outcomes("better", "1" * 24)
    clusters = {f"p{i}": f"p{i // 6}" for i in range(24)}
    (row,) = compare_rows(base, {"better": condition}, clusters)
    assert row.comparisons == (paired(base, condition, clusters),)
    assert row.cells()["p"] == pytest.approx(2 / 2**4)
    frame = gain_frame("name", "Title", base, [row])
    assert "The 24 problems are 4 clusters of near-duplicates, each of which counts once in p." in frame.note
    (alone,) = compare_rows(base, {"better": condition}, {})
    assert alone.cells()["p"] == pytest.approx(2 / 2**24)
    assert "clusters" not in gain_frame("name", "Title", base, [alone]).note


def test_several_sets_are_a_mean_that_is_no_claim() -> None:
    rows = compare_rows(BASE, {"random": [BETTER, WORSE], "better": BETTER}, {})
    mean, claim = rows
    assert mean.single is None
    assert mean.p_holm is None
    assert mean.gain == pytest.approx(np.mean([0.4, -0.2]))
    assert [one["value"] for one in mean.sets()] == pytest.approx([0.4, -0.2])
    assert all(one["low"] is one["p"] is None for one in mean.sets())
    assert claim.sets() == []
    assert claim.p_holm == paired(BASE, BETTER).p  # corrected for one claim only


def test_only_means_need_no_correction() -> None:
    (row,) = compare_rows(BASE, {"random": [BETTER, WORSE]}, {})
    assert row.p_holm is None


def test_the_frame_begins_with_the_unsteered_model_and_marks_a_row() -> None:
    rows = compare_rows(BASE, {"better": BETTER, "worse": WORSE}, {})
    frame = gain_frame("name", "Title", BASE, rows, chosen="worse")
    assert [row["label"] for row in frame.rows] == ["unsteered", "better", "worse"]
    assert [frame.rows[0][name] for name in ("value", "low", "high", "p", "p_holm", "fixed", "broken")] == [None] * 7
    assert frame.rows[0]["accuracy"] == 0.4
    assert [row["chosen"] for row in frame.rows] == [False, False, True]
    assert "random sets" not in frame.note


def test_the_sets_of_a_mean_follow_it() -> None:
    rows = compare_rows(BASE, {"random": [BETTER, WORSE], "better": BETTER}, {})
    frame = gain_frame("name", "Title", BASE, rows)
    assert [row["label"] for row in frame.rows] == ["unsteered", "random", "random", "random", "better"]
    assert "random sets" in frame.note


def test_the_published_strength_is_always_a_candidate(search: Search) -> None:
    assert strengths(search) == (0.3, 1.0, 2.0)


@pytest.mark.parametrize(("right", "chosen"), [({0.3: 1, 1.0: 3, 2.0: 2}, 1.0), ({0.3: 2, 1.0: 2, 2.0: 2}, 0.3)])
def test_the_best_wins_and_a_tie_goes_to_the_weakest(
    search: Search, monkeypatch: pytest.MonkeyPatch, right: dict[float, int], chosen: float
) -> None:
    from outcome_samples import outcomes

    def answers(self: Search, split: str, steering: Steering, *rest: object) -> list[Outcome]:
        return outcomes("x", "1" * right[steering.strength] + "0" * (4 - right[steering.strength]))

    monkeypatch.setattr(Search, "answers", answers)
    assert best_strength(search, search.steering).strength == chosen
