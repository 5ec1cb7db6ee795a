"""Neurons drawn at random: what a criterion has to beat."""

import numpy as np

from trimtab.ranking.contrast import ClassMoments, Statistic
from trimtab.ranking.criterion import Ranking, sort_neurons

NAME = "random"
NEEDS: frozenset[Statistic] = frozenset()


def score(moments: ClassMoments, /, seed: int = 0) -> Ranking:
    """Order by a uniform draw per neuron, from all neurons of the model that have a value in both classes.

    They keep their own class means; :func:`trimtab.ranking.random_sets.random_like` draws the stricter control, which takes
    over the layers and the shifts of a found set.
    """
    draw = np.random.default_rng(seed).random(moments.correct_mean.shape)
    return sort_neurons(moments.comparable, draw, facts={"seed": seed})
