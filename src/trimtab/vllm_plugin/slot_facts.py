"""What is known of a loaded steering without its arrays."""

from dataclasses import dataclass

from trimtab.steering import PositionScope, Steering


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """A steering in a slot of the engine.

    Args:
        name: what requests call it.
        slot: its row in the tables, from 1.
        path: where it was read from.
        digest: of the steering.
        strength, scope: the artifact's own.
        reads: whether its gate reads the prompt.
        gate: what a person calls its gate.
        neurons: how many it steers.
    """

    name: str
    slot: int
    path: str
    digest: str
    strength: float
    scope: PositionScope
    reads: bool
    gate: str
    neurons: int

    @classmethod
    def of(cls, name: str, slot: int, path: str, steering: Steering) -> "SlotFacts":
        """The facts of a steering."""
        return cls(
            name,
            slot,
            path,
            steering.digest,
            float(steering.strength),
            steering.scope,
            steering.gate.reads,
            steering.gate.label,
            len(steering),
        )
