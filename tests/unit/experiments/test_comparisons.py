"""Rows against the unsteered model: pairing, means over sets, Holm over the claims alone; and the choice of a strength."""

import numpy as np
import pytest

from outcome_samples import outcomes
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.pairing import paired
from trimtab.experiments import Workbench
from trimtab.experiments.comparisons import COLUMNS, best_strength, compare_rows, comparison_table, gain_dots, strengths
from trimtab.stats.significance import holm
from trimtab.steering import Steering
from trimtab.traces import Split

BASE = outcomes("base", "1100110000")
BETTER = outcomes("better", "1111111100")
WORSE = outcomes("worse", "1000010000")


def test_a_row_is_the_paired_comparison_of_its_condition() -> None:
    row, other = compare_rows(BASE, {"better": BETTER, "worse": WORSE})
    expected = paired(BASE, BETTER)
    assert row.comparisons == (expected,)
    cells = dict(zip([column.name for column in COLUMNS], row.cells(), strict=True))
    assert cells["accuracy"] == 0.8
    assert cells["gain"] == pytest.approx(0.4)
    assert (cells["fixed"], cells["broken"]) == (4, 0)
    assert cells["p"] == expected.p == 0.125
    assert [row.p_holm, other.p_holm] == pytest.approx(holm([expected.p, paired(BASE, WORSE).p]).tolist())


def test_several_sets_are_a_mean_that_is_no_claim() -> None:
    rows = compare_rows(BASE, {"random": [BETTER, WORSE], "better": BETTER})
    mean, claim = rows
    assert mean.single is None
    assert mean.p_holm is None
    assert mean.gain == pytest.approx(np.mean([0.4, -0.2]))
    assert mean.dot().others == pytest.approx((0.4, -0.2))
    assert claim.p_holm == paired(BASE, BETTER).p  # corrected for one claim only


def test_only_means_need_no_correction() -> None:
    (row,) = compare_rows(BASE, {"random": [BETTER, WORSE]})
    assert row.p_holm is None


def test_the_table_begins_with_the_bare_model_and_marks_a_row() -> None:
    rows = compare_rows(BASE, {"better": BETTER, "worse": WORSE})
    table = comparison_table("name", "Title", BASE, rows, highlight="worse")
    assert [row[0] for row in table.rows] == ["unsteered", "better", "worse"]
    assert table.rows[0][5:] == (None,) * 7
    assert table.highlight == 2


def test_dots_hold_every_row_and_say_how_many_problems() -> None:
    rows = compare_rows(BASE, {"better": BETTER, "random": [BETTER, WORSE]})
    figure = gain_dots("name", "Title", rows, Split.TEST, "reading")
    assert figure.n == 10
    assert [dot.label for dot in figure.dots] == ["better", "random"]
    assert "rings" in figure.detail


def test_the_published_strength_is_always_a_candidate(bench: Workbench) -> None:
    assert strengths(bench) == (0.3, 1.0, 2.0)


@pytest.mark.parametrize(("right", "chosen"), [({0.3: 1, 1.0: 3, 2.0: 2}, 1.0), ({0.3: 2, 1.0: 2, 2.0: 2}, 0.3)])
def test_the_best_wins_and_a_tie_goes_to_the_weakest(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, right: dict[float, int], chosen: float
) -> None:
    from outcome_samples import outcomes

    def answers(self: Workbench, split: str, steering: Steering, *rest: object) -> list[Outcome]:
        return outcomes("x", "1" * right[steering.strength] + "0" * (4 - right[steering.strength]))

    monkeypatch.setattr(Workbench, "answers", answers)
    assert best_strength(bench, bench.steering).strength == chosen
