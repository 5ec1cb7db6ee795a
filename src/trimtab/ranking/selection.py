"""From a ranking to the set of the K best neurons."""

from collections.abc import Mapping

import numpy as np

from trimtab.errors import InputError, MismatchError
from trimtab.neurons import ModelIdentity, NeuronSet
from trimtab.ranking.contrast import ClassMoments
from trimtab.ranking.criteria import CRITERIA, random_neurons


def rank(
    moments: ClassMoments,
    criterion: str,
    k: int,
    model: ModelIdentity,
    facts: Mapping[str, object] | None = None,
    seed: int = 0,
) -> NeuronSet:
    """Keep the k best neurons of a contrast.

    Args:
        moments: what the criterion reads, of all neurons of `model`.
        criterion: a key of :data:`CRITERIA`.
        k: how many neurons to keep.
        model: the model whose activations were recorded.
        facts: provenance to store beside the contrast's counts, which are added here.
        seed: of the criterion ``random``; the others draw nothing.

    Raises:
        InputError: unknown criterion, or k is not between 1 and the number of eligible neurons.
        MismatchError: the moments have other sizes than the model.
        NotEnoughDataError: the criterion needs more problems than the contrast has.
    """
    if criterion not in CRITERIA:
        raise InputError(f"unknown criterion {criterion!r}; accepted: {', '.join(CRITERIA)}")
    if moments.good_mean.shape != (model.n_layers, model.d_ff):
        raise MismatchError(
            f"the recording has [layer, d_ff] {list(moments.good_mean.shape)}, but {model.name} has "
            f"{[model.n_layers, model.d_ff]}; record with the model that is to be steered"
        )
    ranking = random_neurons.score(moments, seed) if criterion == random_neurons.NAME else CRITERIA[criterion](moments)
    eligible = len(ranking.order)
    if not 0 < k <= eligible:
        raise InputError(
            f"asked for {k} neurons, but criterion {criterion!r} finds {eligible} of {model.n_neurons} eligible; "
            f"give a k between 1 and {eligible}"
        )
    kept = ranking.order[:k]
    counts = {"n_good": moments.n_good, "n_bad": moments.n_bad, "n_problems": moments.n_problems, "eligible": eligible}
    return NeuronSet(
        layer=kept // model.d_ff,
        index=kept % model.d_ff,
        score=ranking.score[:k],
        good=moments.good_mean.ravel()[kept].astype(np.float32),
        bad=moments.bad_mean.ravel()[kept].astype(np.float32),
        criterion=criterion,
        model=model,
        facts={**counts, **(facts or {})},
    )
