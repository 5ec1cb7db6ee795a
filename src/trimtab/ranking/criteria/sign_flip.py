"""Sign flips alone: AdaRAS's ablation "without mean difference"."""

import numpy as np

from trimtab.ranking.contrast import ClassMoments, Statistic
from trimtab.ranking.criterion import Ranking, sort_neurons

NAME = "sign-flip"
NEEDS: frozenset[Statistic] = frozenset()


def score(moments: ClassMoments, /, seed: int = 0) -> Ranking:
    """Rank the neurons whose class means have opposite strict signs, all with score 1, in a random order.

    The ablation must not look at the size of the difference, and by address the first layer would be taken first; so a uniform
    draw per neuron of the model decides, the same draw whichever neurons flip. A mean of exactly 0 is no flip.
    """
    correct_mean, incorrect_mean = moments.correct_mean, moments.incorrect_mean
    # not by the sign of the product, which underflows to 0
    flips = ((correct_mean > 0) & (incorrect_mean < 0)) | ((correct_mean < 0) & (incorrect_mean > 0))
    draw = np.random.default_rng(seed).random(correct_mean.shape)
    return sort_neurons(flips, np.ones_like(draw), draw, facts={"seed": seed})
