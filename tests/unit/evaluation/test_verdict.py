"""The word follows the exact test, and the sentence holds every figure."""

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.evaluation.statistics import PairedComparison, compare, minimum_detectable_gain
from trimtab.evaluation.verdict import verdict


def table(both_right: int, fixed: int, broken: int, both_wrong: int) -> PairedComparison:
    base = [True] * both_right + [False] * fixed + [True] * broken + [False] * both_wrong
    arm = [True] * both_right + [True] * fixed + [False] * broken + [False] * both_wrong
    return compare(np.array(base), np.array(arm))


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
    assert verdict(table(100, fixed, broken, 60), 0, 0).word == word


def test_alpha_is_the_level():
    comparison = table(100, 6, 0, 60)
    assert verdict(comparison, 0, 0, alpha=0.05).word == "helps"
    assert verdict(comparison, 0, 0, alpha=0.03).word == "no evidence"


def test_the_sentence_holds_every_figure():
    comparison = table(50, 30, 5, 15)
    sentence = verdict(comparison, 0, 0).sentence
    assert sentence.startswith("Helps: accuracy went from 55.0 % to 80.0 %, a gain of +25.0 points")
    assert f"95 % interval {100 * comparison.gain_low:+.1f} to {100 * comparison.gain_high:+.1f}" in sentence
    assert "exact McNemar p < 0.0001" in sentence
    assert "30 fixed, 5 broken, n = 100" in sentence
    assert f"a true gain of {100 * minimum_detectable_gain(100, 0.35):.1f} points in 80 % of cases" in sentence
    assert "scored" not in sentence


def test_three_of_twenty_three_is_no_evidence():
    result = verdict(table(11, 3, 0, 9), 0, 0)
    assert result.word == "no evidence"
    assert "exact McNemar p = 0.25; 3 fixed, 0 broken, n = 23" in result.sentence


def test_too_few_problems_to_show_anything():
    result = verdict(table(0, 5, 0, 0), 0, 0)
    assert result.word == "no evidence"
    assert "With n = 5 no gain of any size could have been shown." in result.sentence


@pytest.mark.parametrize(
    ("unscored", "word"), [((0, 0), "helps"), ((2, 2), "helps"), ((3, 0), "no verdict"), ((0, 3), "no verdict")]
)
def test_above_one_percent_unscored_there_is_no_verdict(unscored, word):
    assert verdict(table(100, 30, 2, 68), *unscored).word == word


def test_bounds_count_unscored_wrong_and_right():
    # base 102 and arm 130 of 200; one more of the base and two of the arm may be right
    sentence = verdict(table(100, 30, 2, 68), 1, 2).sentence
    assert "1 problems of the base and 2 of the arm could not be scored." in sentence
    assert "base between 51.0 % and 51.5 %, the arm between 65.0 % and 66.0 %" in sentence
    assert "the gain between +13.5 and +15.0 points" in sentence
    assert "above 1.0 % there is no verdict" in verdict(table(100, 30, 2, 68), 3, 0).sentence


def test_more_unscored_than_wrong_is_an_error():
    with pytest.raises(InputError, match="give unscored problems to compare"):
        verdict(table(10, 2, 1, 0), 3, 0)
    with pytest.raises(InputError, match="counts 2 and 1 as wrong"):
        verdict(table(10, 2, 1, 0), 0, 2)
    with pytest.raises(InputError):
        verdict(table(10, 2, 1, 5), -1, 0)
