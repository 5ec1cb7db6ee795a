"""One criterion per module: ``NAME``, ``NEEDS`` and a function ``score`` that follows
:class:`trimtab.ranking.criterion.Criterion`."""

from collections.abc import Mapping
from types import MappingProxyType

from trimtab.ranking.contrast import Statistic
from trimtab.ranking.criteria import (
    activation_ratio,
    adaras,
    adaras_float32,
    auroc,
    mathneuro,
    mean_difference,
    paired_t,
    random_neurons,
    sign_flip,
    top_activation,
    wanda,
)
from trimtab.ranking.criterion import Criterion, SeededCriterion

SEEDED: Mapping[str, SeededCriterion] = MappingProxyType(
    {sign_flip.NAME: sign_flip.score, random_neurons.NAME: random_neurons.score}
)
"""Those of :data:`CRITERIA` that draw."""

CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        adaras.NAME: adaras.score,
        adaras_float32.NAME: adaras_float32.score,
        mean_difference.NAME: mean_difference.score,
        sign_flip.NAME: sign_flip.score,
        activation_ratio.NAME: activation_ratio.score,
        top_activation.NAME: top_activation.score,
        mathneuro.NAME: mathneuro.score,
        wanda.NAME: wanda.score,
        auroc.NAME: auroc.score,
        paired_t.NAME: paired_t.score,
        random_neurons.NAME: random_neurons.score,
    }
)

NEEDS: Mapping[str, frozenset[Statistic]] = MappingProxyType(
    {
        module.NAME: module.NEEDS
        for module in (
            adaras,
            adaras_float32,
            mean_difference,
            sign_flip,
            activation_ratio,
            top_activation,
            mathneuro,
            wanda,
            auroc,
            paired_t,
            random_neurons,
        )
    }
)
"""The statistics that a criterion reads beside the class means; ``wanda`` reads ``ClassMoments.column_norm`` as well."""

__all__ = ["CRITERIA", "NEEDS", "SEEDED"]
