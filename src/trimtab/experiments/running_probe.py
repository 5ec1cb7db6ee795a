"""A probe that reads the response while it is written: a running mean of linear scores, one per token.

The gate of the question is not valid there: response tokens look different from the last prompt token, so the probe is fitted on
them. It is linear, so the mean of the scores is the score of the mean: a monitor needs one number a token, and no past.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from trimtab.analysis.passes import BATCH_TOKENS, batches
from trimtab.errors import NotEnoughDataError
from trimtab.gating.probe import calibrate, fit_linear
from trimtab.model import LanguageModel
from trimtab.recording.features import batch_features
from trimtab.traces import Trace

PREFIXES = (0.25, 0.5, 0.75, 1.0)
"""Shares of a response whose means the probe is fitted on: it has to work early and late."""
FOLDS = 5
INVERSE_PENALTIES = tuple(10.0**exponent for exponent in range(-1, 4))
"""For rows of norm about 1."""


@dataclass(frozen=True, slots=True, eq=False)
class RunningProbe:
    """``score_t = mean over s <= t of (w . a_s) + b`` and ``p_t = sigmoid(score_t)``, over response tokens that were forwarded.

    Args:
        layer, index: int64 ``[feature]``, the neurons that it reads.
        weight: float64 ``[feature]``, on raw activations.
    """

    layer: NDArray[np.int64]
    index: NDArray[np.int64]
    weight: NDArray[np.float64]
    bias: float

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """The running score after each token, ``[token]``, from ``[token, feature]``."""
        per_token = features.astype(np.float64) @ self.weight
        return np.cumsum(per_token) / np.arange(1, len(per_token) + 1) + self.bias

    def read(self, model: LanguageModel, chains: Sequence[Trace]) -> list[NDArray[np.float64]]:
        """The running scores of some chains, ``[token]`` each, in their order."""
        scored: dict[str, NDArray[np.float64]] = {}
        for batch, features in _features(model, chains, self.layer, self.index):
            scored |= {chain.id: self.scores(values) for chain, values in zip(batch, features, strict=True)}
        return [scored[chain.id] for chain in chains]

    def calibrated(self, scores: Sequence[NDArray[np.float64]], failed: NDArray[np.bool_]) -> "RunningProbe":
        """Platt scaling on the last scores of other chains, so that p is a share of failures there."""
        slope, intercept = calibrate(np.array([score[-1] for score in scores]), failed)
        return replace(self, weight=slope * self.weight, bias=slope * self.bias + intercept)


def fit_running_probe(
    model: LanguageModel,
    chains: Sequence[Trace],
    failed: NDArray[np.bool_],
    layer: NDArray[np.int64],
    index: NDArray[np.int64],
) -> RunningProbe:
    """L2 logistic regression on the means of response prefixes; its penalty by cross-validation that keeps a problem in one fold.

    Args:
        chains: of the train split.
        failed: bool ``[chain]``.
        layer, index: the neurons to read, int64 ``[feature]``.

    Raises:
        NotEnoughDataError: fewer problems than folds, or chains of one class only.
    """
    problems = np.array([chain.problem_id for chain in chains])
    if len(np.unique(problems)) < FOLDS or failed.all() or not failed.any():
        raise NotEnoughDataError(
            f"a running probe needs {FOLDS} problems and both verdicts, got {len(np.unique(problems))} problems with "
            f"{int(failed.sum())} failed of {len(failed)} chains; sample more"
        )
    means: dict[str, NDArray[np.float64]] = {}
    for batch, features in _features(model, chains, layer, index):
        means |= {chain.id: _prefix_means(values) for chain, values in zip(batch, features, strict=True)}
    matrix = np.concatenate([means[chain.id] for chain in chains])
    label, group = np.repeat(failed, len(PREFIXES)), np.repeat(problems, len(PREFIXES))
    centre, spread = matrix.mean(axis=0), matrix.std(axis=0)
    # a constant neuron tells nothing; its weight stays 0 over a spread of infinity
    spread = np.where(spread > 0, spread * matrix.shape[1] ** 0.5, np.inf)
    scaled = (matrix - centre) / spread
    line = fit_linear(scaled, label, _best_penalty(scaled, label, group))
    weight = line.weight / spread
    return RunningProbe(layer, index, weight, line.bias - float(weight @ centre))


def _best_penalty(matrix: NDArray[np.float64], label: NDArray[np.bool_], group: NDArray[np.str_]) -> float:
    """The inverse penalty with the lowest held-out log loss; on a tie the stronger penalty."""
    losses = np.zeros(len(INVERSE_PENALTIES))
    for rows, held_out in GroupKFold(FOLDS).split(matrix, label, group):
        for i, c in enumerate(INVERSE_PENALTIES):
            line = fit_linear(matrix[rows], label[rows], c)
            logit = matrix[held_out] @ line.weight + line.bias
            losses[i] += np.logaddexp(0.0, np.where(label[held_out], -logit, logit)).sum()
    return INVERSE_PENALTIES[int(losses.argmin())]


def _prefix_means(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Means over the first share of the tokens, ``[prefix, feature]``; at least one token each."""
    ends = [max(1, round(share * len(features))) for share in PREFIXES]
    return np.stack([features[:end].mean(axis=0, dtype=np.float64) for end in ends])


def _features(
    model: LanguageModel, chains: Sequence[Trace], layer: NDArray[np.int64], index: NDArray[np.int64]
) -> Iterator[tuple[list[Trace], list[NDArray[np.float32]]]]:
    """Batches of responses with their activations ``[token, feature]``; nothing is kept between batches."""
    for batch in batches(model, chains, BATCH_TOKENS):
        yield batch, batch_features(model, batch, layer, index, "response")
