"""From one group of problems to another: groups, sources, gates, and a whole experiment on two domains."""

from dataclasses import replace

import numpy as np
import pytest

from trimtab.evaluation.pairing import paired
from trimtab.experiments import Workbench
from trimtab.experiments.grouping import EASY, HARD, MIN_PROBLEMS, Grouping, by_difficulty, by_domain
from trimtab.experiments.sources import MIN_TUNE, find_source, fit_gate, gated_answers
from trimtab.experiments.transfer import transfer
from trimtab.experiments.transfer_tables import EVERYTHING
from trimtab.gate import Gate
from trimtab.ranking import rank
from trimtab.traces import Problem, Split

LEFT = {"calendar", "cups", "dial"}


@pytest.fixture
def halved(bench: Workbench) -> Workbench:
    """The bench with two domains, so that each is large enough."""

    def merged(problem: Problem) -> Problem:
        return replace(problem, domain="left" if problem.domain in LEFT else "right")

    problems = {split: [merged(p) for p in problems] for split, problems in bench.problems.items()}
    return replace(bench, problems={**problems, Split.TEST: problems[Split.TEST][:24]})


def test_domains_with_the_most_contrasted_problems_come_first(halved: Workbench) -> None:
    grouping = by_domain(halved)
    left = {p.id for p in halved.split(Split.TRAIN) if p.domain == "left"}
    assert grouping.names == ("left", "right")
    assert grouping.found_on["left"] == len({row.problem_id for row in halved.contrast} & left)
    assert {p.domain for p in grouping.among(halved.split(Split.TEST), "right")} == {"right"}


def test_a_domain_that_is_too_small_is_left_out_and_named(halved: Workbench) -> None:
    test = [p if i >= MIN_PROBLEMS - 1 else replace(p, domain="tiny") for i, p in enumerate(halved.split(Split.TEST))]
    grouping = by_domain(replace(halved, problems={**halved.problems, Split.TEST: test}))
    assert grouping.names == ("left", "right")
    assert grouping.left_out == ("tiny",)


def test_more_domains_than_asked_for_keep_the_largest(halved: Workbench) -> None:
    moved = {row.problem_id for row in halved.contrast[-1:]}
    find = [
        replace(p, domain="third" if p.domain == "right" and p.id not in moved else p.domain) for p in halved.split(Split.TRAIN)
    ]
    test = [replace(p, domain="third" if i % 2 else p.domain) for i, p in enumerate(halved.split(Split.TEST))]
    settings = halved.settings.model_copy(update={"domains": 2})
    grouping = by_domain(replace(halved, problems={**halved.problems, Split.TRAIN: find, Split.TEST: test}, settings=settings))
    assert set(grouping.names) == {"left", "third"}
    assert "right" in grouping.left_out


def test_difficulty_is_cut_where_it_halves_the_contrast(bench: Workbench) -> None:
    grouping = by_difficulty(bench)
    contrasted = {row.problem_id for row in bench.contrast}
    levels = [p.difficulty for p in bench.split(Split.TRAIN) if p.id in contrasted]
    hard = grouping.found_on[HARD]
    assert grouping.names == (EASY, HARD)
    assert hard + grouping.found_on[EASY] == len(levels)
    assert abs(2 * hard - len(levels)) == min(abs(2 * sum(one >= cut for one in levels) - len(levels)) for cut in set(levels))


def test_a_source_reads_its_own_part_of_the_contrast(halved: Workbench) -> None:
    grouping = by_domain(halved)
    source = find_source(replace(halved, prompts={}), grouping, "left")
    rows = [row for row in halved.contrast if grouping.of[row.problem_id] == "left"]
    expected = rank(halved.moments_of(rows), halved.criterion, halved.k, halved.model.identity)
    assert source is not None
    assert np.array_equal(source.neurons.layer, expected.layer)
    assert np.array_equal(source.neurons.index, expected.index)
    np.testing.assert_array_equal(source.neurons.mean_difference, expected.mean_difference)


def test_too_few_tune_problems_fall_back_to_the_strength_and_the_gate_of_the_run(halved: Workbench) -> None:
    grouping = by_domain(halved)
    source = find_source(replace(halved, prompts={}), grouping, "left")
    assert source is not None
    assert len(grouping.among(halved.split(Split.VALIDATION), "left")) < MIN_TUNE
    assert (source.tuned_on, source.own_gate) == (0, False)
    assert source.steering.strength == halved.steering.strength
    assert source.steering.gate is halved.steering.gate


def test_the_gate_of_all_problems_is_the_gate_of_the_run(bench: Workbench) -> None:
    everything = Grouping({p.id: "all" for problems in bench.problems.values() for p in problems}, ("all",), {})
    gate = fit_gate(bench, everything, "all")
    run_gate = bench.steering.gate
    assert gate is not None
    assert isinstance(run_gate, Gate)
    np.testing.assert_array_equal(gate.weight, run_gate.weight)
    assert (gate.bias, gate.threshold) == (run_gate.bias, run_gate.threshold)
    assert fit_gate(bench, Grouping({}, ("none",), {}), "none") is None
    assert fit_gate(replace(bench, prompts={}), everything, "all") is None


def test_gated_answers_are_those_of_a_gated_run(bench: Workbench) -> None:
    base = bench.answers(Split.TEST, None)
    always = bench.answers(Split.TEST, bench.steering)
    composed = gated_answers(bench, bench.steering, base, always)
    run = bench.answers(Split.TEST, bench.steering, "auto")
    assert [o.response for o in composed] == [o.response for o in run]
    assert {o.fired for o in run} == {True, False}


def test_every_gain_is_of_the_answers_to_one_domain(halved: Workbench) -> None:
    result = transfer(halved)
    table = next(table for table in result.tables if table.name == "domains-gains")
    names = [column.name for column in table.columns]
    cells = {(row[0], row[1]): dict(zip(names, row, strict=True)) for row in table.rows}
    assert set(cells) == {(row, column) for row in ("left", "right", EVERYTHING) for column in ("left", "right")}
    base = halved.answers(Split.TEST, None)
    source = find_source(halved, by_domain(halved), "left")
    assert source is not None
    condition = halved.answers(Split.TEST, source.steering)
    right = {p.id for p in halved.split(Split.TEST) if p.domain == "right"}
    expected = paired(*([o for o in side if o.problem_id in right] for side in (base, condition)))
    assert cells["left", "right"]["gain always"] == pytest.approx(expected.gain)
    assert cells["left", "right"]["n"] == len(right)
    assert {figure.name for figure in result.figures} == {"domains-always", "domains-gated", "domains-overlap", "difficulty"}
    assert all(figure.n == len(halved.split(Split.TEST)) for figure in result.figures if figure.split is Split.TEST)
    assert any("hard to easy" in finding for finding in result.findings)


def test_one_domain_of_one_difficulty_cannot_transfer(bench: Workbench) -> None:
    alike = {split: [replace(p, domain="one", difficulty=3) for p in some] for split, some in bench.problems.items()}
    alike[Split.TEST] = alike[Split.TEST][:6]
    result = transfer(replace(bench, problems=alike))
    assert not result.tables
    assert len(result.findings) == 2
