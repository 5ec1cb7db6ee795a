"""Which responses are pairs, and what unscored ones could change."""

import pytest

from outcome_samples import outcomes
from trimtab.errors import InputError
from trimtab.evaluation.verdict import correctness, matched, paired, unscored_bounds


def test_one_response_each_is_paired_by_problem_whatever_the_order_and_the_seed() -> None:
    base, condition = outcomes("unsteered", "1100"), outcomes("always", "1010", seed=9)[::-1]
    result = paired(base, condition)
    assert (result.fixed, result.broken, result.test, result.pairs) == (1, 1, "McNemar", 4)
    assert [(before.problem_id, after.problem_id) for before, after in matched(base, condition)] == [
        (f"p{i}",) * 2 for i in range(4)
    ]


def test_several_responses_are_paired_by_seed_and_sample() -> None:
    base = outcomes("unsteered", "100", "010")
    condition = [*outcomes("always", "111", seed=5), *outcomes("always", "001", "011")[::-1]]
    # shared are (0, 0) and (0, 1): "100" against "001" and "010" against "011"
    result = paired(base, condition)
    assert (result.base_k, result.k, result.pairs) == (2, 3, 6)
    assert (result.fixed, result.broken) == (2, 1)
    assert result.accuracy == pytest.approx((1 + 2 + 3) / 9)
    assert {(before.key, after.key) for before, after in matched(base, condition)} == {((0, 0), (0, 0)), ((0, 1), (0, 1))}
    assert correctness(base, condition).condition.tolist() == [[False, False, True], [False, True, True], [True, True, True]]


def test_no_shared_response_is_no_pair() -> None:
    result = paired(outcomes("unsteered", "101"), outcomes("sampled", "111", "011", seed=1))
    assert (result.pairs, result.fixed, result.broken, result.test) == (0, 0, 0, "permutation")
    assert result.gain == pytest.approx(5 / 6 - 2 / 3)


def test_other_problems_are_refused() -> None:
    base = outcomes("unsteered", "1100")
    with pytest.raises(
        InputError, match="only the base has 1, first 'p0'; only the other condition has 1, first 'p4'; evaluate both"
    ):
        paired(base, outcomes("always", "1100", start=1))
    with pytest.raises(InputError, match="but only the base has 1, first 'p3'; evaluate"):
        matched(base, outcomes("always", "110"))


def test_bounds_of_unscored_chains() -> None:
    base, condition = outcomes("unsteered", "1100u00000"), outcomes("always", "11100u0u00")
    bounds = unscored_bounds(base, condition)
    assert bounds is not None
    assert (bounds.base, bounds.condition) == (1, 2)
    assert (bounds.worst.base_accuracy, bounds.worst.accuracy) == (0.3, 0.3)
    assert (bounds.best.base_accuracy, bounds.best.accuracy) == (0.2, 0.5)
    assert (bounds.worst.fixed, bounds.worst.broken) == (1, 1)
    assert (bounds.best.fixed, bounds.best.broken) == (3, 0)
    assert unscored_bounds(base[:3], condition[:3]) is None


def test_bounds_of_several_chains() -> None:
    bounds = unscored_bounds(outcomes("unsteered", "1u", "00"), outcomes("always", "11", "1u"))
    assert bounds is not None
    # of 4 responses: the base has 1 or 2 right, the condition 3 or 4
    assert (bounds.worst.gain, bounds.best.gain) == (0.25, 0.75)
