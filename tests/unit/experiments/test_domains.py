"""Neurons of one domain alone: set differences and the matrix of ablations; and gains from domain to domain."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_samples import changed
from trimtab.evaluation.verdict import paired
from trimtab.experiments import Search
from trimtab.experiments.domains import CONTROL, EVERYTHING, domains, specific_at, specific_sets, transfer
from trimtab.experiments.groups import (
    by_domain,
    find_source,
)
from trimtab.traces import Split

LEFT = {"calendar", "cups", "dial"}


@given(st.lists(st.permutations(range(12)), min_size=2, max_size=4), st.integers(1, 12))
def test_specific_sets_are_the_complement_of_the_union_of_the_others(orders: list[list[int]], k: int) -> None:
    found = specific_at({str(i): np.array(order) for i, order in enumerate(orders)}, k)
    for i, order in enumerate(orders):
        others = set().union(*(other[:k] for j, other in enumerate(orders) if j != i))
        assert [order[position] for position in found.sets[str(i)]] == [one for one in order[:k] if one not in others]


def test_initial_sets_grow_until_each_has_enough_of_its_own() -> None:
    shared = np.arange(4)
    orders = {"a": np.concatenate([shared, np.arange(10, 30)]), "b": np.concatenate([shared, np.arange(40, 60)])}
    assert specific_sets(orders, 4, n_neurons=400, minimum=3).k == 8  # 4 shared, then 4 of its own
    assert specific_sets(orders, 4, n_neurons=400, minimum=5).k == 16
    assert specific_sets(orders, 4, n_neurons=16, minimum=3).k == 4  # no larger set is allowed


def test_the_largest_smallest_set_is_taken_where_none_is_enough() -> None:
    a = np.array([0, 1, 2, 3, 4, 5, 6, 7])
    b = np.array([1, 0, 9, 8, 2, 3, 4, 5])
    sizes = {k: specific_at({"a": a, "b": b}, k).smallest for k in (2, 4, 8)}
    assert sizes == {2: 0, 4: 2, 8: 2}
    assert specific_sets({"a": a, "b": b}, 2, n_neurons=32, minimum=5).k == 4


def test_equal_numbers_are_ablated_at_every_token(search: Search) -> None:
    halves = {
        split: [
            replace(p, domain="left" if p.domain in LEFT else "right") for p in problems[: 48 if split is Split.TRAIN else 24]
        ]
        for split, problems in search.problems.items()
        if split is not Split.VALIDATION
    }
    found = domains(changed(search, problems=halves))
    sets = {row["label"]: row for row in found[f"sets-{search.criterion}"].rows}
    assert [row["ablated"] for row in sets.values()] == [min(row["of_its_own"] for row in sets.values())] * 2
    matrix = found[f"ablation-{search.criterion}"].rows
    assert [row["row"] for row in matrix[::2]] == ["left", "right", CONTROL]
    assert sum(row["n"] for row in matrix[:2]) == 24
    assert [row["p_holm"] is None for row in matrix] == [False] * 4 + [True] * 2  # random sets are no claim
    for row in matrix:
        if row["row"] == row["column"]:
            assert abs(row["value"] - sets[row["row"]]["without_own"]) < 1e-12


def test_one_domain_has_nothing_of_its_own(search: Search) -> None:
    alike = {split: [replace(p, domain="") for p in problems] for split, problems in search.problems.items()}
    result = domains(changed(search, problems=alike))
    assert not result.frames
    assert len(result.sentences) == 1


def test_every_gain_is_of_the_answers_to_one_domain(halved: Search) -> None:
    found = transfer(halved)
    cells = {(row["row"], row["column"]): row for row in found["domains-always"].rows}
    assert set(cells) == {(row, column) for row in ("left", "right", EVERYTHING) for column in ("left", "right")}
    base = halved.answers(Split.TEST, None)
    source = find_source(halved, by_domain(halved), "left")
    assert source is not None
    condition = halved.answers(Split.TEST, source.steering)
    right = {p.id for p in halved.split(Split.TEST) if p.domain == "right"}
    expected = paired(*([o for o in side if o.problem_id in right] for side in (base, condition)))
    assert cells["left", "right"]["value"] == pytest.approx(expected.gain)
    assert cells["left", "right"]["n"] == len(right)
    assert {frame.name for frame in found.frames if frame.plot} == {
        "domains-always",
        "domains-gated",
        "domains-overlap",
        "difficulty",
    }
    (both,) = found["domains-overlap"].rows
    assert both["value"] == both["shared"] / (2 * halved.k - both["shared"])
    assert {(row["label"], row["how"]) for row in found["difficulty"].rows} >= {("hard to easy, gated", "gated")}
    assert any("hard to easy" in words for words in found.sentences)


def test_one_domain_of_one_difficulty_cannot_transfer(search: Search) -> None:
    alike = {split: [replace(p, domain="one", difficulty=3) for p in some] for split, some in search.problems.items()}
    alike[Split.TEST] = alike[Split.TEST][:6]
    result = transfer(changed(search, problems=alike))
    assert not result.frames
    assert len(result.sentences) == 2
