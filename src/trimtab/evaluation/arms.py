"""Arms: the same problems under different interventions, controls included."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trimtab.ranking import norm_matched, random_like
from trimtab.steering import Steering

UNSTEERED, ALWAYS, GATED, NEGATIVE, ADARAS = "unsteered", "always", "gated", "negative", "adaras"
RANDOM, RANDOM_NORM = "random", "random-norm"


@dataclass(frozen=True, slots=True)
class Arm:
    """A name, what to attach and how the gate is set. ``steering`` None is the bare model."""

    name: str
    steering: Steering | None
    gate: Literal["auto", "on", "off"] = "on"


def standard_arms(steering: Steering, down: Mapping[int, NDArray[np.float32]], random_sets: int, seed: int) -> list[Arm]:
    """The arms of a verdict.

    Unsteered, always, gated, negative strength, and ``random_sets`` sets of random neurons twice: the same shifts permuted with
    random signs, and those scaled to the found set's norm of ``W[:, S] @ shift`` in each layer. Random sets are always on, like
    ``always``.

    Args:
        steering: the found steering, with its gate.
        down: down projection weights ``[d_model, d_ff]`` of the steered layers.
        random_sets: how many random sets of each kind.
        seed: of the random sets.
    """
    arms = [
        Arm(UNSTEERED, None),
        Arm(ALWAYS, steering),
        Arm(GATED, steering, "auto"),
        Arm(NEGATIVE, steering.with_strength(-steering.strength)),
    ]
    for i in range(random_sets):
        drawn = random_like(steering, seed=seed + i)
        arms.append(Arm(f"{RANDOM}-{i}", drawn))
        arms.append(Arm(f"{RANDOM_NORM}-{i}", norm_matched(drawn, steering, down)))
    return arms
