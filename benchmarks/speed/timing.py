"""Seconds of two things done in turn, and their ratio."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pairs:
    """Seconds of A and B, one of each a repetition; the ratio is that of A over B."""

    a: tuple[float, ...]
    b: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """One a repetition, sorted."""
        return sorted(a / b for a, b in zip(self.a, self.b, strict=True))

    @property
    def ratio(self) -> float:
        """The median."""
        return statistics.median(self.ratios)

    def to_json(self) -> dict[str, object]:
        """Median, extremes, and the seconds themselves."""
        return {
            "ratio": rounded(self.ratio),
            "ratio_min": rounded(self.ratios[0]),
            "ratio_max": rounded(self.ratios[-1]),
            "seconds_a": [round(s, 4) for s in self.a],
            "seconds_b": [round(s, 4) for s in self.b],
        }


def in_turn(a: Callable[[], float], b: Callable[[], float], repetitions: int, *, warm_up: bool = True) -> Pairs:
    """A B A B ..., after one unmeasured pair unless that would take too long. Each action returns its seconds."""
    if warm_up:
        a()
        b()
    seconds = [(a(), b()) for _ in range(repetitions)]
    return Pairs(tuple(s for s, _ in seconds), tuple(s for _, s in seconds))


def timed(action: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def rounded(ratio: float) -> float:
    """Four digits: more would be noise."""
    return float(f"{ratio:.4g}")
