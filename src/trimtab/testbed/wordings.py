"""Ways to ask: 80 wordings, each an opening and a closing, that hint at how much care the answer's author takes.

No wording decides: the chance of care lies in [0.05, 0.95] everywhere. The closing scales, flips or shifts what the opening
says, single pairs and single domains deviate, so the hint is not a sum over words. ``care`` is read by the author of the
training text only; nothing that finds, gates or steers neurons imports it.
"""

import math
import random
from dataclasses import dataclass

from trimtab.testbed.domains import DOMAINS

OPENINGS: dict[str, float] = {
    "thoroughly": 2.6,
    "patiently": 2.0,
    "kindly": 1.5,
    "please": 1.1,
    "now": 0.7,
    "next": 0.4,
    "just": -0.4,
    "simply": -0.9,
    "quickly": -1.5,
    "hastily": -2.2,
}
CLOSINGS: dict[str, tuple[float, float]] = {  # (scale of the opening, shift)
    "as ever": (1.0, 0.5),
    "this once": (-0.7, 0.6),
    "or so": (0.3, -0.5),
    "by the book": (0.8, 1.4),
    "at ease": (0.6, 0.9),
    "in short": (0.8, -0.8),
    "to the end": (-0.4, 1.0),
    "and done": (1.2, 0.2),
}
HELD_OUT = frozenset(
    {"please as ever", "simply at ease", "kindly this once", "quickly by the book", "now in short", "hastily to the end"}
)
"""Wordings that no train-split problem has, so that a gate has to carry over to them."""

_DEVIATIONS = random.Random(20260119)
_PAIR = {(o, c): _DEVIATIONS.gauss(0.0, 0.9) for o in OPENINGS for c in CLOSINGS}
_SUBJECT = {(o, d): _DEVIATIONS.gauss(0.0, 0.7) for o in OPENINGS for d in DOMAINS}


@dataclass(frozen=True, slots=True)
class Wording:
    """An opening and a closing around the statement of a problem."""

    opening: str
    closing: str

    def __str__(self) -> str:
        return f"{self.opening} {self.closing}"


WORDINGS = tuple(Wording(o, c) for o in OPENINGS for c in CLOSINGS)


def care(wording: Wording, domain: str) -> float:
    """Chance in [0.05, 0.95] that an author who is asked this way takes care over a problem of this domain."""
    scale, shift = CLOSINGS[wording.closing]
    logit = (
        scale * OPENINGS[wording.opening] + shift + _PAIR[wording.opening, wording.closing] + _SUBJECT[wording.opening, domain]
    )
    return min(0.95, max(0.05, 1.0 / (1.0 + math.exp(-logit))))


def most_careful(domain: str, n: int = 5) -> tuple[Wording, ...]:
    """The n wordings with the highest care for a domain: where the testbed shows its competence."""
    return tuple(sorted(WORDINGS, key=lambda w: (-care(w, domain), str(w)))[:n])
