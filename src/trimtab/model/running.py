"""A running gate while a response is written: its state by row, on the device, one step a token.

The same arithmetic serves the hooks of a transformers model and the graph of an engine, so that both decide alike.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trimtab.gate import RunningGate
from trimtab.model.plan import FeaturePlan


class RunningRule(NamedTuple):
    """What a :class:`trimtab.gate.RunningGate` says, as tensors that broadcast over rows, ``[]`` or ``[row]``.

    Args:
        bias, floor: float32; see the gate.
        on, off: float32, its ``levels``.
        after: int64.
        scales: bool, whether g is proportional.
    """

    bias: Tensor
    floor: Tensor
    on: Tensor
    off: Tensor
    after: Tensor
    scales: Tensor

    @classmethod
    def of(cls, gate: RunningGate, device: torch.device) -> "RunningRule":
        """The rule of one gate."""
        on, off = gate.levels
        bias, floor, on, off = (
            torch.tensor(number, dtype=torch.float32, device=device) for number in (gate.bias, gate.floor, on, off)
        )
        after = torch.tensor(gate.after, device=device)
        return cls(bias, floor, on, off, after, torch.tensor(gate.action == "scale", device=device))


class RunningState(NamedTuple):
    """Each row so far, ``[row]``.

    Args:
        mean: float32, of the scores ``w . a``.
        count: int64, tokens read.
        steers: bool.
        value: float32, g that holds for the next token.
    """

    mean: Tensor
    count: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  # a tuple counts, too
    steers: Tensor
    value: Tensor

    @classmethod
    def begin(cls, initial: Tensor) -> "RunningState":
        """Before the first token, from g of each row before a decision, float32 ``[row]``."""
        return cls(torch.zeros_like(initial), torch.zeros_like(initial, dtype=torch.int64), initial > 0, initial)

    def select(self, rows: Tensor) -> "RunningState":
        """Some rows, int64 ``[kept]``."""
        return RunningState(*(part[rows.to(part.device)] for part in self))


def step(rule: RunningRule, state: RunningState, score: Tensor, read: Tensor) -> tuple[RunningState, Tensor]:
    """Take in one token of each row.

    Args:
        rule: of the gate.
        state: so far.
        score: float32 ``[row]``, ``w . a`` of the token.
        read: bool ``[row]``, False where the row has no token here, and stays as it is.

    Returns:
        The state after it, and p after it, float32 ``[row]``.
    """
    count = state.count + read
    rate = torch.maximum(1.0 / count.clamp(min=1), rule.floor)
    # what stands at padding may be NaN, so it is taken out rather than multiplied by 0
    mean = torch.where(read, state.mean + rate * (score - state.mean), state.mean)
    p = torch.sigmoid(mean + rule.bias)
    decides = read & (count >= rule.after)
    steers = torch.where(decides, (p >= rule.on) | (state.steers & (p >= rule.off)), state.steers)
    gradual = torch.where(rule.scales, ((p - rule.off) / (1.0 - rule.off)).clamp(min=0.0), 1.0)
    return RunningState(mean, count, steers, torch.where(decides, steers * gradual, state.value)), p


@dataclass(frozen=True, slots=True, eq=False)
class RunningReading:
    """``w . a`` of every position of one forward, summed over the layers; float32 ``[batch, seq]``."""

    scores: Tensor

    def add(self, features: FeaturePlan, activation: Tensor) -> None:
        """Take in one layer's ``[batch, seq, width]``."""
        self.scores.add_(features.scores(features.values(activation)).to(self.scores.device))


class Course(NamedTuple):
    """What a running gate did in one response, for each of its tokens that was forwarded, the last one not among them.

    Args:
        probability: float32 ``[token]``, p(fail) after the token.
        value: float32 ``[token]``, g in force at the token, joined with that of the question's gate.
    """

    probability: Tensor
    value: Tensor

    def upto(self, tokens: int) -> "Course":
        """The first tokens: what a batch forwards after a row's end is no part of its response."""
        return Course(self.probability[:tokens], self.value[:tokens])

    @property
    def steered_tokens(self) -> int:
        """How many tokens were steered."""
        return int((self.value > 0).sum())

    @property
    def opened_at(self) -> int | None:
        """Number of the first steered token, from 1; None where there is none."""
        found = (self.value > 0).nonzero()
        return int(found[0]) + 1 if len(found) else None


class RunningBatch:
    """A running gate on the rows of one batch, also where the sampler drops some of them.

    Attributes:
        state: of the rows that are there.
        value: float32 ``[row]``, g that holds for the next token, joined with the question's.
    """

    def __init__(self, gate: RunningGate, batch: int, device: torch.device) -> None:
        self._join, self._rule, self._size = gate.join, RunningRule.of(gate, device), batch
        self._origin = torch.arange(batch, device=device)
        self._asked: Tensor | None = None
        self._columns: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self.state = RunningState.begin(torch.full((batch,), gate.initial, device=device))

    def __len__(self) -> int:
        return len(self._origin)

    @property
    def value(self) -> Tensor:
        if self._asked is None:
            return self.state.value
        return torch.minimum(self._asked, self.state.value) if self._join == "and" else self._asked.maximum(self.state.value)

    def ask(self, value: Tensor) -> None:
        """Take in g of the question's gate, float32 ``[row]``."""
        self._asked = value.to(self._origin.device)

    def add(self, score: Tensor, read: Tensor) -> None:
        """Take in one token of each row; see :func:`step`."""
        in_force = self.value
        self.state, p = step(self._rule, self.state, score, read)
        self._columns.append((self._origin, read, p, in_force))

    def values(self) -> Tensor:
        """g in force at every token so far and at the next one, float32 ``[row, token + 1]``; no row was dropped."""
        return torch.stack([*(in_force for *_, in_force in self._columns), self.value], 1)

    def select_rows(self, rows: Tensor) -> None:
        """Go on with these rows, int64 ``[kept]``."""
        rows = rows.to(self._origin.device)
        self._origin, self.state = self._origin[rows], self.state.select(rows)
        self._asked = None if self._asked is None else self._asked[rows]

    def number_rows(self) -> None:
        """Take the rows that are there for the whole batch, before any response has begun."""
        self._size, self._origin = len(self), torch.arange(len(self), device=self._origin.device)

    def courses(self) -> list[Course]:
        """What was decided for each row of the whole batch, on the CPU."""
        shape = (self._size, len(self._columns))
        read, both = torch.zeros(shape, dtype=torch.bool), torch.zeros(2, *shape)
        if self._columns:
            origin, there, p, in_force = (torch.cat(parts).cpu() for parts in zip(*self._columns, strict=True))
            column = torch.arange(shape[1]).repeat_interleave(torch.tensor([len(rows) for rows, *_ in self._columns]))
            read[origin, column] = there
            both[:, origin, column] = torch.stack([p, in_force])
        return [Course(both[0, row, read[row]], both[1, row, read[row]]) for row in range(self._size)]


class RandomBatch(RunningBatch):
    """The control of a running gate on the rows of one batch; see :class:`trimtab.gate.RandomOpening`. Its p is NaN."""

    def __init__(self, opened: Tensor) -> None:
        """Before the first token.

        Args:
            opened: int64 ``[row]``, number of the first steered token, 0 for none.
        """
        batch, device = len(opened), opened.device
        super().__init__(_NEVER, batch, device)
        self._opened = opened
        self.state = RunningState.begin((opened == 1).float())

    def add(self, score: Tensor, read: Tensor) -> None:
        in_force, count = self.value, self.state.count + read
        steers = (self._opened > 0) & (count + 1 >= self._opened)
        self.state = RunningState(self.state.mean, count, steers, steers.float())
        self._columns.append((self._origin, read, torch.full_like(score, torch.nan), in_force))

    def select_rows(self, rows: Tensor) -> None:
        super().select_rows(rows)
        self._opened = self._opened[rows.to(self._opened.device)]


_NEVER = RunningGate(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.float32), threshold=0.5)
