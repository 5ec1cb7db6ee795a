"""From outcomes made by hand to the rows of a verdict."""

from dataclasses import replace

import numpy as np
import pytest

from outcome_samples import outcomes
from trimtab.errors import InputError
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.summary import DISAGREEMENT, condition_metrics, flips, random_gains, summarise, summarise_random
from trimtab.stats.paired import gain_p
from trimtab.stats.power import minimum_detectable_gain
from trimtab.stats.significance import holm, sign_flip_p

BASE = "1110000000"


def _conditions(**patterns: str) -> dict[str, list[Outcome]]:
    return {name.replace("_", "-"): outcomes(name, pattern) for name, pattern in patterns.items()}


def test_a_row_by_hand() -> None:
    conditions = _conditions(unsteered=BASE, always="0111111u0t")
    conditions["gated"] = outcomes("gated", "1111000000", fired="0001100000", steps="1100000000")
    rows = summarise(conditions)
    always = rows["always"]
    assert (always.n, always.k, always.fixed, always.broken, always.pairs) == (10, 1, 4, 1, 10)
    assert (always.accuracy, always.gain) == pytest.approx((0.6, 0.3))
    assert always.p == pytest.approx(2 * (1 + 5) / 2**5)
    assert (always.test, always.pass_at_k) == ("McNemar", None)
    assert (always.unscored, always.truncated, always.disagreements) == (1, 1, 0)
    assert always.tokens_per_answer == pytest.approx(14.5)
    assert (always.firing_rate, always.steps_right) == (None, None)
    assert always.gain_low < 0.3 < always.gain_high
    assert always.low < 0.6 < always.high
    assert always.minimum_detectable_gain == minimum_detectable_gain(10, 0.5)
    gated = rows["gated"]
    assert (gated.firing_rate, gated.steps_right) == (0.2, 0.2)
    bare = rows["unsteered"]
    assert (bare.p, bare.gain, bare.fixed, bare.broken) == (1.0, 0.0, 0, 0)
    assert (bare.p_holm, bare.minimum_detectable_gain) == (None, None)
    assert set(condition_metrics(rows)) == {
        "accuracy, unsteered",
        "accuracy, always",
        "gain, always",
        "accuracy, gated",
        "gain, gated",
    }
    assert condition_metrics(rows)["gain, always"]["value"] == pytest.approx(0.3)


def test_the_level_sets_the_detectable_gain() -> None:
    conditions = _conditions(unsteered=BASE * 5, always="1111111000" * 5)
    strict, loose = (summarise(conditions, alpha)["always"].minimum_detectable_gain for alpha in (0.001, 0.2))
    assert strict is not None
    assert loose is not None
    assert strict > loose


def test_no_gain_of_any_size_is_none() -> None:
    assert summarise(_conditions(unsteered="11000", always="11100"))["always"].minimum_detectable_gain is None


def test_holm_is_over_the_claims_alone() -> None:
    conditions = _conditions(
        negative="0000000000",
        random_0="0000000000",
        prompt_only="1111111110",
        unsteered=BASE,
        my_own="0001111111",
        always="1111111111",
    )
    rows = summarise(conditions)
    assert list(rows) == ["unsteered", "always", "prompt-only", "my-own", "negative", "random"]
    claims = ["always", "prompt-only", "my-own"]
    assert [rows[name].p_holm for name in claims] == pytest.approx(holm([rows[name].p for name in claims]).tolist())
    # 7 fixed: 2 / 2^7 times three; 6 fixed: 2 / 2^6 times two; 7 fixed and 3 broken of 10: 0.34 alone
    assert [rows[name].p_holm for name in claims[:2]] == pytest.approx([6 / 128, 4 / 64])
    assert [rows[name].p_holm for name in ("unsteered", "negative", "random")] == [None] * 3


def test_random_sets_are_folded_by_kind() -> None:
    conditions = _conditions(
        unsteered=BASE,
        always="1111111111",
        random_0="1111111000",
        random_1="0000000000",
        random_2="1110000000",
        random_norm_0="1111111111",
        random_norm_1="1110000000",
    )
    rows = summarise(conditions)
    assert list(rows) == ["unsteered", "always", "random", "random-norm"]
    random = rows["random"]
    assert random.condition == "random"
    assert random.accuracy == pytest.approx((0.7 + 0.0 + 0.3) / 3)
    assert random.gain == pytest.approx((0.4 - 0.3 + 0.0) / 3)
    assert (random.fixed, random.broken) == (round(4 / 3), round(3 / 3))
    assert random.p == pytest.approx(min(1.0, 3 * 0.5**4))
    gains = [minimum_detectable_gain(10, changed / 10) for changed in (4, 3, 0)]
    assert random.minimum_detectable_gain == pytest.approx(np.mean(gains))
    assert rows["random-norm"].p == pytest.approx(2 * 0.5**7)
    assert random_gains(conditions) == {"random": pytest.approx([0.4, -0.3, 0.0]), "random-norm": pytest.approx([0.7, 0.0])}


def test_a_random_set_that_hurts_is_no_gain() -> None:
    base = outcomes("unsteered", "1111111111")
    row = summarise_random("random", base, {"random-0": outcomes("random-0", "0000000000")})
    assert row.p == 1.0
    assert row.gain == -1.0


def test_several_responses_are_averaged_over_problems() -> None:
    base = outcomes("unsteered", "11000000", "10000000")
    conditions = {"unsteered": base, "always": outcomes("always", "11111100", "111111tu"), "random-0": base}
    row = summarise(conditions)["always"]
    assert (row.n, row.k, row.test, row.pairs) == (8, 2, "permutation", 16)
    assert row.accuracy == 12 / 16
    assert row.pass_at_k == 6 / 8
    assert (row.fixed, row.broken, row.unscored, row.truncated) == (9, 0, 1, 1)
    # differences 0, 1, 2, 2, 2, 2, 0, 0 responses of 2
    assert row.p == sign_flip_p([1, 2, 2, 2, 2]) == 2 / 2**5
    assert summarise(conditions)["random"].p == 1.0


def test_the_random_p_of_several_responses_is_one_sided() -> None:
    base = outcomes("unsteered", "00000000", "00000000")
    sets = {"random-0": outcomes("random-0", "11111000", "11111000"), "random-1": base}
    row = summarise_random("random", base, sets)
    assert row.p == pytest.approx(2 / 2**5)
    correct = [[response == "1"] * 2 for response in "11111000"]
    assert gain_p(np.zeros((8, 2), np.bool_), np.array(correct)) == 1 / 2**5


def test_a_greedy_base_and_sampled_responses_do_not_break_a_table() -> None:
    rows = summarise({"unsteered": outcomes("unsteered", BASE), "sampled": outcomes("sampled", *[BASE] * 4, seed=1)})
    assert (rows["unsteered"].k, rows["unsteered"].test) == (1, "McNemar")
    assert (rows["sampled"].k, rows["sampled"].test, rows["sampled"].pairs) == (4, "permutation", 0)
    assert rows["sampled"].gain == pytest.approx(0)


def test_disagreements_of_the_math_grader_are_counted() -> None:
    from trimtab.tasks.grading.math import DISAGREES

    assert DISAGREEMENT in DISAGREES
    condition = outcomes("always", BASE)
    marked = [
        replace(row, reason=f"equals the gold answer; {DISAGREES}") if i in (2, 5) else row for i, row in enumerate(condition)
    ]
    assert summarise({"unsteered": outcomes("unsteered", BASE), "always": marked})["always"].disagreements == 2


def test_flips() -> None:
    base, condition = outcomes("unsteered", "1100"), outcomes("always", "1010")
    groups = {"p0": "x", "p1": "x", "p2": "a", "p3": "x"}
    table = flips(base, condition, groups)
    assert list(table) == ["a", "x"]
    assert table == {"a": {"fixed": 1}, "x": {"still right": 1, "broken": 1, "still wrong": 1}}
    assert flips(outcomes("unsteered", "10", "00"), outcomes("always", "11", "01"), {"p0": "x", "p1": "x"}) == {
        "x": {"still right": 1, "fixed": 2, "still wrong": 1}
    }


def test_conditions_of_other_problems_raise() -> None:
    base = outcomes("unsteered", "1100")
    with pytest.raises(InputError, match="compared on the same problems"):
        summarise({"unsteered": base, "always": outcomes("always", "110")})
    with pytest.raises(InputError, match="compared on the same problems"):
        flips(base, outcomes("always", "110"), {f"p{i}": "g" for i in range(4)})
