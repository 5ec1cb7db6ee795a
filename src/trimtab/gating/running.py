"""A gate that watches while the response is written: fit it on train traces, read responses with it, assess it by time.

The gate of the question is not valid while the response is written: response tokens look different from the last prompt token,
so this one is fitted on them. It is linear, so the mean of the scores is the score of the mean: it needs one number a token,
and no past.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from trimtab.errors import NotEnoughDataError
from trimtab.gate import RunningGate, running_mean
from trimtab.gating.assess import youden
from trimtab.gating.probe import Linear, calibrate, fit_linear
from trimtab.gating.settings import RunningGateSettings
from trimtab.gating.text import TextFeatures
from trimtab.model import LanguageModel
from trimtab.recording.features import batch_features
from trimtab.stats.auroc import auroc, delong_difference, delong_interval
from trimtab.stats.values import Estimate, RunningAssessment, TimePoint
from trimtab.store import make_plan
from trimtab.traces import Trace

PREFIXES = (0.25, 0.5, 0.75, 1.0)
"""Shares of a response whose means the probe is fitted on: it has to work early and late."""
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of a response at which it is assessed."""
FOLDS = 5
INVERSE_PENALTIES = tuple(10.0**exponent for exponent in range(-1, 4))
"""For rows of norm about 1."""
CRITERION = "paired-t"
"""Chooses the probe's neurons: within a problem, so that it does not read how hard the problem is."""
BATCH_TOKENS = 8_192


@dataclass(frozen=True, slots=True, eq=False)
class RunningProbe:
    """``score_t = m_t + b`` and ``p_t = sigmoid(score_t)``, m as of :class:`trimtab.gate.RunningGate`; it decides nothing.

    Args:
        layer, index: int64 ``[feature]``, the neurons that it reads.
        weight: float64 ``[feature]``, on raw activations.
        memory: as of the gate.
        facts: of the fit.
    """

    layer: NDArray[np.int64]
    index: NDArray[np.int64]
    weight: NDArray[np.float64]
    bias: float
    memory: int = 0
    facts: dict[str, object] = field(default_factory=dict)

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """The running score after each token, ``[token]``, from ``[token, feature]``."""
        per_token = features.astype(np.float64) @ self.weight
        if self.memory:
            return running_mean(per_token, self.memory) + self.bias
        return np.cumsum(per_token) / np.arange(1, len(per_token) + 1) + self.bias

    def read(self, model: LanguageModel, responses: Sequence[Trace]) -> list[NDArray[np.float64]]:
        """The running scores of some responses, ``[token]`` each, in their order."""
        scored: dict[str, NDArray[np.float64]] = {}
        for batch, features in response_features(model, responses, self.layer, self.index):
            scored |= {response.id: self.scores(values) for response, values in zip(batch, features, strict=True)}
        return [scored[response.id] for response in responses]

    def calibrated(
        self, scores: Sequence[NDArray[np.float64]], failed: NDArray[np.bool_]
    ) -> tuple["RunningProbe", list[NDArray[np.float64]]]:
        """Platt scaling on the last scores of other responses, so that p is a share of failures there; they are scaled too."""
        slope, intercept = calibrate(np.array([score[-1] for score in scores]), failed)
        probe = replace(self, weight=slope * self.weight, bias=slope * self.bias + intercept)
        return probe, [slope * score + intercept for score in scores]

    def gate(self) -> RunningGate:
        """The gate with this probe's weights, which has no threshold yet."""
        return RunningGate(
            self.layer, self.index, self.weight.astype(np.float32), self.bias, memory=self.memory, facts=dict(self.facts)
        )


def fit_running_probe(
    model: LanguageModel,
    responses: Sequence[Trace],
    failed: NDArray[np.bool_],
    layer: NDArray[np.int64],
    index: NDArray[np.int64],
    memory: int = 0,
) -> RunningProbe:
    """L2 logistic regression on the means of response prefixes; its penalty by cross-validation that keeps a problem in one fold.

    Args:
        responses: of the train split.
        failed: bool ``[response]``.
        layer, index: the neurons to read, int64 ``[feature]``.
        memory: of the mean, as of :class:`trimtab.gate.RunningGate`.

    Raises:
        NotEnoughDataError: fewer problems than folds, or responses of one class only.
    """
    problems = np.array([response.problem_id for response in responses])
    if len(np.unique(problems)) < FOLDS or failed.all() or not failed.any():
        raise NotEnoughDataError(
            f"a running probe needs {FOLDS} problems and both scores, got {len(np.unique(problems))} problems with "
            f"{int(failed.sum())} failed of {len(failed)} responses; sample more"
        )
    means: dict[str, NDArray[np.float64]] = {}
    for batch, features in response_features(model, responses, layer, index):
        means |= {response.id: _prefix_means(values, memory) for response, values in zip(batch, features, strict=True)}
    matrix = np.concatenate([means[response.id] for response in responses])
    label, group = np.repeat(failed, len(PREFIXES)), np.repeat(problems, len(PREFIXES))
    centre, spread = matrix.mean(axis=0), matrix.std(axis=0)
    # a constant neuron tells nothing; its weight stays 0 over a spread of infinity
    spread = np.where(spread > 0, spread * matrix.shape[1] ** 0.5, np.inf)
    scaled = (matrix - centre) / spread
    penalty, held_out = _best_penalty(scaled, label, group)
    line = fit_linear(scaled, label, penalty)
    weight = line.weight / spread
    facts: dict[str, object] = {
        "n_train": len(failed),
        "n_train_failed": int(failed.sum()),
        "n_train_problems": len(np.unique(problems)),
        "n_features": len(layer),
        "inverse_penalty": penalty,
        "held_out_auroc": auroc(label, held_out),
    }
    return RunningProbe(layer, index, weight, line.bias - float(weight @ centre), memory, facts)


def _best_penalty(
    matrix: NDArray[np.float64], label: NDArray[np.bool_], group: NDArray[np.str_]
) -> tuple[float, NDArray[np.float64]]:
    """The inverse penalty with the lowest held-out log loss, on a tie the stronger, and its held-out logits."""
    logits = np.empty((len(INVERSE_PENALTIES), len(label)))
    losses = np.zeros(len(INVERSE_PENALTIES))
    for rows, held_out in GroupKFold(FOLDS).split(matrix, label, group):
        for i, c in enumerate(INVERSE_PENALTIES):
            line = fit_linear(matrix[rows], label[rows], c)
            logit = logits[i, held_out] = matrix[held_out] @ line.weight + line.bias
            losses[i] += np.logaddexp(0.0, np.where(label[held_out], -logit, logit)).sum()
    best = int(losses.argmin())
    return INVERSE_PENALTIES[best], logits[best]


def _prefix_means(features: NDArray[np.float32], memory: int = 0) -> NDArray[np.float64]:
    """Means over the first share of the tokens, ``[prefix, feature]``; at least one token each."""
    ends = [_end(share, len(features)) for share in PREFIXES]
    if memory:
        return running_mean(features.astype(np.float64), memory)[np.array(ends) - 1]
    return np.stack([features[:end].mean(axis=0, dtype=np.float64) for end in ends])


def _end(share: float, tokens: int) -> int:
    return max(1, round(share * tokens))


def response_features(
    model: LanguageModel, responses: Sequence[Trace], layer: NDArray[np.int64], index: NDArray[np.int64]
) -> Iterator[tuple[list[Trace], list[NDArray[np.float32]]]]:
    """Batches of responses with their activations ``[token, feature]``; nothing is kept between batches."""
    by_id = {response.id: response for response in responses}
    lengths = [len(response.prompt_ids) + len(response.response_ids) - 1 for response in responses]
    for part in make_plan([response.id for response in responses], lengths, BATCH_TOKENS, {}).parts:
        batch = [by_id[name] for name in part]
        yield batch, batch_features(model, batch, layer, index, "response")


def readable(responses: Sequence[Trace]) -> list[Trace]:
    """The last token is never forwarded, so a response of one has none to read."""
    return [response for response in responses if len(response.response_ids) > 1]


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """The probe on some responses.

    Args:
        probability: running p(fail) after each token, ``[token]`` a response.
        failed: bool ``[response]``.
    """

    probability: tuple[NDArray[np.float64], ...]
    failed: NDArray[np.bool_]

    @classmethod
    def of(cls, scores: Sequence[NDArray[np.float64]], failed: NDArray[np.bool_]) -> "Readings":
        """From running scores."""
        return cls(tuple(1 / (1 + np.exp(-score)) for score in scores), failed)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens that were read, ``[response]``."""
        return np.array([len(p) for p in self.probability])

    def at(self, token: int) -> NDArray[np.float64]:
        """p after a number of tokens, ``[response]``; a response that ended before keeps its last."""
        return np.array([p[min(token, len(p)) - 1] for p in self.probability])

    def at_share(self, share: float) -> NDArray[np.float64]:
        """p after this share of each response, ``[response]``."""
        return np.array([p[_end(share, len(p)) - 1] for p in self.probability])

    def highest(self, after: int) -> NDArray[np.float64]:
        """The highest p from the token `after` on, ``[response]``: what decides whether a warning is given."""
        return np.array([p[min(after, len(p)) - 1 :].max() for p in self.probability])

    def lowest(self, after: int) -> NDArray[np.float64]:
        """The lowest p from the token `after` on, ``[response]``: what decides whether a gate that closes does so."""
        return np.array([p[min(after, len(p)) - 1 :].min() for p in self.probability])

    def warned_at(self, threshold: float, after: int) -> NDArray[np.float64]:
        """The first token, from `after` on, at which p reaches the threshold, ``[response]``; infinity without a warning."""
        first = []
        for p in self.probability:
            start = min(after, len(p)) - 1
            hits = np.flatnonzero(p[start:] >= threshold)
            first.append(start + hits[0] + 1 if len(hits) else np.inf)
        return np.array(first)


def set_thresholds(gate: RunningGate, settings: RunningGateSettings, validation: Readings) -> RunningGate:
    """Choose the threshold on validation responses: Youden's, of the highest running p; of the lowest for a gate that closes.

    The release follows from ``hysteresis``: that share of the way from the threshold to 0, for ``close`` to 1.
    """
    closes = settings.action == "close"
    scored = validation.lowest(settings.after) if closes else validation.highest(settings.after)
    threshold, share = youden(validation.failed, scored), settings.hysteresis
    release = threshold + share * (1 - threshold) if closes else (1 - share) * threshold
    return replace(
        gate,
        action=settings.action,
        threshold=threshold,
        release=release if share else None,
        after=settings.after,
        join=settings.join,
    )


@dataclass(frozen=True, slots=True, eq=False)
class TimedBaselines:
    """Failure predicted at a share of a response without a look at activations: from its length, and from its words.

    Both are logistic regressions on the train responses at the same shares. A share of a response tells how long it will be,
    which nobody knows while it is written; the length baseline shows how much of an AUROC that alone explains.
    """

    length: Linear
    text: Linear
    features: TextFeatures

    @classmethod
    def fit(
        cls, model: LanguageModel, questions: Sequence[str], responses: Sequence[Trace], failed: NDArray[np.bool_]
    ) -> "TimedBaselines":
        """On responses, one question and label each."""
        texts = [text for share in SHARES for text in prefix_texts(model, questions, responses, share)]
        lengths = np.concatenate([_length_features(responses, share) for share in SHARES])
        label = np.tile(failed, len(SHARES))
        features = TextFeatures.fit(texts)
        return cls(fit_linear(lengths, label, 1.0), fit_linear(features.apply(texts), label, 1.0), features)

    def scores(
        self, model: LanguageModel, questions: Sequence[str], responses: Sequence[Trace], share: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Logits of both at a share of other responses, ``[response]``."""
        texts = self.features.apply(prefix_texts(model, questions, responses, share))
        return _length_features(responses, share) @ self.length.weight, np.asarray(texts @ self.text.weight)


def prefix_texts(model: LanguageModel, questions: Sequence[str], responses: Sequence[Trace], share: float) -> list[str]:
    """Each question with the first tokens of its response."""
    read = [response.response_ids[: _end(share, len(response.response_ids) - 1)] for response in responses]
    said = model.tokenizer.batch_decode([list(ids) for ids in read], skip_special_tokens=True)
    return [f"{question}\n{text}" for question, text in zip(questions, said, strict=True)]


def _length_features(responses: Sequence[Trace], share: float) -> NDArray[np.float64]:
    tokens = np.array([_end(share, len(response.response_ids) - 1) for response in responses], np.float64)
    return np.stack([np.log(tokens), tokens / 100.0], 1)


def assess_running(
    readings: Readings, threshold: float, after: int, baselines: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]] = ()
) -> RunningAssessment:
    """Assess a running gate by the share of the response that it has seen.

    Args:
        readings: of responses that it was not fitted on.
        threshold, after: when it warns.
        baselines: scores of the length and of the words at each of :data:`SHARES`.

    Raises:
        NotEnoughDataError: fewer than two failed or two correct responses.
    """
    failed, first, length = readings.failed, readings.warned_at(threshold, after), readings.lengths
    points = []
    for i, share in enumerate(SHARES):
        p, warned = readings.at_share(share), first <= np.maximum(1, np.round(share * length))
        beside = [Estimate(auroc(failed, s), *delong_interval(failed, s)) for s in (baselines[i] if baselines else ())]
        area = Estimate(auroc(failed, p), *delong_interval(failed, p))
        by_length = by_words = over = None
        if beside:
            by_length, by_words = beside
            over = Estimate(area.value - by_words.value, *delong_difference(failed, p, baselines[i][1]))
        points.append(
            TimePoint(share, area, by_length, by_words, over, float(warned[failed].mean()), float(warned[~failed].mean()))
        )
    told = failed & np.isfinite(first)
    lead = length[told] - first[told]
    quartiles = tuple(float(q) for q in np.quantile(lead, (0.25, 0.5, 0.75))) if len(lead) else None
    left = float(np.median(lead / length[told])) if len(lead) else None
    return RunningAssessment(len(failed), int(failed.sum()), threshold, after, tuple(points), quartiles, left)
