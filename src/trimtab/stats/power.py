"""How small a gain a paired test can see."""

import math

import numpy as np
from scipy import optimize, stats

from trimtab.errors import InputError


def minimum_detectable_gain(n: int, discordance: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true gain that the two-sided exact McNemar test finds with the given power.

    Of n problems a share `discordance` changes its verdict, so their number is D ~ Binomial(n, discordance). Given D, the
    number of fixed ones is Binomial(D, (discordance + gain) / (2 * discordance)), and the test finds the gain when its
    two-sided p is at most alpha with more fixed than broken. Power is the mean over D. It grows with the gain, so the smallest
    gain is a root.

    A gain larger than `discordance` means more changes than that: there the discordance is taken to be the gain, all of it fixed.

    Args:
        n: problems.
        discordance: share of problems that are fixed or broken, for example the observed one.
        power: wanted probability of finding the gain.
        alpha: two-sided level of the test.

    Returns:
        The gain in accuracy as a fraction, or infinity when not even n fixed problems of n would be enough.

    Raises:
        InputError: an argument is out of range.
    """
    if not 0 <= discordance <= 1:
        raise InputError(f"a discordance is a share of problems between 0 and 1, got {discordance}")
    _check(n, power, alpha)
    if mcnemar_power(n, discordance, 1.0, alpha) < power:
        return math.inf
    return float(optimize.root_scalar(lambda gain: mcnemar_power(n, discordance, gain, alpha) - power, bracket=(0.0, 1.0)).root)


def mcnemar_power(n: int, discordance: float, gain: float, alpha: float = 0.05) -> float:
    """Probability that the two-sided exact McNemar test finds a gain; see :func:`minimum_detectable_gain` for the model."""
    if max(discordance, gain) == 0:
        return 0.0
    share_fixed = (discordance + gain) / (2 * discordance) if gain < discordance else 1.0
    weight = stats.binom.pmf(np.arange(n + 1), n, max(discordance, gain))
    changed = np.flatnonzero(weight)
    # the fewest fixed problems whose upper tail under a fair coin is at most alpha / 2
    critical = stats.binom.isf(alpha / 2, changed, 0.5) + 1
    return float(weight[changed] @ stats.binom.sf(critical - 1, changed, share_fixed))


def permutation_detectable_gain(n: int, standard_error: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true gain that the sign-flip test over problems finds with the given power, by normal approximation.

    ``(z_(1 - alpha/2) + z_power) * standard_error``: the test rejects about where the mean difference is ``z_(1 - alpha/2)``
    standard errors from 0. Good from some 30 problems whose responses differ. Where no problem differs from another the standard
    error is 0 and says nothing: there it is McNemar's gain with no discordance, as if all responses of a problem agreed.

    Args:
        n: problems.
        standard_error: of the mean over problems of the differences, as observed.
        power, alpha: as in :func:`minimum_detectable_gain`.

    Returns:
        The gain as a fraction, or infinity where the n problems cannot show any: all signs alike have ``p = 2 / 2^n``.

    Raises:
        InputError: an argument is out of range.
    """
    if not 0 <= standard_error < math.inf:
        raise InputError(f"a standard error is at least 0 and finite, got {standard_error}")
    _check(n, power, alpha)
    if 2.0 * 0.5**n > alpha:
        return math.inf
    if standard_error == 0:
        return minimum_detectable_gain(n, 0.0, power, alpha)
    gain = float(stats.norm.isf(alpha / 2) + stats.norm.ppf(power)) * standard_error
    return gain if gain <= 1 else math.inf


def _check(n: int, power: float, alpha: float) -> None:
    if n < 1 or not 0 < alpha < power < 1:
        raise InputError(f"need n >= 1 and 0 < alpha < power < 1, got {n=}, {power=}, {alpha=}")
