"""Steering: every intervention as one affine map, on K neurons or on the residual stream."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from trimtab.directions import check_directions, layers_in_words
from trimtab.display import as_html, counted
from trimtab.errors import InputError
from trimtab.gate import ALWAYS, AnyGate, RunningGate
from trimtab.interventions import Intervention, add
from trimtab.neurons import ModelIdentity, NeuronList, Neurons, check_addresses

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects
    from transformers import PreTrainedModel

    from trimtab.model.attach import Attachment
    from trimtab.model.opening import LanguageModel
    from trimtab.store.remote import AnyPath

PositionScope = Literal["generated", "last-and-generated", "all"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Steering:
    """``a' = a + strength * g * (gain * a + shift)`` on the neurons ``(layer, index)``, with g from the gate.

    The same map has a second site, the residual stream, where all it does is add: ``h' = h + strength * g * direction`` at the
    output of decoder block ``direction_layer``. A steering has neurons, directions or both.

    Args:
        layer, index: int64 ``[neuron]``.
        gain, shift: float32 ``[neuron]`` at unit strength.
        strength: default strength; 0 is bit-identical to the unsteered model.
        scope: ``generated`` (tokens that were generated), ``last-and-generated`` (also the last prompt token), ``all``.
        gate: when to steer. A gate other than always or never allows the scope ``generated`` only.
        model: the model it was made for.
        facts: provenance (criterion, counts, metrics, seed, versions).
        direction_layer: int64 ``[direction]``, ascending; see :class:`trimtab.directions.Directions`.
        direction: float32 ``[direction, d_model]`` at unit strength.

    Raises:
        InputError: lengths differ, a value is not finite, an address lies outside the model, or scope and gate conflict.
    """

    layer: NDArray[np.int64]
    index: NDArray[np.int64]
    gain: NDArray[np.float32]
    shift: NDArray[np.float32]
    strength: float
    scope: PositionScope
    gate: AnyGate
    model: ModelIdentity
    facts: dict[str, object] = field(default_factory=dict)
    direction_layer: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    direction: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def __post_init__(self) -> None:
        if not len(self.layer) == len(self.index) == len(self.gain) == len(self.shift):
            raise InputError("a steering needs one layer, index, gain and shift per neuron")
        check_addresses(self.layer, self.index, self.model)
        check_directions(self.direction_layer, self.direction, self.model)
        if self.gate.reads:
            check_addresses(self.gate.layer, self.gate.index, self.model)
            if isinstance(self.gate, RunningGate) and self.gate.question is not None:
                check_addresses(self.gate.question.layer, self.gate.question.index, self.model)
            # a placeholder would steer in silence, so a gate without a threshold makes no steering
            _ = self.gate.cutoff
        if not (np.isfinite(self.gain).all() and np.isfinite(self.shift).all() and np.isfinite(self.strength)):
            raise InputError("a steering needs finite gain, shift and strength; NaN or infinity was given")
        if self.scope not in get_args(PositionScope):
            raise InputError(f"unknown scope {self.scope!r}; accepted: {', '.join(get_args(PositionScope))}")
        if self.gate.reads and self.scope != "generated":
            raise InputError(
                f"this {self.gate.kind} gate decides after the prompt was read, so it cannot steer scope {self.scope!r}; "
                "use scope 'generated', or gate 'always'",
                code="gate-scope",
            )

    def __len__(self) -> int:
        """Its places: neurons and directions."""
        return len(self.layer) + len(self.direction_layer)

    def __repr__(self) -> str:
        made = ", ".join(str(self.facts[name]) for name in ("criterion", "intervention") if name in self.facts)
        gains = int(np.count_nonzero(self.gain))
        does = [f"gain on {counted(gains, 'neuron')}"] if gains else []
        if np.count_nonzero(self.shift):
            does.append(f"shift of mean size {np.abs(self.shift).mean():.3g}")
        if len(self.direction):
            norms = np.linalg.norm(self.direction, axis=1)
            does.append(f"{counted(len(norms), 'direction')} of mean norm {norms.mean():.3g}")
        layers = f"{len(np.unique(self.layer))} of {counted(self.model.n_layers, 'layer')}"
        sites = [f"of {counted(len(self.layer), 'neuron')} of {self.model.name}, in {layers}"] if self.has_neurons else []
        if self.has_directions:
            of = "" if sites else f" of {self.model.name}"
            sites.append(f"along {counted(len(self.direction), 'direction')}{of}, after {layers_in_words(self.direction_layer)}")
        return (
            f"steering {', and '.join(sites) or f'of no neuron of {self.model.name}'}"
            f"{f' ({made})' if made else ''}\n"
            f"strength {self.strength:g}, scope {self.scope}; at unit strength {' and '.join(does) or 'nothing'}\n"
            f"{repr(self.gate).splitlines()[0]}"
        )

    @property
    def has_neurons(self) -> bool:
        return len(self.layer) > 0

    @property
    def has_directions(self) -> bool:
        return len(self.direction_layer) > 0

    def refuse_directions(self, what: str) -> None:
        """Raise InputError where ``what`` is of neurons alone and this steering adds a direction."""
        if self.has_directions:
            raise InputError(
                f"{what}, and this steering adds to the residual stream after {layers_in_words(self.direction_layer)}; "
                "give a steering of neurons alone, or attach this one to the transformers model"
            )

    def to_pandas(self) -> "pandas.DataFrame":
        """One row a neuron, in the steering's order: ``layer, index, gain, shift`` at unit strength.

        With directions also a row for each, of site ``residual``, with its ``norm``.
        """
        import pandas

        neurons = pandas.DataFrame({name: getattr(self, name) for name in ("layer", "index", "gain", "shift")})
        if not self.has_directions:
            return neurons
        norms = np.linalg.norm(self.direction, axis=1)
        along = pandas.DataFrame({"site": "residual", "layer": self.direction_layer, "norm": norms})
        return pandas.concat([neurons.assign(site="neuron"), along], ignore_index=True) if self.has_neurons else along

    def plot(self) -> "plotly.graph_objects.Figure":
        """Steered neurons per layer; of a steering without neurons, the norm of each direction."""
        from trimtab.report.frames import directions_frame, layer_frame
        from trimtab.report.plots import draw

        if not self.has_neurons:
            norms = np.linalg.norm(self.direction, axis=1).tolist()
            return draw(directions_frame(self.direction_layer.tolist(), norms, str(self.facts.get("criterion", "steering"))))
        counts = np.bincount(self.layer, minlength=self.model.n_layers).tolist()
        return draw(layer_frame(counts, str(self.facts.get("criterion", "steering"))))

    def _repr_html_(self) -> str:
        return as_html(repr(self), self.to_pandas())

    @property
    def digest(self) -> str:
        """A hash of everything that decides this steering's effect on a forward."""
        summary = hashlib.blake2b(digest_size=16)
        for array in (self.layer, self.index, self.gain, self.shift, *self.gate.arrays.values()):
            summary.update(array.tobytes())
        if self.has_directions:  # a steering without keeps the digest that it always had
            summary.update(b"directions" + self.direction_layer.tobytes() + self.direction.tobytes())
        summary.update(repr((float(self.strength), self.scope, *self.gate.settings, self.model.fingerprint)).encode())
        return summary.hexdigest()

    @classmethod
    def of(
        cls,
        neurons: Neurons | NeuronList,
        strength: float,
        scope: PositionScope = "generated",
        gate: AnyGate = ALWAYS,
        facts: dict[str, object] | None = None,
        intervention: Intervention = add,
    ) -> "Steering":
        """The steering of these neurons by an intervention; by default AdaRAS's constant ``correct_mean - incorrect_mean``.

        Raises:
            InputError: the intervention reads what a :class:`trimtab.neurons.NeuronList` does not hold.
        """
        gain, shift = intervention(neurons)  # type: ignore[arg-type]  # a list refuses what a set has and it has not
        return cls(neurons.layer, neurons.index, gain, shift, strength, scope, gate, neurons.model, facts or {})

    def __add__(self, other: "Steering") -> "Steering":
        """Both at once: the two maps side by side, each at its own strength; directions of one layer add up.

        Raises:
            InputError: made for different models, of different scope or gate, or a shared neuron that either one scales, where
                the result would depend on the order.
        """
        if self.model.fingerprint != other.model.fingerprint:
            raise InputError(f"steerings of two models cannot be added: {self.model.name} and {other.model.name}")
        if self.scope != other.scope:
            raise InputError(f"steerings of scope {self.scope!r} and {other.scope!r} cannot be added; give both the same scope")
        if not _same_gate(self.gate, other.gate):
            raise InputError("steerings behind two gates cannot be added; give both the same gate: steering.with_gate(gate)")
        size = self.model.d_ff
        places = [np.asarray(one.layer * size + one.index) for one in (self, other)]
        shared = np.intersect1d(places[0], places[1])
        scaled = [one.gain[np.isin(place, shared)].any() for one, place in zip((self, other), places, strict=True)]
        if any(scaled):
            raise InputError(
                f"both steerings hold layer {shared[0] // size}, index {shared[0] % size} ({len(shared)} neurons), and one of "
                "them scales what it finds there; only interventions that add can share a neuron"
            )
        union = np.union1d(places[0], places[1]).astype(np.int64)
        gain, shift = np.zeros((2, len(union)), np.float32)
        for one, place in zip((self, other), places, strict=True):
            rows = np.searchsorted(union, place)
            gain[rows] += np.float32(one.strength) * one.gain
            shift[rows] += np.float32(one.strength) * one.shift
        facts: dict[str, object] = {"sum_of": [self.digest, other.digest]}
        layers = np.union1d(self.direction_layer, other.direction_layer)
        along = np.zeros((len(layers), self.model.d_model), np.float32)
        for one in (self, other):
            if one.has_directions:
                along[np.searchsorted(layers, one.direction_layer)] += np.float32(one.strength) * one.direction
        return Steering(union // size, union % size, gain, shift, 1.0, self.scope, self.gate, self.model, facts, layers, along)

    def with_strength(self, strength: float) -> "Steering":
        """The same map at another strength."""
        return replace(self, strength=strength)

    def with_gate(self, gate: AnyGate) -> "Steering":
        """The same map behind another gate."""
        return replace(self, gate=gate)

    def attach(self, model: "PreTrainedModel | LanguageModel", **options: object) -> "AbstractContextManager[Attachment]":
        """Steer every forward and ``generate`` call of a model in a ``with`` block; see :func:`trimtab.model.attach.attach`."""
        from trimtab.model.attach import attach

        return attach(model, self, **options)  # type: ignore[arg-type]

    def save_pretrained(self, folder: "str | os.PathLike[str] | AnyPath", force: bool = False) -> "AnyPath":
        """Write the artifact; see :func:`trimtab.store.artifact.save_steering`."""
        from trimtab.store.artifact import save_steering

        return save_steering(self, folder, force=force)

    @classmethod
    def from_pretrained(cls, source: "str | os.PathLike[str] | AnyPath", revision: str | None = None) -> "Steering":
        """Read an artifact from a folder or a hub repository; see :func:`trimtab.store.artifact.load_steering`."""
        from trimtab.store.artifact import load_steering

        return load_steering(source, revision=revision)

    def push_to_hub(
        self, repo: str, private: bool = True, token: str | None = None, exports: Sequence[str | os.PathLike[str]] = ()
    ) -> str:
        """Upload the artifact and its exports; see :func:`trimtab.store.artifact.push_steering`. Returns the commit's URL."""
        from trimtab.store.artifact import push_steering

        return push_steering(self, repo, private=private, token=token, exports=exports)


def _same_gate(one: AnyGate, other: AnyGate) -> bool:
    same = one.settings == other.settings and one.arrays.keys() == other.arrays.keys()
    return same and all(np.array_equal(array, other.arrays[name]) for name, array in one.arrays.items())
