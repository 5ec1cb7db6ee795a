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
    if n < 1 or not 0 <= discordance <= 1 or not 0 < alpha < power < 1:
        raise InputError(
            f"need n >= 1, a discordance in [0, 1] and 0 < alpha < power < 1, got {n=}, {discordance=}, {power=}, {alpha=}"
        )
    if mcnemar_power(n, discordance, 1.0, alpha) < power:
        return math.inf
    return float(optimize.root_scalar(lambda gain: mcnemar_power(n, discordance, gain, alpha) - power, bracket=(0.0, 1.0)).root)


def mcnemar_power(n: int, discordance: float, gain: float, alpha: float = 0.05) -> float:
    """Probability that the two-sided exact McNemar test finds a gain; see :func:`minimum_detectable_gain` for the model."""
    if max(discordance, gain) == 0:
        return 0.0
    share_fixed = (discordance + gain) / (2 * discordance) if gain < discordance else 1.0
    changed = np.arange(n + 1)
    weight = stats.binom.pmf(changed, n, max(discordance, gain))
    # the fewest fixed problems whose upper tail under a fair coin is at most alpha / 2
    critical = stats.binom.isf(alpha / 2, changed, 0.5) + 1
    return float(weight @ stats.binom.sf(critical - 1, changed, share_fixed))
