"""Generators: the transformers loop, or another engine that answers the same requests."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from trimtab.model import LanguageModel
from trimtab.moments import Moments, TokenScope
from trimtab.sampling.batch import Request
from trimtab.sampling.decoding import SamplingSettings
from trimtab.sampling.generate import Generation, generate_batch
from trimtab.sampling.prefills import Prefills
from trimtab.sampling.recorder import Recorder
from trimtab.steering import Steering


class RecordedGenerations(NamedTuple):
    """Generations with the moments of each of them, in the order of the requests."""

    generations: list[Generation]
    moments: dict[TokenScope, Moments]


class Generator(Protocol):
    """An engine. What it returns is in the order of the requests, and each request draws from its own seed.

    Two engines round differently, so greedy responses are the same up to the first near tie and sampled ones are not: the engine
    is part of a plan (:attr:`facts`), and parts of two engines are never mixed.
    """

    @property
    def facts(self) -> Mapping[str, object]:
        """JSON values that join the settings of a plan; empty for the transformers loop."""
        ...

    def generate(
        self,
        model: LanguageModel,
        requests: Sequence[Request],
        settings: SamplingSettings,
        steering: Steering | None = None,
        gate: Literal["auto", "on", "off"] = "auto",
        prefills: Prefills | None = None,
        drafts: Mapping[str, Sequence[int]] | None = None,
    ) -> list[Generation]:
        """Answer all requests.

        Args:
            model: the model, whose tokenizer and end tokens every engine goes by.
            requests: prompts and seeds.
            settings: temperature, top_p and the longest response.
            steering: None for the bare model.
            gate: ``auto`` asks the steering's gate, ``on`` steers every request, ``off`` none.
            prefills: of the same prompts under other conditions; an engine with a prefix cache of its own does without.
            drafts: the bare model's greedy responses to the same requests, by id; an engine may do without.

        Raises:
            ModelError: a logit is NaN, or the model cannot be steered.
        """
        ...

    def generate_recorded(
        self,
        model: LanguageModel,
        requests: Sequence[Request],
        settings: SamplingSettings,
        scopes: Sequence[TokenScope],
        moments: Sequence[str],
    ) -> RecordedGenerations:
        """Answer all requests with the bare model and sum up its activations on the way.

        Args:
            scopes: token scopes to sum over.
            moments: of ``sum``, ``magnitude``, ``square``.

        Raises:
            InputError: unknown moments, or activations that are not finite.
            ModelError: a logit is NaN, or a model that cannot be recorded.
        """
        ...


class TransformersGenerator:
    """The loop of this package on the opened model itself: one batch, left-padded."""

    @property
    def facts(self) -> Mapping[str, object]:
        """Nothing: plans made when there was one engine stay valid."""
        return {}

    def generate(
        self,
        model: LanguageModel,
        requests: Sequence[Request],
        settings: SamplingSettings,
        steering: Steering | None = None,
        gate: Literal["auto", "on", "off"] = "auto",
        prefills: Prefills | None = None,
        drafts: Mapping[str, Sequence[int]] | None = None,
    ) -> list[Generation]:
        """As :func:`trimtab.sampling.generate.generate_batch`."""
        return generate_batch(model, requests, settings, steering, gate, prefills=prefills, drafts=drafts)

    def generate_recorded(
        self,
        model: LanguageModel,
        requests: Sequence[Request],
        settings: SamplingSettings,
        scopes: Sequence[TokenScope],
        moments: Sequence[str],
    ) -> RecordedGenerations:
        """As :func:`trimtab.sampling.generate.generate_batch` with a :class:`trimtab.sampling.recorder.Recorder`."""
        recorder = Recorder(model, [request.id for request in requests], scopes, moments)
        generations = generate_batch(model, requests, settings, recorder=recorder)
        return RecordedGenerations(generations, recorder.moments())


TRANSFORMERS = TransformersGenerator()
"""Has no state, so one is enough."""
