"""Everything that is known about a set of neurons and its steering, from what a run left behind and a few passes over traces."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trimtab.analysis.activity import Magnitudes, TopTokens, magnitudes, top_tokens
from trimtab.analysis.drift import Drift, drift
from trimtab.analysis.layer_probes import N_FEATURES, LayerProbes, layer_probes
from trimtab.analysis.passes import BATCH_TOKENS
from trimtab.analysis.perplexity import PerplexityEffect, perplexity_effect
from trimtab.analysis.ratios import Ratios, class_ratios
from trimtab.analysis.sets import AnyNeurons, LayerHistogram, PairOverlap, TopOverlap, layer_histogram, set_overlaps, top_overlap
from trimtab.analysis.vocabulary import VocabularyProjection, project_vocabulary
from trimtab.errors import InputError
from trimtab.model import LanguageModel
from trimtab.progress import Progress, silent
from trimtab.ranking import ClassMoments, LabelledMoments
from trimtab.steering import Steering
from trimtab.traces import Trace

Piece = TypeVar("Piece")


@dataclass(frozen=True, slots=True)
class AnalysisSettings:
    """How much is analysed.

    Args:
        traces: at most this many of each kind run through the model, drawn at random.
        neurons: this many of the steering's first neurons are shown one by one (vocabulary, top-activating tokens).
        top: tokens shown of each sign.
        context: tokens shown on either side of a top-activating one.
        probe_features: neurons that a layer's probe may read.
        batch_tokens: of one pass, padding included.
        seed: of draws, folds and bootstraps.
    """

    traces: int = 200
    neurons: int = 20
    top: int = 8
    context: int = 8
    probe_features: int = N_FEATURES
    batch_tokens: int = BATCH_TOKENS
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class PromptLabels:
    """Activations at a split's prompts, and which of these prompts the model fails.

    Args:
        features: float32 ``[problem, layer, d_ff]``, activations of the last prompt token.
        failed: bool ``[problem]``.
    """

    features: NDArray[np.float32]
    failed: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Analysis:
    """All pieces; None where what a piece needs was not given.

    Args:
        split: of the traces behind drift, perplexity and magnitudes; the others are of `train`.
    """

    split: str
    layers: LayerHistogram
    ratios: Ratios
    top_overlap: TopOverlap
    overlaps: tuple[PairOverlap, ...]
    vocabulary: VocabularyProjection
    top_tokens: TopTokens
    drift: Drift
    perplexity: PerplexityEffect
    magnitudes: Magnitudes | None
    probes: LayerProbes | None

    def to_json(self) -> dict[str, object]:
        """A dictionary of plain numbers, names, lists and dictionaries."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def analyse(
    model: LanguageModel,
    steering: Steering,
    moments: ClassMoments,
    parts: Iterable[LabelledMoments],
    contrast: Sequence[Trace],
    unsteered: Sequence[Trace],
    *,
    split: str,
    steered: Sequence[Trace] = (),
    train: PromptLabels | None = None,
    validation: PromptLabels | None = None,
    sets: Mapping[str, AnyNeurons] | None = None,
    settings: AnalysisSettings | None = None,
    progress: Progress = silent,
) -> Analysis:
    """Analyse a steering.

    Drift and perplexity are of the steering on every trace, whatever its gate says; magnitudes are of the steered traces as they
    were generated.

    Args:
        moments: of the contrast, with magnitudes.
        parts: the contrast's recording, read once.
        contrast: the traces of the contrast.
        unsteered, steered: traces of one split, generated without the steering and with it behind its gate; without steered ones
            there are no magnitudes.
        split: of these two.
        train, validation: last prompt tokens and failures to fit and to assess the probes on; without them there are none.
        sets: other sets of the same model to compare with one another, by name.

    Raises:
        InputError: magnitudes were not recorded.
        NotEnoughDataError: a piece has too little data; the message says which it is.
    """
    steering.refuse_directions("an analysis is of neurons")
    settings = settings or AnalysisSettings()
    seed, tokens = settings.seed, settings.batch_tokens
    layer, index = steering.layer[: settings.neurons], steering.index[: settings.neurons]
    contrast, unsteered, steered = (_some(traces, settings) for traces in (contrast, unsteered, steered))
    with progress("analyse", 9, 0) as advance:

        def step(piece: Piece) -> Piece:
            advance(1, 0)
            return piece

        return Analysis(
            split=split,
            layers=step(layer_histogram(steering)),
            ratios=step(class_ratios(moments, parts, seed)),
            top_overlap=step(top_overlap(steering, _magnitude(moments))),
            overlaps=set_overlaps(sets) if sets and len(sets) > 1 else (),
            vocabulary=step(project_vocabulary(model, layer, index, top=settings.top)),
            top_tokens=step(
                top_tokens(model, contrast, layer, index, top=settings.top, context=settings.context, batch_tokens=tokens)
            ),
            drift=step(drift(model, unsteered, steering, batch_tokens=tokens, seed=seed)),
            perplexity=step(perplexity_effect(model, unsteered, steering, batch_tokens=tokens, seed=seed)),
            magnitudes=step(magnitudes(model, unsteered, steered, steering, batch_tokens=tokens, seed=seed) if steered else None),
            probes=step(_probes(train, validation, settings)),
        )


def _probes(train: PromptLabels | None, validation: PromptLabels | None, settings: AnalysisSettings) -> LayerProbes | None:
    if train is None or validation is None:
        return None
    return layer_probes(
        train.features,
        train.failed,
        validation.features,
        validation.failed,
        n_features=settings.probe_features,
        seed=settings.seed,
    )


def _magnitude(moments: ClassMoments) -> NDArray[np.float64]:
    if moments.correct_magnitude is None:
        raise InputError("the recording has no magnitudes; record again with 'magnitude' among the moments")
    return moments.correct_magnitude


def _some(traces: Sequence[Trace], settings: AnalysisSettings) -> list[Trace]:
    """At most ``settings.traces`` traces, drawn at random, in their order."""
    if len(traces) <= settings.traces:
        return list(traces)
    chosen = np.random.default_rng(settings.seed).permutation(len(traces))[: settings.traces]
    return [traces[i] for i in np.sort(chosen).tolist()]


def _plain(piece: object) -> object:
    if isinstance(piece, tuple):
        return [_plain(one) for one in piece]
    return piece if isinstance(piece, str) or piece is None else piece.to_json()  # type: ignore[attr-defined]
