"""Intervals: published values, values by hand, loops and enumeration, and statsmodels; pass@k by trying every subset."""

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.stats.estimates import (
    bootstrap_macro,
    bootstrap_mean,
    mean_estimates,
    mean_pass_at,
    newcombe_paired,
    pass_at_k,
    ratio_estimates,
    square_and_add,
    wilson,
)
from trimtab.stats.values import Interval

Z = 1.959963984540054


counts = st.integers(0, 40)


def naive_wilson(successes: int, n: int) -> tuple[float, float]:
    p = successes / n
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return centre - half, centre + half


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(1, 200))
def test_wilson_equals_its_formula(successes, n):
    successes = min(successes, n)
    assert wilson(successes, n) == pytest.approx(naive_wilson(successes, n), abs=1e-9)


def test_wilson_known_values():
    # Newcombe (1998, Statistics in Medicine 17:857), table I, method 3
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@pytest.mark.parametrize(("successes", "n", "level"), [(-1, 3, 0.95), (4, 3, 0.95), (0, 0, 0.95), (1, 3, 1.0)])
def test_wilson_refusals(successes, n, level):
    with pytest.raises(InputError):
        wilson(successes, n, level)


def naive_newcombe(a: int, b: int, c: int, d: int) -> tuple[float, float]:
    """Newcombe's steps with his letters: a both, b first only, c second only, d neither."""
    n = a + b + c + d
    p1, p2 = (a + b) / n, (a + c) / n
    (l1, u1), (l2, u2) = naive_wilson(a + b, n), naive_wilson(a + c, n)
    dl1, du1, dl2, du2 = p1 - l1, u1 - p1, p2 - l2, u2 - p2
    product = (a + b) * (c + d) * (a + c) * (b + d)
    phi = 0.0
    if product:
        top = a * d - b * c
        phi = (top if top <= 0 else max(top - n / 2, 0)) / math.sqrt(product)
    low = (p1 - p2) - math.sqrt(max(0.0, dl1**2 - 2 * phi * dl1 * du2 + du2**2))
    high = (p1 - p2) + math.sqrt(max(0.0, du1**2 - 2 * phi * du1 * dl2 + dl2**2))
    return max(low, -1.0), min(high, 1.0)


@settings(deadline=None)
@given(counts, counts, counts, st.integers(1, 40))
def test_newcombe_equals_its_steps(a, b, c, d):
    interval = newcombe_paired(a, b, c, d)
    assert interval == pytest.approx(naive_newcombe(a, b, c, d), abs=1e-9)
    assert interval.low - 1e-12 <= (b - c) / (a + b + c + d) <= interval.high + 1e-12
    mirrored = newcombe_paired(a, c, b, d)
    assert (-mirrored.high, -mirrored.low) == pytest.approx(interval, abs=1e-9)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        # Newcombe (1998, Statistics in Medicine 17:2635), method 10
        ((36, 12, 2, 0), (0.0569, 0.3404)),
        ((20, 12, 2, 16), (0.0562, 0.3292)),
        ((36, 14, 0, 0), (0.1528, 0.4167)),
        # phi = 0 and both proportions 1: the interval is the Wilson reach 1 - 54 / (54 + z^2) on both sides
        ((54, 0, 0, 0), (-0.0664, 0.0664)),
    ],
)
def test_newcombe_known_values(table, expected):
    assert newcombe_paired(*table) == pytest.approx(expected, abs=5e-5)


def test_newcombe_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    shares = [0.5, 0.15, 0.05, 0.3]
    tables = rng.multinomial(80, shares, 400).tolist()
    hits = sum(low <= 0.10 <= high for low, high in (newcombe_paired(*table) for table in tables))
    assert 0.91 < hits / 400 < 0.985


def test_newcombe_refusals():
    with pytest.raises(InputError, match="cannot be negative"):
        newcombe_paired(1, -1, 0, 2)
    with pytest.raises(InputError):
        newcombe_paired(0, 0, 0, 0)


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (7, 7), (8, 10), (250, 1319), (1, 1)])
def test_wilson_is_that_of_statsmodels(successes, n):
    assert wilson(successes, n) == pytest.approx(proportion_confint(successes, n, method="wilson"), abs=1e-9)


def test_square_and_add_by_hand():
    # the condition reaches 3 down and 4 up, the base 1 down and 4 up, all in hundredths: sqrt(9 + 16) and sqrt(16 + 1)
    condition, base = Interval(0.47, 0.54), Interval(0.39, 0.44)
    low, high = square_and_add(0.1, 0.5, condition, 0.4, base)
    assert (low, high) == pytest.approx((0.05, 0.1 + 0.01 * math.sqrt(17)))
    # whole correlation: only the difference of the two ways is left
    assert square_and_add(0.1, 0.5, condition, 0.4, base, 1.0) == pytest.approx((0.1 - 0.01, 0.1 + 0.03))
    assert square_and_add(1.0, 1.0, Interval(0.2, 1.0), 0.0, Interval(0.0, 0.8)).high == 1.0


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_pass_at_k_equals_trying_every_subset(n):
    for correct in range(n + 1):
        for k in range(1, n + 1):
            subsets = list(combinations(range(n), k))
            expected = sum(any(i < correct for i in subset) for subset in subsets) / len(subsets)
            assert pass_at_k(n, correct, k) == pytest.approx(expected, abs=1e-12)
            # the chance that k draws without replacement hold no correct sample
            assert pass_at_k(n, correct, k) == pytest.approx(1 - stats.hypergeom.pmf(0, n, correct, k), abs=1e-12)


def test_pass_at_k_stays_exact_for_many_samples():
    assert pass_at_k(1000, 1, 1) == 0.001
    assert pass_at_k(10_000, 10, 5000) == pytest.approx(1 - 0.5**10, rel=0.01)


@pytest.mark.parametrize("arguments", [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_pass_at_k_refusals(arguments):
    with pytest.raises(InputError, match="pass@k needs"):
        pass_at_k(*arguments)


def test_mean_pass_by_hand():
    # of 4 responses 0, 1 and 4 are correct: pass@2 is 0, 1 - 3/6 and 1
    assert mean_pass_at(4, [0, 1, 4], 2) == pytest.approx(0.5)
    assert mean_pass_at(4, [0, 1, 4], 1) == pytest.approx(5 / 12), "pass@1 is avg@k"
    assert mean_pass_at(4, [0, 1, 4], 4) == pytest.approx(2 / 3)
    with pytest.raises(NotEnoughDataError, match="no problem"):
        mean_pass_at(4, [], 1)


def test_bootstrap_near_students_interval():
    values = np.random.default_rng(0).normal(0.1, 1.0, 400)
    expected = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
    assert bootstrap_mean(values) == pytest.approx(expected, abs=0.01)


def test_bootstrap_of_three_problems_equals_all_27_draws():
    values = [0.0, 0.25, 1.0]
    means = sorted(sum(draw) / 3 for draw in product(values, repeat=3))
    for level in (0.5, 0.8):
        tail = (1 - level) / 2
        low, high = bootstrap_mean(values, level=level)
        # a resampled quantile may be the neighbour where the 27 means step
        shares = [np.mean([mean <= low + 1e-9 for mean in means]), np.mean([mean < high - 1e-9 for mean in means])]
        assert shares[0] >= tail - 0.02
        assert shares[1] <= 1 - tail + 0.02
        assert any(low == pytest.approx(mean) for mean in means)
        assert any(high == pytest.approx(mean) for mean in means)


def test_responses_of_a_problem_widen_the_interval_when_they_are_alike():
    rng = np.random.default_rng(1)
    shares = rng.integers(0, 2, 60).astype(float)  # 10 responses each, all alike
    low, high = bootstrap_mean(shares)
    half = 1.96 * (shares.mean() * (1 - shares.mean()) / 600) ** 0.5
    assert high - low > 2.5 * (2 * half)


def test_bootstrap_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        low, high = bootstrap_mean(rng.normal(0.2, 1, 60), resamples=500)
        hits += low <= 0.2 <= high
    assert 0.88 < hits / 200 < 0.985


def test_blocks_do_not_change_the_draws(monkeypatch):
    values = np.random.default_rng(3).normal(size=40)
    whole = bootstrap_mean(values)
    monkeypatch.setattr("trimtab.stats.estimates.BLOCK", 40 * 300)
    assert bootstrap_mean(values) == pytest.approx(whole, abs=1e-12)


def test_macro_interval_near_that_of_stratified_sampling():
    rng = np.random.default_rng(5)
    sizes = {"a": 300, "b": 40, "c": 120}
    values = np.concatenate([rng.normal(i, 1 + i, n) for i, n in enumerate(sizes.values())])
    strata = np.repeat(list(sizes), list(sizes.values()))
    groups = [values[strata == name] for name in sizes]
    mean = np.mean([group.mean() for group in groups])
    error = np.sqrt(sum(group.var() / len(group) for group in groups)) / 3
    low, high = bootstrap_macro(values, strata)
    assert (low, high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.03)
    # the mean over all problems lies elsewhere: the big group has the lowest mean
    assert values.mean() < low


def test_one_stratum_is_the_plain_bootstrap():
    values = np.random.default_rng(6).normal(size=30)
    assert bootstrap_macro(values, ["all"] * 30) == bootstrap_mean(values)


def test_near_duplicates_are_drawn_together_in_a_macro_average():
    """Each value six times: as wide as the values alone, and the mean of a stratum weighs its clusters by their sizes."""
    values = np.random.default_rng(7).normal(size=40)
    strata = np.repeat(["a", "b"], 20)
    names = [f"c{i:02d}" for i in range(40)]
    alone = bootstrap_macro(values, strata)
    together = bootstrap_macro(np.repeat(values, 6), np.repeat(strata, 6), list(np.repeat(names, 6)))
    assert together == pytest.approx(alone, abs=1e-12)
    apart = bootstrap_macro(np.repeat(values, 6), np.repeat(strata, 6))
    assert apart.high - apart.low < 0.6 * (together.high - together.low)
    assert bootstrap_macro(values, strata, names) == alone
    with pytest.raises(NotEnoughDataError, match="got 1"):
        bootstrap_macro([0.1, 0.2, 0.3, 0.4], ["a", "a", "b", "b"], ["x", "x", "y", "z"])


def test_seeds():
    values = np.random.default_rng(4).normal(size=40)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_bootstrap_refusals():
    with pytest.raises(NotEnoughDataError, match="got 1"):
        bootstrap_mean([0.1])
    with pytest.raises(NotEnoughDataError, match="got 0"):
        bootstrap_mean([])
    with pytest.raises(NotEnoughDataError, match="got 1"):
        bootstrap_macro([0.1, 0.2, 0.3], ["a", "a", "b"])
    with pytest.raises(InputError, match="finite"):
        bootstrap_mean([0.1, math.nan])
    with pytest.raises(InputError, match="one stratum each"):
        bootstrap_macro([0.1, 0.2], ["a"])


RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(12, 2))
TOKENS = RNG.integers(1, 9, 12).astype(np.float64)
PROBLEMS = [f"p{i // 3}" for i in range(12)]


def test_the_interval_is_that_of_a_loop_over_the_same_draws() -> None:
    estimates = ratio_estimates(VALUES, TOKENS, PROBLEMS, resamples=200, seed=5)
    draws_of_problems = np.random.default_rng(5).integers(0, 4, (200, 4))
    for column, estimate in enumerate(estimates):
        draws = []
        for chosen in draws_of_problems:
            above = below = 0.0
            for problem in chosen:
                for i in range(12):
                    if PROBLEMS[i] == f"p{problem}":
                        above += VALUES[i, column]
                        below += TOKENS[i]
            draws.append(above / below)
        assert estimate.value == pytest.approx(VALUES[:, column].sum() / TOKENS.sum())
        assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))


def test_more_responses_of_the_same_problems_claim_no_more() -> None:
    once = mean_estimates(VALUES, PROBLEMS)
    thrice = mean_estimates(np.tile(VALUES, (3, 1)), PROBLEMS * 3)
    for one, other in zip(once, thrice, strict=True):
        assert (other.low, other.high) == pytest.approx((one.low, one.high))


def test_blocks_change_no_draw_of_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mean_estimates(VALUES, PROBLEMS, seed=2)
    monkeypatch.setattr("trimtab.stats.estimates.BLOCK", 60)
    assert mean_estimates(VALUES, PROBLEMS, seed=2) == whole


@pytest.mark.parametrize(
    ("values", "tokens", "problems", "error", "message"),
    [
        (VALUES, TOKENS[:3], PROBLEMS, InputError, "one denominator and one problem a trace"),
        (VALUES, TOKENS, PROBLEMS[:3], InputError, "one denominator and one problem a trace"),
        (VALUES * np.nan, TOKENS, PROBLEMS, InputError, "finite values and denominators above 0"),
        (VALUES, TOKENS * 0, PROBLEMS, InputError, "finite values and denominators above 0"),
        (VALUES, TOKENS, ["p"] * 12, NotEnoughDataError, "needs two or more, got 1"),
    ],
)
def test_ratio_refusals(
    values: np.ndarray, tokens: np.ndarray, problems: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ratio_estimates(values, tokens, problems)
