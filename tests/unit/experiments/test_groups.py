"""A matrix of conditions by groups: each cell a paired comparison, and the diagonal against the rest."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from outcome_samples import outcomes
from search_samples import changed
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.verdict import paired
from trimtab.experiments import Search
from trimtab.experiments.groups import (
    EASY,
    HARD,
    MIN_PROBLEMS,
    MIN_VALIDATION,
    Grouping,
    by_difficulty,
    by_domain,
    cross,
    crossing_matrix,
    diagonal_p,
    excess,
    excess_by_group,
    find_source,
    fit_gate,
    gated_answers,
)
from trimtab.gate import Gate
from trimtab.ranking import rank
from trimtab.stats.significance import holm
from trimtab.traces import Split

NAMES = ("even", "odd")
BASE = outcomes("base", "110011000011")
EVEN = outcomes("even", "111011101011")
ODD = outcomes("odd", "010011000111")
GROUPS = Grouping({f"p{i}": NAMES[i % 2] for i in range(12)}, NAMES, {"even": 6, "odd": 6})


def gain(base: list[Outcome], condition: list[Outcome], remainder: int) -> float:
    """Change of accuracy over every other problem."""
    return float(np.mean([condition[i].correct - base[i].correct for i in range(remainder, 12, 2)]))


def test_a_cell_is_the_comparison_on_one_group() -> None:
    (crossing,) = cross(BASE, [{"even": EVEN, "odd": ODD}], GROUPS)
    assert (crossing.rows, crossing.columns) == (NAMES, NAMES)
    for (row, column, cell), condition in zip(crossing, (EVEN, EVEN, ODD, ODD), strict=True):
        start = NAMES.index(column)
        assert cell.comparisons == (paired(BASE[start::2], condition[start::2]),), (row, column)


def test_near_duplicates_of_a_group_count_once() -> None:
    clusters = {f"p{i}": f"p{i % 4}" for i in range(12)}
    (crossing,) = cross(BASE, [{"even": EVEN}], replace(GROUPS, clusters=clusters))
    for _, column, cell in crossing:
        start = NAMES.index(column)
        assert cell.comparisons == (paired(BASE[start::2], EVEN[start::2], clusters),)
        assert cell.comparisons[0].clusters == 2


def test_holm_covers_all_cells_of_all_families_but_no_means() -> None:
    always, gated = cross(BASE, [{"even": EVEN, "random": [ODD, BASE]}, {"even": ODD}], GROUPS)
    claims = [cell for crossing in (always, gated) for row, _, cell in crossing if row == "even"]
    expected = holm([cell.comparisons[0].p for cell in claims])
    assert [cell.p_holm for cell in claims] == pytest.approx(expected.tolist())
    assert all(cell.p_holm is None for row, _, cell in always if row == "random")


def test_a_matrix_has_a_row_a_cell() -> None:
    always, gated = cross(BASE, [{"even": EVEN, "odd": ODD}, {"even": ODD, "odd": EVEN}], GROUPS)
    for crossing, even in ((always, EVEN), (gated, ODD)):
        rows = crossing_matrix("m", "m", crossing, "found on", "tested on", note="", reading="").rows
        assert [(row["row"], row["column"]) for row in rows] == [
            ("even", "even"),
            ("even", "odd"),
            ("odd", "even"),
            ("odd", "odd"),
        ]
        assert all(row["n"] == 6 for row in rows)
        assert rows[1]["value"] == pytest.approx(gain(BASE, even, 1))
        assert rows[1]["unsteered"] == np.mean([outcome.correct for outcome in BASE[1::2]])


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


def test_domains_with_the_most_contrasted_problems_come_first(halved: Search) -> None:
    grouping = by_domain(halved)
    left = {p.id for p in halved.split(Split.TRAIN) if p.domain == "left"}
    assert grouping.names == ("left", "right")
    assert grouping.found_on["left"] == len({row.problem_id for row in halved.contrast} & left)
    assert {p.domain for p in grouping.among(halved.split(Split.TEST), "right")} == {"right"}


def test_a_domain_that_is_too_small_is_left_out_and_named(halved: Search) -> None:
    test = [p if i >= MIN_PROBLEMS - 1 else replace(p, domain="tiny") for i, p in enumerate(halved.split(Split.TEST))]
    grouping = by_domain(changed(halved, problems={**halved.problems, Split.TEST: test}))
    assert grouping.names == ("left", "right")
    assert grouping.left_out == ("tiny",)


def test_more_domains_than_asked_for_keep_the_largest(halved: Search) -> None:
    moved = {row.problem_id for row in halved.contrast[-1:]}
    find = [
        replace(p, domain="third" if p.domain == "right" and p.id not in moved else p.domain) for p in halved.split(Split.TRAIN)
    ]
    test = [replace(p, domain="third" if i % 2 else p.domain) for i, p in enumerate(halved.split(Split.TEST))]
    settings = halved.settings.model_copy(update={"domains": 2})
    grouping = by_domain(changed(halved, problems={**halved.problems, Split.TRAIN: find, Split.TEST: test}, settings=settings))
    assert set(grouping.names) == {"left", "third"}
    assert "right" in grouping.left_out


def test_difficulty_is_cut_where_it_halves_the_contrast(search: Search) -> None:
    grouping = by_difficulty(search)
    contrasted = {row.problem_id for row in search.contrast}
    levels = [p.difficulty for p in search.split(Split.TRAIN) if p.id in contrasted]
    hard = grouping.found_on[HARD]
    assert grouping.names == (EASY, HARD)
    assert hard + grouping.found_on[EASY] == len(levels)
    assert abs(2 * hard - len(levels)) == min(abs(2 * sum(one >= cut for one in levels) - len(levels)) for cut in set(levels))


def test_a_source_reads_its_own_part_of_the_contrast(halved: Search) -> None:
    grouping = by_domain(halved)
    source = find_source(changed(halved, prompts={}), grouping, "left")
    rows = [row for row in halved.contrast if grouping.of[row.problem_id] == "left"]
    expected = rank(halved.moments_of(rows), halved.criterion, halved.k, halved.model.identity)
    assert source is not None
    assert np.array_equal(source.neurons.layer, expected.layer)
    assert np.array_equal(source.neurons.index, expected.index)
    np.testing.assert_array_equal(source.neurons.mean_difference, expected.mean_difference)


def test_too_few_validation_problems_fall_back_to_the_strength_and_the_gate_of_the_run(halved: Search) -> None:
    grouping = by_domain(halved)
    source = find_source(changed(halved, prompts={}), grouping, "left")
    assert source is not None
    assert len(grouping.among(halved.split(Split.VALIDATION), "left")) < MIN_VALIDATION
    assert (source.tuned_on, source.own_gate) == (0, False)
    assert source.steering.strength == halved.steering.strength
    assert source.steering.gate is halved.steering.gate


def test_the_gate_of_all_problems_is_the_gate_of_the_run(search: Search) -> None:
    everything = Grouping({p.id: "all" for problems in search.problems.values() for p in problems}, ("all",), {})
    gate = fit_gate(search, everything, "all")
    run_gate = search.steering.gate
    assert gate is not None
    assert isinstance(run_gate, Gate)
    np.testing.assert_array_equal(gate.weight, run_gate.weight)
    assert (gate.bias, gate.threshold) == (run_gate.bias, run_gate.threshold)
    assert fit_gate(search, Grouping({}, ("none",), {}), "none") is None
    assert fit_gate(changed(search, prompts={}), everything, "all") is None


def test_gated_answers_are_those_of_a_gated_run(search: Search) -> None:
    base = search.answers(Split.TEST, None)
    always = search.answers(Split.TEST, search.steering)
    composed = gated_answers(search, search.steering, base, always)
    run = search.answers(Split.TEST, search.steering, "auto")
    assert [o.response for o in composed] == [o.response for o in run]
    assert {o.fired for o in run} == {True, False}
