"""Power of the exact test by summing over every table, and the smallest gain that reaches it; the normal approximation."""

import math

import numpy as np
import pytest
from statsmodels.stats.power import NormalIndPower

from trimtab.errors import InputError
from trimtab.stats.power import mcnemar_power, minimum_detectable_gain, permutation_detectable_gain
from trimtab.stats.significance import mcnemar_exact, sign_flip_p


def naive_power(n: int, p_fixed: float, p_broken: float, alpha: float) -> float:
    total = 0.0
    for fixed in range(n + 1):
        for broken in range(n + 1 - fixed):
            if fixed > broken and mcnemar_exact(fixed, broken) <= alpha:
                ways = math.comb(n, fixed) * math.comb(n - fixed, broken)
                total += ways * p_fixed**fixed * p_broken**broken * (1 - p_fixed - p_broken) ** (n - fixed - broken)
    return total


@pytest.mark.parametrize(("n", "discordance", "gain"), [(12, 0.5, 0.3), (20, 0.3, 0.3), (15, 1.0, 0.5), (20, 0.4, 0.0)])
def test_power_equals_summing_over_all_tables(n, discordance, gain):
    expected = naive_power(n, (discordance + gain) / 2, (discordance - gain) / 2, 0.05)
    assert mcnemar_power(n, discordance, gain) == pytest.approx(expected, abs=1e-12)


def test_a_gain_beyond_the_discordance_takes_it_along():
    assert mcnemar_power(20, 0.1, 0.35) == pytest.approx(naive_power(20, 0.35, 0.0, 0.05), abs=1e-12)
    assert mcnemar_power(20, 0.0, 0.0) == 0.0


@pytest.mark.parametrize("discordance", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("n", [23, 149, 500])
def test_the_gain_has_just_the_wanted_power(n, discordance):
    gain = minimum_detectable_gain(n, discordance)
    assert mcnemar_power(n, discordance, gain + 1e-6) >= 0.8
    assert mcnemar_power(n, discordance, gain - 1e-6) < 0.8


def test_monotone_in_power_level_problems_and_discordance():
    by_power = [minimum_detectable_gain(200, 0.2, power) for power in (0.5, 0.7, 0.8, 0.9, 0.99)]
    by_level = [minimum_detectable_gain(200, 0.2, alpha=alpha) for alpha in (0.2, 0.05, 0.01, 0.001)]
    by_discordance = [minimum_detectable_gain(200, share) for share in (0.05, 0.1, 0.2, 0.4, 0.8)]
    by_problems = [minimum_detectable_gain(n, 0.2) for n in (1319, 500, 200, 100, 50)]
    for gains in (by_power, by_level, by_discordance, by_problems):
        assert gains == sorted(gains)
        assert len(set(gains)) == len(gains)


def test_near_the_normal_approximation_for_many_problems():
    # gain = (z_(alpha/2) + z_power) * sqrt(discordance / n) for gains well below the discordance
    assert minimum_detectable_gain(5000, 0.3) == pytest.approx((1.96 + 0.8416) * (0.3 / 5000) ** 0.5, rel=0.03)


def test_power_agrees_with_simulation():
    rng = np.random.default_rng(0)
    gain = minimum_detectable_gain(150, 0.2)
    tables = rng.multinomial(150, [(0.2 + gain) / 2, (0.2 - gain) / 2, 0.8], 1500)
    found = np.mean([fixed > broken and mcnemar_exact(fixed, broken) <= 0.05 for fixed, broken, _ in tables.tolist()])
    assert found == pytest.approx(0.8, abs=0.04)


def test_five_problems_can_show_nothing_and_six_can():
    # five fixed of five: p = 2 / 32 > 0.05; six of six: p = 2 / 64
    assert minimum_detectable_gain(5, 0.5) == math.inf
    assert minimum_detectable_gain(6, 0.5) == pytest.approx(0.8 ** (1 / 6))


@pytest.mark.parametrize("arguments", [(0, 0.1), (10, -0.1), (10, 1.1), (10, 0.1, 0.04, 0.05), (10, 0.1, 1.0)])
def test_refusals(arguments):
    with pytest.raises(InputError):
        minimum_detectable_gain(*arguments)


@pytest.mark.parametrize(("n", "deviation", "power", "alpha"), [(50, 0.3, 0.8, 0.05), (400, 0.11, 0.9, 0.01)])
def test_the_permutation_gain_is_that_of_statsmodels(n, deviation, power, alpha):
    # one sample of paired differences: ratio 0; its effect is in standard deviations
    effect = NormalIndPower(ddof=0).solve_power(effect_size=None, nobs1=n, alpha=alpha, power=power, ratio=0)
    gain = permutation_detectable_gain(n, deviation / n**0.5, power, alpha)
    assert gain == pytest.approx(effect * deviation, rel=1e-4)


def test_the_permutation_gain_by_hand():
    # z(0.975) + z(0.8) = 1.959964 + 0.841621
    assert permutation_detectable_gain(100, 0.01) == pytest.approx(0.02801585, abs=1e-8)


def test_the_permutation_gain_is_found_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    base, n, k = rng.uniform(0.2, 0.8, 150), 150, 4
    spread = np.sqrt((2 * base * (1 - base) / k).mean() / n)
    gain = permutation_detectable_gain(n, spread)
    found = 0
    for _ in range(150):
        differences = rng.binomial(k, np.minimum(base + gain, 1)) - rng.binomial(k, base)
        found += sign_flip_p(differences, resamples=499) <= 0.05 and differences.sum() > 0
    # 0.8 give or take three standard errors of 150 tries; slightly below, since a gain also widens the null distribution
    assert 0.7 < found / 150 < 0.9


def test_no_spread_says_nothing_and_is_taken_for_mcnemar_without_discordance():
    assert permutation_detectable_gain(50, 0.0) == minimum_detectable_gain(50, 0.0)


def test_five_problems_can_show_nothing_by_permutation_either():
    # all signs alike: 2 / 2^5 > 0.05, and 2 / 2^6 is below it
    assert permutation_detectable_gain(5, 0.01) == math.inf
    assert permutation_detectable_gain(6, 0.01) < math.inf
    assert permutation_detectable_gain(6, 0.5) == math.inf, "a gain above 1 is none"


@pytest.mark.parametrize("arguments", [(0, 0.1), (10, -0.1), (10, math.inf), (10, math.nan), (10, 0.1, 0.04, 0.05)])
def test_refusals_of_the_permutation_gain(arguments):
    with pytest.raises(InputError):
        permutation_detectable_gain(*arguments)
