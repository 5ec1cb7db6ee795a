"""The ratio of mean magnitudes between correct and incorrect reasoning, of neuron activation differential analysis."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.ranking.contrast import ClassMoments, Statistic
from trimtab.ranking.criterion import Ranking, needed, sort_neurons
from trimtab.ranking.shares import top_share

NAME = "activation-ratio"
NEEDS: frozenset[Statistic] = frozenset(("magnitude",))


def score(
    moments: ClassMoments,
    /,
    *,
    threshold: float = 1.15,
    share: float = 0.1,
    per_layer: bool = False,
    moment: Literal["magnitude", "rms"] = "magnitude",
) -> Ranking:
    """Order by ``q = correct_mean / incorrect_mean`` of the class means of a per-trace magnitude, among the top share of q and
    above a threshold.

    The source's average L2 norm of a neuron's activation, a scalar, is read as its mean magnitude; ``rms`` is the other reading.
    x/0 is no ratio: such neurons are left out and counted (``zero_denominator``).

    Args:
        moments: with magnitudes, or with root mean squares for ``rms``.
        threshold: only ``q > threshold``.
        share: of all neurons of the model, or of each layer; the top ``max(1, round(share * n))`` by q, ties by address.
        per_layer: take the share from each layer.
        moment: what is compared.

    Raises:
        InputError: a share outside (0, 1], a threshold that is no ratio, or a moment that was not recorded.
    """
    if not threshold >= 0:
        raise InputError(f"criterion {NAME!r} got the threshold {threshold}; a ratio of magnitudes is 0 or more")
    correct_mean, incorrect_mean = _magnitudes(moments, moment)
    has_ratio = moments.comparable & (incorrect_mean > 0)
    q = np.divide(correct_mean, incorrect_mean, out=np.zeros_like(correct_mean), where=has_ratio)
    kept = top_share(has_ratio, q, share, per_layer)
    facts = {
        "moment": moment,
        "threshold": threshold,
        "top_share": share,
        "per_layer": per_layer,
        "zero_denominator": int((moments.comparable & (incorrect_mean == 0)).sum()),
        "in_top_share": int(kept.sum()),
    }
    return sort_neurons(kept & (q > threshold), q, facts=facts)


def _magnitudes(moments: ClassMoments, moment: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if moment not in ("magnitude", "rms"):
        raise InputError(f"criterion {NAME!r} got the moment {moment!r}; accepted: magnitude, rms")
    recorded = "magnitude" if moment == "magnitude" else "square"
    correct_mean, incorrect_mean = (
        (moments.correct_magnitude, moments.incorrect_magnitude)
        if moment == "magnitude"
        else (moments.correct_rms, moments.incorrect_rms)
    )
    return needed(correct_mean, recorded, NAME), needed(incorrect_mean, recorded, NAME)
