"""One criterion per module: a ``NAME`` and a function ``score`` that follows :class:`trimtab.ranking.criterion.Criterion`."""

from collections.abc import Mapping
from types import MappingProxyType

from trimtab.ranking.criteria import adaras_float32, mean_difference, mean_difference_polarity, paired_t, random_neurons
from trimtab.ranking.criterion import Criterion

CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        mean_difference_polarity.NAME: mean_difference_polarity.score,
        adaras_float32.NAME: adaras_float32.score,
        mean_difference.NAME: mean_difference.score,
        paired_t.NAME: paired_t.score,
        random_neurons.NAME: random_neurons.score,
    }
)

__all__ = ["CRITERIA", "adaras_float32", "mean_difference", "mean_difference_polarity", "paired_t", "random_neurons"]
