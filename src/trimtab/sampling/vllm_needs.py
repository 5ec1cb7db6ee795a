"""What a vLLM engine has to be started with: the model, room in the tables of the plugin, and what it records."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from trimtab.errors import ModelError
from trimtab.gate import ALWAYS
from trimtab.steering import Steering
from trimtab.vllm_plugin.config import RecordConfig


@dataclass(frozen=True, slots=True)
class Needs:
    """What an engine has to be started with.

    Args:
        model: fingerprint and dtype.
        neurons, features: columns of the fullest layer.
        record: None where nothing is recorded.
    """

    model: str
    neurons: int = 1
    features: int = 0
    record: RecordConfig | None = None

    def covers(self, other: "Needs") -> bool:
        """Whether an engine that was started for this serves the other, too."""
        room = self.neurons >= other.neurons and self.features >= other.features
        return self.model == other.model and room and other.record in (None, self.record)

    def joined(self, other: "Needs") -> "Needs":
        """The other's needs, with the room that this has."""
        return Needs(other.model, max(self.neurons, other.neurons), max(self.features, other.features), other.record)


def attached(steering: Steering | None, gate: Literal["auto", "on", "off"]) -> Steering | None:
    """What is loaded: with the gate held open there is none to read, and what never steers is no steering."""
    if steering is None or gate == "off":
        return None
    if not len(steering):
        raise ModelError("this steering has no neurons, so attaching it would change nothing; select at least one neuron")
    chosen = steering.with_gate(ALWAYS) if gate == "on" else steering
    return None if chosen.gate.kind == "never" else chosen


def needs_of(model: str, steering: Steering | None) -> Needs:
    """What a steering takes, None for the bare model."""
    if steering is None:
        return Needs(model)
    features = int(np.bincount(steering.gate.layer).max()) if steering.gate.reads else 0
    return Needs(model, int(np.bincount(steering.layer).max()), features)
