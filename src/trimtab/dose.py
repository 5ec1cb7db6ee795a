"""The dose of a steering: the size of its edit relative to the output of each layer's FFN, as a value that artifacts carry."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from trimtab.errors import InputError

FACT = "dose"
"""The entry of a steering's facts that holds its dose."""


@dataclass(frozen=True, slots=True)
class Dose:
    """The dose of each layer at unit strength; see :func:`trimtab.analysis.dose.measure_doses`.

    Args:
        layer: the steered layers.
        unit: of each, ``norm(edit) / norm(FFN output)`` at strength 1. At strength s it is ``abs(s)`` times as much.
        tokens: generated tokens of calibration traces that it was measured on.

    Raises:
        InputError: no layer, lengths that differ, or a number that is negative or not finite.

    Example:
        >>> Dose((2, 5), (0.1, 0.25), 800).at(-2.0)
        0.5
    """

    layer: tuple[int, ...]
    unit: tuple[float, ...]
    tokens: int

    def __post_init__(self) -> None:
        if not self.layer or len(self.layer) != len(self.unit) or not all(0 <= dose < math.inf for dose in self.unit):
            raise InputError(f"a dose needs one finite number of 0 or more for each of one layer or more; got {self.unit!r:.100}")

    @property
    def largest(self) -> float:
        """Over the layers, at unit strength."""
        return max(self.unit)

    def at(self, strength: float) -> float:
        """The largest dose over the layers at a strength."""
        return abs(strength) * self.largest

    def most(self, limit: float) -> float:
        """The largest strength whose dose is not above a limit; infinite where no strength is."""
        return limit / self.largest if self.largest else math.inf

    def facts(self) -> dict[str, object]:
        """This dose as the entry :data:`FACT` of a steering's facts."""
        return {"layer": list(self.layer), "unit": [float(f"{dose:.4g}") for dose in self.unit], "tokens": self.tokens}

    @classmethod
    def of(cls, facts: Mapping[str, object]) -> "Dose | None":
        """Read the dose from a steering's facts; None where it was not measured.

        Raises:
            InputError: an entry of another form.
        """
        found = facts.get(FACT)
        if found is None:
            return None
        try:
            entry = cast("Mapping[str, list[float]]", found)
            layer, unit = tuple(map(int, entry["layer"])), tuple(map(float, entry["unit"]))
            return cls(layer, unit, int(cast("int", entry["tokens"])))
        except (TypeError, KeyError, ValueError) as cause:
            raise InputError(
                f"the fact {FACT!r} holds no dose: {found!r:.100}; measure it again: trimtab show --model"
            ) from cause
