"""The grid of the verb ``tune``: what is tried on the validation split, and which point is best."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtab.evaluation.rows import TunePoint
from trimtab.steering import PositionScope

InterventionName = Literal["add", "scale", "ablate", "interpolate", "softplus-add", "ablate-and-add"]


class TuneSettings(BaseModel):
    """The grid, fixed before anything is evaluated. ``problems`` bounds how many of the validation split each point runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    interventions: tuple[InterventionName, ...] = ("add",)
    k: tuple[int, ...] = (5, 20, 50)
    strengths: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0)
    scope: PositionScope = "generated"
    problems: int = Field(default=250, ge=1)


def best_point(points: Sequence[TunePoint], criterion: str | None = None, intervention: str | None = None) -> TunePoint:
    """The point with the highest gated accuracy; on a tie the fewest neurons, then the weakest strength."""
    candidates = [p for p in points if criterion in (None, p.criterion) and intervention in (None, p.intervention)]
    return min(candidates, key=lambda p: (-p.gated, p.k, abs(p.strength), p.criterion, p.intervention))
