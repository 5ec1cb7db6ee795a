"""Which neurons to keep, and in which order: one decorated function a criterion, and the one way to sort neurons by it.

To add one, write a function from :class:`ClassMoments` to :class:`Ranking` under ``@criterion(name, needs=...)``; configuration,
command line and experiments find it by its name in :data:`CRITERIA`.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.ranking.contrast import ClassMoments, Statistic, TraceContributions

_NO_FACTS: Mapping[str, object] = MappingProxyType({})


class Ranking(NamedTuple):
    """The eligible neurons, best first.

    Args:
        order: int64 ``[neuron]``, flat addresses ``layer * d_ff + index``.
        score: float64 ``[neuron]``, what they were ranked by, in the same order.
        tie_breaks: float64 ``[neuron]`` each, in the same order: what equal scores were ranked by, descending as the score.
        facts: parameters and counts of the criterion, for the file.
    """

    order: NDArray[np.int64]
    score: NDArray[np.float64]
    tie_breaks: tuple[NDArray[np.float64], ...] = ()
    facts: Mapping[str, object] = _NO_FACTS


class Criterion(Protocol):
    """Ranks all neurons of a contrast; leaves out those that it can never select."""

    def __call__(self, moments: ClassMoments, /) -> Ranking: ...


class SeededCriterion(Protocol):
    """A criterion that draws."""

    def __call__(self, moments: ClassMoments, /, seed: int = 0) -> Ranking: ...


def sort_neurons(
    eligible: NDArray[np.bool_],
    score: NDArray[np.floating],
    *tie_breaks: NDArray[np.floating],
    facts: Mapping[str, object] = _NO_FACTS,
) -> Ranking:
    """Rank by score, then by each tie break, all descending; what is still tied goes by (layer, index).

    Args:
        eligible, score, tie_breaks: ``[layer, d_ff]`` each, without NaN where eligible.
        facts: for :class:`Ranking`.
    """
    address = np.flatnonzero(eligible)
    keys = [-key.ravel()[address] for key in (score, *tie_breaks)]
    # lexsort takes the primary key last and is stable, so full ties keep the order of their addresses
    order = address[np.lexsort(keys[::-1])].astype(np.int64)
    score, *breaks = (key.ravel()[order].astype(np.float64) for key in (score, *tie_breaks))
    return Ranking(order, score, tuple(breaks), facts)


F = TypeVar("F", bound=Criterion)
_CRITERIA: dict[str, Criterion] = {}
_SEEDED: dict[str, SeededCriterion] = {}
_NEEDS: dict[str, frozenset[Statistic]] = {}

CRITERIA: Mapping[str, Criterion] = MappingProxyType(_CRITERIA)
"""Every criterion by its name."""

SEEDED: Mapping[str, SeededCriterion] = MappingProxyType(_SEEDED)
"""Those of :data:`CRITERIA` that draw."""

NEEDS: Mapping[str, frozenset[Statistic]] = MappingProxyType(_NEEDS)
"""The statistics that a criterion reads beside the class means; ``wanda`` and ``cett`` read ``ClassMoments.column_norm`` as
well."""


def criterion(name: str, *, needs: Collection[Statistic] = ()) -> Callable[[F], F]:
    """Register a criterion.

    Args:
        name: in configurations and files.
        needs: the statistics that it reads beside the class means.
    """

    def register(function: F) -> F:
        _CRITERIA[name], _NEEDS[name] = function, frozenset(needs)
        if "seed" in inspect.signature(function).parameters:
            _SEEDED[name] = cast(SeededCriterion, function)
        return function

    return register


Held = TypeVar("Held", NDArray[np.float64], TraceContributions)


def needed(value: Held | None, what: str, criterion: str) -> Held:
    """An optional array that a criterion cannot do without.

    Args:
        value: the array or arrays, or None.
        what: the statistic that it belongs to, or ``column_norm``.
        criterion: who asks.

    Raises:
        InputError: it is missing, with what to do about it.
    """
    if value is None:
        raise InputError(
            f"criterion {criterion!r} reads {what!r}, which these class moments lack; {_FIXES[what]}", code="moment-not-recorded"
        )
    return value


_FIXES = {
    "magnitude": "record with 'magnitude' in recording.moments, and ask class_moments for that statistic",
    "square": "record with 'square' in recording.moments, and ask class_moments for that statistic",
    "difference": "ask class_moments for that statistic",
    "auroc": "ask class_moments for that statistic; nothing has to be recorded again",
    "contribution": "record with 'contribution' in recording.moments, and ask class_moments for that statistic",
    "column_norm": "give them with dataclasses.replace(moments, column_norm=column_norms(down_weights(model, range(n_layers))))",
}


def top_share(
    eligible: NDArray[np.bool_], value: NDArray[np.float64], share: float, per_layer: bool = False
) -> NDArray[np.bool_]:
    """Mark the ``max(1, round(share * n))`` neurons of highest value among the eligible, ties by address.

    Args:
        eligible, value: ``[layer, d_ff]``.
        share: in (0, 1], of all n neurons, whether eligible or not; of each layer's with `per_layer`.
        per_layer: take the share from each layer.

    Raises:
        InputError: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise InputError(f"the top share of neurons is {share}; give one in (0, 1], such as 0.1 for 10 %")
    if per_layer:
        return np.stack([top_share(eligible[i : i + 1], value[i : i + 1], share)[0] for i in range(len(value))])
    address = np.flatnonzero(eligible)
    best = np.argsort(-value.ravel()[address], kind="stable")[: max(1, round(share * value.size))]
    marked = np.zeros(value.size, np.bool_)
    marked[address[best]] = True
    return marked.reshape(value.shape)


@criterion("adaras")
def adaras(moments: ClassMoments, /) -> Ranking:
    """AdaRAS's criterion (arXiv 2601.19847): sign flips between the classes first, large differences first among them.

    Order by ``r = |correct_mean - incorrect_mean| / (|correct_mean| + |incorrect_mean|)``, then by ``|correct_mean -
    incorrect_mean|``, in float64 and without an epsilon.

    A sign flip gives r = 1 exactly, since ``|correct_mean - incorrect_mean|`` and ``|correct_mean| + |incorrect_mean|`` are then
    the same sum; so does an exact zero on one side. Neurons without a difference (r = 0, which includes 0/0) are never selected.
    """
    size = np.abs(moments.mean_difference)
    total = np.abs(moments.correct_mean) + np.abs(moments.incorrect_mean)
    differs = size > 0
    relative = np.divide(size, total, out=np.zeros_like(size), where=differs)
    return sort_neurons(differs, relative, size)


DENOMINATOR_OFFSET = np.float32(1e-8)


@criterion("adaras-float32")
def adaras_float32(moments: ClassMoments, /) -> Ranking:
    """AdaRAS's criterion as its released code computes it; for parity and import only.

    Order by ``r = |correct_mean - incorrect_mean| / (|correct_mean| + |incorrect_mean| + 1e-8)``, then by ``|correct_mean -
    incorrect_mean|``, all in float32.

    Below ``|correct_mean - incorrect_mean|`` of about 0.17 the offset moves r by one rounding step or more, so rounding decides
    the order among sign flips; :func:`adaras` is the exact rule. Neurons without a difference in
    float32 are never selected.
    """
    correct_mean, incorrect_mean = moments.correct_mean.astype(np.float32), moments.incorrect_mean.astype(np.float32)
    size = np.abs(correct_mean - incorrect_mean)
    relative = size / (np.abs(correct_mean) + np.abs(incorrect_mean) + DENOMINATOR_OFFSET)
    return sort_neurons(size > 0, relative, size)


@criterion("mean-difference")
def mean_difference(moments: ClassMoments, /) -> Ranking:
    """The size of the mean difference alone: AdaRAS's ablation "without polarity selection".

    Order by ``|correct_mean - incorrect_mean|``; neurons without a difference are never selected.
    """
    size = np.abs(moments.mean_difference)
    return sort_neurons(size > 0, size)


@criterion("sign-flip")
def sign_flip(moments: ClassMoments, /, seed: int = 0) -> Ranking:
    """Sign flips alone: AdaRAS's ablation "without mean difference".

    Rank the neurons whose class means have opposite strict signs, all with score 1, in a random order.

    The ablation must not look at the size of the difference, and by address the first layer would be taken first; so a uniform
    draw per neuron of the model decides, the same draw whichever neurons flip. A mean of exactly 0 is no flip.
    """
    correct_mean, incorrect_mean = moments.correct_mean, moments.incorrect_mean
    # not by the sign of the product, which underflows to 0
    flips = ((correct_mean > 0) & (incorrect_mean < 0)) | ((correct_mean < 0) & (incorrect_mean > 0))
    draw = np.random.default_rng(seed).random(correct_mean.shape)
    return sort_neurons(flips, np.ones_like(draw), draw, facts={"seed": seed})


@criterion("activation-ratio", needs={"magnitude"})
def activation_ratio(
    moments: ClassMoments,
    /,
    *,
    threshold: float = 1.15,
    share: float = 0.1,
    per_layer: bool = False,
    moment: Literal["magnitude", "rms"] = "magnitude",
) -> Ranking:
    """The ratio of mean magnitudes between correct and incorrect reasoning, of neuron activation differential analysis.

    Order by ``q = correct / incorrect``, the ratio of the class means of a per-trace magnitude, among the top share of q and
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
        raise InputError(f"criterion 'activation-ratio' got the threshold {threshold}; a ratio of magnitudes is 0 or more")
    correct, incorrect = _magnitudes(moments, moment)
    has_ratio = moments.comparable & (incorrect > 0)
    q = np.divide(correct, incorrect, out=np.zeros_like(correct), where=has_ratio)
    kept = top_share(has_ratio, q, share, per_layer)
    facts = {
        "moment": moment,
        "threshold": threshold,
        "top_share": share,
        "per_layer": per_layer,
        "zero_denominator": int((moments.comparable & (incorrect == 0)).sum()),
        "in_top_share": int(kept.sum()),
    }
    return sort_neurons(kept & (q > threshold), q, facts=facts)


def _magnitudes(moments: ClassMoments, moment: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if moment not in ("magnitude", "rms"):
        raise InputError(f"criterion 'activation-ratio' got the moment {moment!r}; accepted: magnitude, rms")
    recorded = "magnitude" if moment == "magnitude" else "square"
    correct, incorrect = (
        (moments.correct_magnitude, moments.incorrect_magnitude)
        if moment == "magnitude"
        else (moments.correct_rms, moments.incorrect_rms)
    )
    return needed(correct, recorded, "activation-ratio"), needed(incorrect, recorded, "activation-ratio")


@criterion("top-activation", needs={"magnitude"})
def top_activation(moments: ClassMoments, /) -> Ranking:
    """The most active neurons in correct reasoning, whatever they do in incorrect reasoning: a baseline.

    Order by the mean magnitude over correct traces; neurons that are 0 on all of them are never selected.

    Raises:
        InputError: magnitudes were not recorded.
    """
    magnitude = needed(moments.correct_magnitude, "magnitude", "top-activation")
    return sort_neurons(moments.comparable & (magnitude > 0), magnitude)


@criterion("mathneuro", needs={"magnitude"})
def mathneuro(moments: ClassMoments, /, *, share: float = 0.05) -> Ranking:
    """Neuron-level MathNeuro (arXiv 2410.16930): active in correct reasoning and not in incorrect reasoning.

    Order by the mean magnitude over correct traces, among the neurons of its top share that are not in that of incorrect ones.

    MathNeuro removes from the weights that matter most for one task those that matter most for another. The baseline of neuron
    activation differential analysis does the same to neurons, with correct and incorrect reasoning as the tasks. Few neurons
    leave the top between two classes of like traces, so a small share may leave fewer than K; see :func:`share_for`.

    Args:
        moments: with magnitudes.
        share: of all neurons of the model, in each class; 5 % by default, a choice of ours.

    Raises:
        InputError: a share outside (0, 1], or magnitudes were not recorded.
    """
    correct = needed(moments.correct_magnitude, "magnitude", "mathneuro")
    incorrect = needed(moments.incorrect_magnitude, "magnitude", "mathneuro")
    active = top_share(moments.comparable & (correct > 0), correct, share)
    also_active = top_share(moments.comparable & (incorrect > 0), incorrect, share)
    return sort_neurons(
        active & ~also_active, correct, facts={"top_share": share, "in_both_tops": int((active & also_active).sum())}
    )


def _places(eligible: NDArray[np.bool_], value: NDArray[np.float64]) -> NDArray[np.int64]:
    """Each neuron's place by value, from 0; the number of neurons for those that have none."""
    ranking = sort_neurons(eligible, value)
    places = np.full(value.size, value.size)
    places[ranking.order] = np.arange(len(ranking.order))
    return places


def share_for(moments: ClassMoments, k: int) -> float:
    """The smallest share that leaves k neurons or more, for a comparison at equal counts.

    Raises:
        InputError: no share does, or magnitudes were not recorded.
    """
    correct = needed(moments.correct_magnitude, "magnitude", "mathneuro")
    incorrect = needed(moments.incorrect_magnitude, "magnitude", "mathneuro")
    # a neuron is left by the tops of n neurons where place_correct < n <= place_incorrect
    place_correct, place_incorrect = (_places(moments.comparable & (value > 0), value) for value in (correct, incorrect))
    enters = place_correct < place_incorrect
    come, go = (np.bincount(place[enters] + 1, minlength=correct.size + 2) for place in (place_correct, place_incorrect))
    left = np.cumsum(come - go)[: correct.size + 1]
    if left.max() < k:
        raise InputError(f"criterion 'mathneuro' leaves at most {left.max()} neurons at any share, not {k}; give a smaller k")
    return int(np.argmax(left >= k)) / correct.size


@criterion("wanda", needs={"square"})
def wanda(moments: ClassMoments, /) -> Ranking:
    """Neuron-level Wanda (arXiv 2306.11695): how much a neuron adds to the residual stream in correct reasoning.

    Order by ``sqrt(sum a_j^2) * norm(W[:, j])``: over all tokens of all correct traces, and of the down projection's column j.

    Wanda scores a weight by ``|W_ij| * norm(a_j)``; over a column that is the product of norms. It reads correct traces alone:
    it asks what matters for reasoning right, not what tells right from wrong. Neurons that add nothing are never selected.

    Raises:
        InputError: squares were not recorded, or ``column_norm`` was not filled.
    """
    norm, columns = needed(moments.correct_norm, "square", "wanda"), needed(moments.column_norm, "column_norm", "wanda")
    product = norm * columns
    return sort_neurons(moments.comparable & (product > 0), product)


def column_norms(down: Mapping[int, NDArray[np.float32]]) -> NDArray[np.float64]:
    """L2 norm of each neuron's column, float64 ``[layer, d_ff]``.

    Args:
        down: of every layer the down projection's weight, float32 ``[d_model, d_ff]``, as
            :func:`trimtab.model.hook_points.down_weights` gives it.
    """
    return np.stack([np.linalg.norm(down[layer].astype(np.float64), axis=0) for layer in range(len(down))])


@criterion("auroc", needs={"auroc"})
def auroc(moments: ClassMoments, /) -> Ranking:
    """How well one neuron's trace mean tells correct from incorrect traces of the same problem.

    Order by ``|AUROC - 0.5|``, then by ``|correct_mean - incorrect_mean|``; neurons at 0.5 are never selected.

    The AUROC is taken within each problem, over its (correct, incorrect) pairs with ties one half, and averaged over problems. It
    knows ranks only, so few pairs give many ties, which the size of the difference decides.

    Raises:
        InputError: the class moments were computed without the statistic ``auroc``.
        NotEnoughDataError: no problem has both scores.
    """
    area = needed(moments.auroc, "auroc", "auroc")
    if not moments.n_problems:
        raise NotEnoughDataError(
            "criterion 'auroc' compares traces of one problem, and no problem has correct and incorrect ones; "
            "sample more responses per problem, or use 'mean-difference'",
            code="too-few-mixed",
        )
    distance = np.abs(area - 0.5)
    return sort_neurons(moments.comparable & (distance > 0), distance, np.abs(moments.mean_difference))


@criterion("paired-t", needs={"difference"})
def paired_t(moments: ClassMoments, /) -> Ranking:
    """Student's paired t over problems, which cancels what differs between problems and not between their scores.

    Order by ``|t| = |mean| / sqrt(variance / n)`` of the within-problem differences, then by ``|mean|``.

    A difference that is the same in every problem (variance exactly 0) has t = infinity and comes first; a mean of exactly 0 has
    t = 0, also with variance 0, and is never selected. In a mixture of experts n is a neuron's own, and it needs two as well.

    Raises:
        InputError: the class moments were computed without the statistic ``difference``.
        NotEnoughDataError: fewer than two problems have both scores.
    """
    mean = needed(moments.difference_mean, "difference", "paired-t")
    variance = needed(moments.difference_variance, "difference", "paired-t")
    if moments.n_problems < 2:
        raise NotEnoughDataError(
            f"criterion 'paired-t' needs two or more problems with correct and incorrect traces, got {moments.n_problems}; "
            "sample more responses per problem, or use 'mean-difference'",
            code="too-few-mixed",
        )
    own = None if moments.counts is None else moments.counts.problems
    n = np.full(mean.shape, moments.n_problems) if own is None else own
    size = np.abs(mean)
    standard_error = np.sqrt(variance / np.maximum(n, 1))
    t = np.divide(size, standard_error, out=np.full_like(size, np.inf), where=standard_error > 0)
    return sort_neurons((n > 1) & (size > 0), t, size)


@criterion("random")
def random_neurons(moments: ClassMoments, /, seed: int = 0) -> Ranking:
    """Neurons drawn at random: the baseline of every criterion.

    Order by a uniform draw per neuron, from all neurons of the model that have a value in both classes.

    They keep their own class means; :func:`trimtab.ranking.random_sets.random_like` draws the stricter control, which takes
    over the layers and the shifts of a found set.
    """
    draw = np.random.default_rng(seed).random(moments.correct_mean.shape)
    return sort_neurons(moments.comparable, draw, facts={"seed": seed})


def reaching(ranking: Ranking, bar: Ranking, k: int) -> int:
    """How many neurons of a ranking reach the k-th place of another by the same criterion: score first, then tie breaks.

    With `ranking` from shuffled labels and `bar` from the true ones, its mean over k estimates the share of false discoveries.

    Raises:
        InputError: `bar` has no k-th place.
    """
    if not 0 < k <= len(bar.order):
        raise InputError(f"asked for place {k} of a ranking of {len(bar.order)} neurons; give one between 1 and {len(bar.order)}")
    above, tied = np.zeros(len(ranking.order), np.bool_), np.ones(len(ranking.order), np.bool_)
    keys = zip((ranking.score, *ranking.tie_breaks), (bar.score, *bar.tie_breaks), strict=True)
    for key, of_bar in keys:
        above |= tied & (key > of_bar[k - 1])
        tied &= key == of_bar[k - 1]
    return int((above | tied).sum())
