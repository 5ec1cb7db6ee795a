"""A matrix of conditions by groups: each cell a paired comparison, and the diagonal against the rest."""

from itertools import permutations

import numpy as np
import pytest

from outcome_samples import outcomes
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.pairing import paired
from trimtab.experiments.crossing import cross, cross_together, crossing_table, diagonal_p, excess, excess_by_group
from trimtab.experiments.grouping import Grouping
from trimtab.stats.significance import holm

NAMES = ("even", "odd")
BASE = outcomes("base", "110011000011")
EVEN = outcomes("even", "111011101011")
ODD = outcomes("odd", "010011000111")
GROUPS = Grouping({f"p{i}": NAMES[i % 2] for i in range(12)}, NAMES, {"even": 6, "odd": 6})


def gain(base: list[Outcome], condition: list[Outcome], remainder: int) -> float:
    """Change of accuracy over every other problem."""
    return float(np.mean([condition[i].correct - base[i].correct for i in range(remainder, 12, 2)]))


def test_a_cell_is_the_comparison_on_one_group() -> None:
    crossing = cross(BASE, {"even": EVEN, "odd": ODD}, GROUPS)
    assert (crossing.rows, crossing.columns, crossing.n) == (NAMES, NAMES, 12)
    for (row, column, cell), condition in zip(crossing, (EVEN, EVEN, ODD, ODD), strict=True):
        start = NAMES.index(column)
        assert cell.comparisons == (paired(BASE[start::2], condition[start::2]),), (row, column)


def test_holm_covers_all_cells_of_all_families_but_no_means() -> None:
    always, gated = cross_together(BASE, [{"even": EVEN, "random": [ODD, BASE]}, {"even": ODD}], GROUPS)
    claims = [cell for crossing in (always, gated) for row, _, cell in crossing if row == "even"]
    expected = holm([cell.comparisons[0].p for cell in claims])
    assert [cell.p_holm for cell in claims] == pytest.approx(expected.tolist())
    assert all(cell.p_holm is None for row, _, cell in always if row == "random")


def test_the_table_has_a_row_a_cell_with_both_families() -> None:
    always, gated = cross_together(BASE, [{"even": EVEN, "odd": ODD}, {"even": ODD, "odd": EVEN}], GROUPS)
    table = crossing_table("t", "t", {"always": always, "gated": gated}, "found on", "tested on")
    assert [row[:3] for row in table.rows] == [("even", "even", 6), ("even", "odd", 6), ("odd", "even", 6), ("odd", "odd", 6)]
    assert table.rows[1][4] == pytest.approx(gain(BASE, EVEN, 1))
    assert table.rows[1][8] == pytest.approx(gain(BASE, ODD, 1))


def test_excess_is_the_diagonal_minus_the_rest() -> None:
    found = excess(BASE, {"even": EVEN, "odd": ODD, "all": BASE}, GROUPS)
    own = (gain(BASE, EVEN, 0) + gain(BASE, ODD, 1)) / 2
    others = (gain(BASE, EVEN, 1) + gain(BASE, ODD, 0)) / 2
    assert (found.own, found.others, found.value) == pytest.approx((own, others, own - others))
    assert found.low < found.value < found.high
    assert found.p is None  # two groups can be assigned in two ways only


def test_what_moves_a_whole_row_or_column_is_no_excess() -> None:
    everywhere = outcomes("everywhere", "111111111111")
    found = excess(BASE, {"even": everywhere, "odd": everywhere}, GROUPS)
    assert found.value == 0
    assert not found.differs


def test_excess_of_each_group() -> None:
    found = excess_by_group(BASE, {"even": EVEN, "odd": ODD}, GROUPS)
    assert found["even"].value == pytest.approx(gain(BASE, EVEN, 0) - gain(BASE, ODD, 0))
    assert found["odd"].own == pytest.approx(gain(BASE, ODD, 1))
    assert found["even"].low <= found["even"].value <= found["even"].high


def test_diagonal_p_counts_the_assignments() -> None:
    matrix = np.random.default_rng(0).normal(size=(5, 5)) + np.diag([3.0, 1.0, 0.0, 1.0, 2.0])
    means = [np.mean([matrix[row, column] for column, row in enumerate(rows)]) for rows in permutations(range(5))]
    observed = float(np.trace(matrix)) / 5
    upper = sum(mean >= observed - 1e-12 for mean in means) / len(means)
    lower = sum(mean <= observed + 1e-12 for mean in means) / len(means)
    assert diagonal_p(matrix) == pytest.approx(2 * min(upper, lower))
    assert diagonal_p(matrix[:4, :4]) is None
