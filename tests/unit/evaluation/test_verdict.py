"""The word follows the test, and the sentence holds every figure."""

import itertools
import math

import numpy as np
import pytest

from outcome_samples import outcomes
from trimtab.evaluation.verdict import judge
from trimtab.stats.paired import compare, smallest_gain
from trimtab.stats.power import minimum_detectable_gain
from trimtab.stats.values import PairedComparison
from trimtab.stats.verdict import verdict


def table(both_right: int, fixed: int, broken: int, both_wrong: int) -> PairedComparison:
    base = [True] * both_right + [False] * fixed + [True] * broken + [False] * both_wrong
    condition = [True] * both_right + [True] * fixed + [False] * broken + [False] * both_wrong
    return compare(np.array(base), np.array(condition))


@pytest.mark.parametrize(
    ("fixed", "broken", "word"),
    [
        (6, 0, "helps"),
        (5, 0, "no evidence"),
        (0, 6, "hurts"),
        (0, 5, "no evidence"),
        (0, 0, "no evidence"),
        (20, 20, "no evidence"),
    ],
)
def test_the_word_follows_the_exact_p(fixed, broken, word):
    assert verdict(table(100, fixed, broken, 60)).word == word


def test_alpha_is_the_level():
    comparison = table(100, 6, 0, 60)
    assert verdict(comparison, alpha=0.05).word == "helps"
    assert verdict(comparison, alpha=0.03).word == "no evidence"


def test_the_sentence_holds_every_figure():
    comparison = table(50, 30, 5, 15)
    sentence = verdict(comparison).sentence
    assert sentence.startswith("Helps: accuracy went from 55.0 % to 80.0 %, a gain of +25.0 points")
    assert f"95 % interval {100 * comparison.gain_low:+.1f} to {100 * comparison.gain_high:+.1f}" in sentence
    assert "exact McNemar p < 0.0001" in sentence
    assert "30 fixed, 5 broken, n = 100" in sentence
    assert f"a true gain of {100 * minimum_detectable_gain(100, 0.35):.1f} points in 80 % of cases" in sentence
    assert "scored" not in sentence


def test_three_of_twenty_three_is_no_evidence():
    result = verdict(table(11, 3, 0, 9))
    assert result.word == "no evidence"
    assert "exact McNemar p = 0.25; 3 fixed, 0 broken, n = 23" in result.sentence


def test_too_few_problems_to_show_anything():
    result = verdict(table(0, 5, 0, 0))
    assert result.word == "no evidence"
    assert "With n = 5 no gain of any size could have been shown." in result.sentence


def test_several_responses_name_their_test_and_their_pairs():
    base = outcomes("unsteered", "1000000000", "0100000000")
    condition = outcomes("always", "1111111110", "0111111100")
    result = judge(base, condition)
    assert result.word == "helps"
    # eight problems change alike or not at all: 2 of the 2^8 signs
    assert "accuracy over 2 responses a problem went from 10.0 % to 80.0 %" in result.sentence
    assert "sign-flip permutation test p = 0.0078; 14 fixed, 0 broken of 20 pairs, n = 10)" in result.sentence
    assert f"a true gain of {100 * smallest_gain(result.comparison):.1f} points" in result.sentence
    assert result.smallest_gain == smallest_gain(result.comparison)
    assert (result.bounds, result.ranges) == (None, None)


def test_another_number_of_responses_is_said():
    sentence = judge(outcomes("unsteered", "1000"), outcomes("sampled", "1100", "1000", seed=1)).sentence
    assert "accuracy over 1 against 2 responses a problem went" in sentence
    assert "no pairs of responses, n = 4" in sentence


def sides(base: str, condition: str):
    """Two conditions of 200 problems: 100 right in both, 30 fixed, 2 broken, and 68 wrong in both that start as given."""
    right = "1" * 100
    return (
        outcomes("unsteered", right + "0" * 30 + "11" + base.ljust(68, "0")),
        outcomes("always", right + "1" * 30 + "00" + condition.ljust(68, "0")),
    )


@pytest.mark.parametrize(
    ("base", "condition", "word"),
    [("", "", "helps"), ("uu", "uu", "helps"), ("uuu", "", "no verdict"), ("", "uuu", "no verdict")],
)
def test_above_one_percent_unscored_there_is_no_verdict(base, condition, word):
    assert judge(*sides(base, condition)).word == word


def test_bounds_count_unscored_wrong_and_right():
    # base 102 and condition 130 of 200; one more of the base and two of the condition may be right
    result = judge(*sides("u", "uu"))
    assert "1 problems of the base and 2 of the condition could not be scored." in result.sentence
    assert "base between 51.0 % and 51.5 %, the condition between 65.0 % and 66.0 %" in result.sentence
    assert "the gain between +13.5 and +15.0 points" in result.sentence
    assert "hangs" not in result.sentence
    assert "above 1.0 % there is no verdict" in judge(*sides("uuu", "")).sentence
    assert result.ranges == pytest.approx(
        {
            "base_low": 0.51,
            "base_high": 0.515,
            "condition_low": 0.65,
            "condition_high": 0.66,
            "gain_low": 0.135,
            "gain_high": 0.15,
        }
    )


def test_a_verdict_that_hangs_on_unscored_problems_says_so():
    # six fixed of 200, p = 2 / 2^6; with one of the base's unscored right there, five are left
    base = outcomes("unsteered", "1" * 100 + "u00000" + "0" * 94)
    condition = outcomes("always", "1" * 106 + "0" * 94)
    result = judge(base, condition)
    assert result.word == "no verdict"  # never stronger than the sentence
    assert result.sentence.endswith('The verdict hangs on them: it lies between "no evidence" and "helps".')


def test_one_percent_is_counted_over_chains():
    responses = ["1" * 50 + "0" * 50] * 4
    base = outcomes("unsteered", *responses)
    for unscored, word in ((4, "no evidence"), (5, "no verdict")):
        spoiled = "1" * 50 + "u" * unscored + "0" * (50 - unscored)
        assert judge(base, outcomes("always", spoiled, *responses[1:])).word == word
    assert "4 responses of the condition" not in judge(base, base).sentence
    assert (
        "0 responses of the base and 4 of the condition"
        in judge(base, outcomes("always", "1" * 50 + "uuuu" + "0" * 46, *responses[1:])).sentence
    )


def test_near_duplicates_count_once():
    # four problems, each six times with another space: 24 fixed look like p = 1e-7 and are four observations
    base, condition = outcomes("unsteered", "0" * 24), outcomes("always", "1" * 24)
    clusters = {f"p{i}": f"p{i // 6}" for i in range(24)}
    assert judge(base, condition).word == "helps"
    result = judge(base, condition, clusters=clusters)
    assert (result.word, result.comparison.n, result.comparison.clusters) == ("no evidence", 24, 4)
    assert result.comparison.p == pytest.approx(2 / 2**4)
    assert "n = 24 in 4 clusters of near-duplicates, each of which counts once in the test" in result.sentence
    assert math.isinf(result.smallest_gain)


def test_clusters_of_one_are_problems():
    base, condition = outcomes("unsteered", "0110" * 10), outcomes("always", "1010" * 10)
    alone = {f"p{i}": f"p{i}" for i in range(40)}
    assert judge(base, condition, clusters=alone) == judge(base, condition)


def test_the_test_over_clusters_is_the_sign_flip_of_their_sums():
    rng = np.random.default_rng(0)
    base, condition, names = rng.random(30) < 0.4, rng.random(30) < 0.6, [str(i) for i in rng.integers(0, 8, 30)]
    found = compare(base, condition, clusters=names)
    sums = [
        sum(int(c) - int(b) for b, c, n in zip(base, condition, names, strict=True) if n == name) for name in sorted(set(names))
    ]
    signs = [sum(s * d for s, d in zip(flips, sums, strict=True)) for flips in itertools.product((-1, 1), repeat=len(sums))]
    assert found.p == pytest.approx(np.mean([abs(total) >= abs(sum(sums)) for total in signs]))
    assert found.gain == pytest.approx(sum(sums) / 30)
    assert found.gain_low <= found.gain <= found.gain_high


@pytest.mark.parametrize(("base", "condition", "said"), [("000", "0t0", True), ("t00", "000", True), ("t00", "t00", False)])
def test_truncation_of_one_condition_alone_is_in_the_sentence(base, condition, said):
    result = judge(outcomes("unsteered", base + "1" * 97), outcomes("always", condition + "1" * 97))
    cut = (base.count("t"), condition.count("t"))
    sentence = f"The token limit cut {cut[0]} of 100 responses of the base and {cut[1]} of 100 of the condition"
    assert (sentence in result.sentence) == said
