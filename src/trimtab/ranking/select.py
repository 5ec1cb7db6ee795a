"""From a ranking to the set of the K best neurons."""

from collections.abc import Collection, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError, MismatchError
from trimtab.neurons import ModelIdentity, Neurons
from trimtab.ranking.contrast import ClassMoments
from trimtab.ranking.criteria import CRITERIA, SEEDED, Criterion, Ranking


def rank(
    moments: ClassMoments,
    criterion: str | Criterion,
    k: int,
    model: ModelIdentity,
    facts: Mapping[str, object] | None = None,
    seed: int = 0,
    *,
    name: str | None = None,
    layers: Collection[int] | None = None,
) -> Neurons:
    """Keep the k best neurons of a contrast.

    Args:
        moments: what the criterion reads, of all neurons of `model`.
        criterion: a key of :data:`CRITERIA`, or a function of your own, also one of theirs with other parameters.
        k: how many neurons to keep.
        model: the model whose activations were recorded.
        facts: provenance to store beside the contrast's counts and the criterion's facts, which are added here.
        seed: of the criteria ``random`` and ``sign-flip``; the others draw nothing.
        name: of a function, for the file; not one of :data:`CRITERIA`.
        layers: only neurons of these layers may be selected; the criterion still ranks all. None is every layer.

    Raises:
        InputError: an unknown criterion, a function without a name of its own or with a ranking that is none, layers that the
            model has not, or k not between 1 and the number of eligible neurons.
        MismatchError: the moments have other sizes than the model.
        NotEnoughDataError: the criterion needs more problems than the contrast has.

    Example:
        >>> from trimtab.ranking.criteria import activation_ratio
        >>> correct_mean, incorrect_mean = np.array([[1.0, 3.0, 2.0]]), np.array([[1.0, 2.0, 1.0]])
        >>> moments = ClassMoments(correct_mean, incorrect_mean, correct_mean, incorrect_mean, 5, 5, None, None, 5)
        >>> model = ModelIdentity("tiny", None, "qwen3", "f00", n_layers=1, d_model=2, d_ff=3, vocab_size=7)
        >>> strict = partial(activation_ratio, threshold=1.3, share=0.5)
        >>> rank(moments, strict, 2, model, name="activation-ratio-1.3").index.tolist()
        [2, 1]
    """
    function, name = _named(criterion, name, seed)
    if moments.correct_mean.shape != (model.n_layers, model.d_ff):
        raise MismatchError(
            f"the recording has [layer, d_ff] {list(moments.correct_mean.shape)}, but {model.name} has "
            f"{[model.n_layers, model.d_ff]}; record with the model that is to be steered"
        )
    ranking = function(moments)
    _check(ranking, model, name)
    comparable = moments.comparable.ravel()
    usable = comparable[ranking.order]
    counts: dict[str, object] = {
        "n_correct": moments.n_correct,
        "n_incorrect": moments.n_incorrect,
        "n_problems": moments.n_problems,
    }
    if moments.counts is not None:
        counts["without_value"] = int((~comparable).sum())
    if layers is not None:
        chosen = _layers(layers, model)
        counts["layers"] = chosen
        usable &= np.isin(ranking.order // model.d_ff, chosen)
    eligible = counts["eligible"] = int(usable.sum())
    if not 0 < k <= eligible:
        where = "" if layers is None else f" in the layers {counts['layers']}"
        raise InputError(
            f"asked for {k} neurons, but criterion {name!r} finds {eligible} of {model.n_neurons} eligible{where}; "
            + (f"give a k between 1 and {eligible}" if eligible else "use another criterion, other parameters or more traces"),
            code="too-few-eligible",
        )
    kept = ranking.order[usable][:k]
    return Neurons(
        layer=kept // model.d_ff,
        index=kept % model.d_ff,
        score=ranking.score[usable][:k],
        correct_mean=moments.correct_mean.ravel()[kept].astype(np.float32),
        incorrect_mean=moments.incorrect_mean.ravel()[kept].astype(np.float32),
        criterion=name,
        model=model,
        facts={**counts, **ranking.facts, **(facts or {})},
    )


def _named(criterion: str | Criterion, name: str | None, seed: int) -> tuple[Criterion, str]:
    if not isinstance(criterion, str):
        if not name or name in CRITERIA:
            raise InputError(
                f"a criterion given as a function needs a name of its own for the file, got {name!r}; "
                f"these are taken: {', '.join(CRITERIA)}"
            )
        return criterion, name
    if criterion not in CRITERIA:
        raise InputError(
            f"unknown criterion {criterion!r}; accepted: {', '.join(CRITERIA)}, or a function with a name",
            code="unknown-criterion",
        )
    if name not in (None, criterion):
        raise InputError(f"criterion {criterion!r} has its own name, but was given {name!r}; leave it out")
    return (partial(SEEDED[criterion], seed=seed) if criterion in SEEDED else CRITERIA[criterion]), criterion


def _layers(layers: Collection[int], model: ModelIdentity) -> list[int]:
    chosen = sorted(set(layers))
    if not chosen or chosen[0] < 0 or chosen[-1] >= model.n_layers:
        raise InputError(f"layers {chosen} cannot be selected from; give some of 0 to {model.n_layers - 1}, or None for all")
    return chosen


def _check(ranking: Ranking, model: ModelIdentity, name: str) -> None:
    """Refuse what a criterion must not return: other neurons than the model's, one twice, a score that is none."""
    order: NDArray[np.int64] = ranking.order
    if order.shape != ranking.score.shape or order.ndim != 1 or order.dtype != np.int64 or ranking.score.dtype != np.float64:
        raise InputError(
            f"criterion {name!r} returned an order of {order.dtype} {list(order.shape)} and scores of {ranking.score.dtype} "
            f"{list(ranking.score.shape)}; return int64 and float64 of one length, as sort_neurons does"
        )
    if len(order) and (order.min() < 0 or order.max() >= model.n_layers * model.d_ff or len(np.unique(order)) < len(order)):
        raise InputError(
            f"criterion {name!r} ranked a neuron twice, or one that the model has not; flat addresses are layer * d_ff + index, "
            f"from 0 to {model.n_layers * model.d_ff - 1}"
        )
    if np.isnan(ranking.score).any():
        raise InputError(f"criterion {name!r} scored neurons with NaN; leave them out of the ranking")
