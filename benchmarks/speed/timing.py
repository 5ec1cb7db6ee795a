"""Seconds of two things done in turn, and their ratio."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Spent(NamedTuple):
    """Seconds on the wall, and of the processor, which depend less on what else the machine does."""

    wall: float
    processor: float


class Pairs(NamedTuple):
    """What A and B took, one of each a repetition; ratios are those of A over B."""

    a: tuple[Spent, ...]
    b: tuple[Spent, ...]

    @property
    def ratio(self) -> float:
        """Median ratio of wall-clock seconds: the figure that counts."""
        return statistics.median(self._ratios(0))

    def to_json(self) -> dict[str, object]:
        """Median and extremes, the same of processor time, and the seconds themselves."""
        ratios = self._ratios(0)
        return {
            "ratio": rounded(self.ratio),
            "ratio_min": rounded(min(ratios)),
            "ratio_max": rounded(max(ratios)),
            "processor_ratio": rounded(statistics.median(self._ratios(1))),
            "seconds_a": [round(spent.wall, 4) for spent in self.a],
            "seconds_b": [round(spent.wall, 4) for spent in self.b],
        }

    def _ratios(self, clock: int) -> list[float]:
        return [a[clock] / b[clock] for a, b in zip(self.a, self.b, strict=True)]


def in_turn(a: Callable[[], Spent], b: Callable[[], Spent], repetitions: int, *, warm_up: bool = True) -> Pairs:
    """A B A B ..., after one unmeasured pair unless that would take too long."""
    if warm_up:
        a()
        b()
    spent = [(a(), b()) for _ in range(repetitions)]
    return Pairs(tuple(first for first, _ in spent), tuple(second for _, second in spent))


def timed(action: Callable[[], object]) -> Spent:
    """What one call takes."""
    wall, processor = time.perf_counter(), time.process_time()
    action()
    return Spent(time.perf_counter() - wall, time.process_time() - processor)


def rounded(ratio: float) -> float:
    """Four digits: more would be noise."""
    return float(f"{ratio:.4g}")
