"""A stable place for each request that the engine has begun: the runner moves its own rows about."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.vllm_plugin.options import ResolvedOptions

BUCKETS = ("prompt", "last-prompt", "response")
"""Kinds of tokens whose sums are kept apart; every token scope is a union of them."""
NOBODY = 0
"""The place that all requests share which ask for nothing: its columns stay zero."""


@dataclass(frozen=True, slots=True)
class RequestState:
    """A request that asks for something: its options, its place, and the length of its prompt."""

    options: ResolvedOptions
    place: int
    prompt_length: int


@dataclass(slots=True, eq=False)
class HostColumns:
    """What the host knows of each place, ``[place]`` unless said otherwise.

    Args:
        row: int64, slot of the steering.
        strength: float32, 0 where the gate is off.
        first: int64, first position that is steered.
        last: int64, position of the last prompt token.
        seen: int64, positions before this one were computed already: a preempted request computes them again.
        pending: bool, whether a gate is to be read at the last prompt token.
        asked: bool, whether what it says decides.
        watched: bool, whether generated tokens are read.
        monitored: int64, how many were.
        record_row: int64, where its sums are, -1 for nowhere.
        counts: int64 ``[place, bucket]``, tokens in its sums.
    """

    row: NDArray[np.int64]
    strength: NDArray[np.float32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    seen: NDArray[np.int64]
    pending: NDArray[np.bool_]
    asked: NDArray[np.bool_]
    watched: NDArray[np.bool_]
    monitored: NDArray[np.int64]
    record_row: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def zeros(cls, capacity: int) -> "HostColumns":
        """Columns of nobody."""

        def integers() -> NDArray[np.int64]:
            return np.zeros(capacity, np.int64)

        def flags() -> NDArray[np.bool_]:
            return np.zeros(capacity, np.bool_)

        return cls(
            row=integers(),
            strength=np.zeros(capacity, np.float32),
            first=integers(),
            last=integers(),
            seen=integers(),
            pending=flags(),
            asked=flags(),
            watched=flags(),
            monitored=integers(),
            record_row=integers() - 1,
            counts=np.zeros((capacity, len(BUCKETS)), np.int64),
        )

    def clear(self, place: int) -> None:
        """A place is nobody's."""
        for name in self.__slots__:
            getattr(self, name)[place] = -1 if name == "record_row" else 0

    def followed_by(self, more: "HostColumns") -> "HostColumns":
        """These places and then more of them."""
        return HostColumns(*(np.concatenate([getattr(self, name), getattr(more, name)]) for name in self.__slots__))


class RequestSlots:
    """The requests, and per place on the device:

    Attributes:
        active: float32 ``[place]``, g of its gate; 0 before the decision.
        probability: float32 ``[place]``, p(fail); NaN before the decision.
        monitor: float32 ``[place]``, sum of p(fail) over generated tokens.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        """Without requests.

        Args:
            capacity: to begin with; it grows, because a preempted request keeps its place.
            device: of the tensors.
        """
        self.states: dict[str, RequestState] = {}
        self.host = HostColumns.zeros(capacity)
        self._free = list(range(capacity - 1, NOBODY, -1))
        self.active = torch.zeros(capacity, device=device)
        self.probability = torch.full((capacity,), torch.nan, device=device)
        self.monitor = torch.zeros(capacity, device=device)

    def __len__(self) -> int:
        return len(self.states)

    def begin(
        self, request_id: str, options: ResolvedOptions, prompt_length: int, value: float | None, reads: bool
    ) -> RequestState:
        """A request that the engine has not seen.

        Args:
            value: g where no gate decides it, else None.
            reads: whether its steering has a gate that reads, also where the caller has decided.
        """
        if not self._free:
            self._grow()
        state = RequestState(options, self._free.pop(), prompt_length)
        self.states[request_id] = state
        host, place = self.host, state.place
        host.clear(place)
        host.row[place], host.strength[place] = options.slot, options.strength if options.gate else 0.0
        host.first[place], host.last[place] = options.first_position(prompt_length), prompt_length - 1
        host.pending[place], host.asked[place] = reads, value is None
        self.active[place] = 0.0 if value is None else value
        self.probability[place] = torch.nan
        self.monitor[place] = 0.0
        return state

    def end(self, request_id: str) -> RequestState | None:
        """A request has ended; its place is free. None for one that was never begun."""
        state = self.states.pop(request_id, None)
        if state is not None:
            self.host.clear(state.place)
            self._free.append(state.place)
        return state

    def _grow(self) -> None:
        before = len(self.active)
        self._free.extend(range(2 * before - 1, before - 1, -1))
        self.host = self.host.followed_by(HostColumns.zeros(before))
        for name in ("active", "probability", "monitor"):
            tensor: Tensor = getattr(self, name)
            setattr(self, name, torch.cat([tensor, torch.zeros_like(tensor)]))
