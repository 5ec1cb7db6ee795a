"""The requests that a worker has begun: their state, kept while the runner moves its own rows, and what their gates read."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.vllm_plugin.courses import IGNORED, Courses, SlotGate, Summary, find_request
from trimtab.vllm_plugin.options import ResolvedOptions

BUCKETS = ("prompt", "last-prompt", "response")
"""Kinds of tokens whose sums are kept apart; every token scope is a union of them."""
NOBODY = 0
"""The index shared by all requests that ask for nothing: its columns stay zero."""


@dataclass(frozen=True, slots=True)
class RequestState:
    """A request that asks for something: its options, its index, and the length of its prompt."""

    options: ResolvedOptions
    req_index: int
    prompt_length: int


@dataclass(slots=True, eq=False)
class HostColumns:
    """Columns on the host, ``[req_index]`` unless said otherwise.

    Args:
        row: int64, slot of the steering.
        reader: int64, row of what is read of the response.
        runs: bool, whether a running gate reads it.
        join: int64, see :data:`trimtab.vllm_plugin.courses.AND`.
        strength: float32, 0 where the gate is off.
        first: int64, first position that is steered.
        last: int64, position of the last prompt token.
        seen: int64, positions before this one were computed already: a preempted request computes them again.
        pending: bool, whether a gate is to be read at the last prompt token.
        asked: bool, whether what it says decides.
        watched: bool, whether generated tokens are read.
        monitored: int64, how many were.
        record_row: int64, where its sums are, -1 for nowhere.
        counts: int64 ``[req_index, bucket]``, tokens in its sums.
    """

    row: NDArray[np.int64]
    reader: NDArray[np.int64]
    runs: NDArray[np.bool_]
    join: NDArray[np.int64]
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
        """Allocate columns without requests."""

        def integers() -> NDArray[np.int64]:
            return np.zeros(capacity, np.int64)

        def flags() -> NDArray[np.bool_]:
            return np.zeros(capacity, np.bool_)

        return cls(
            row=integers(),
            reader=integers(),
            runs=flags(),
            join=integers(),
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

    def clear(self, req_index: int) -> None:
        """Free an index."""
        for name in self.__slots__:
            getattr(self, name)[req_index] = -1 if name == "record_row" else 0

    def followed_by(self, more: "HostColumns") -> "HostColumns":
        """Return these columns with more of them appended."""
        return HostColumns(*(np.concatenate([getattr(self, name), getattr(more, name)]) for name in self.__slots__))


class RequestStates:
    """The requests that the worker has begun, and on the device, by request:

    Attributes:
        active: float32 ``[req_index]``, g of its gate; 0 before the decision.
        probability: float32 ``[req_index]``, p(fail); NaN before the decision.
        monitor: float32 ``[req_index]``, sum of p(fail) over generated tokens.
        courses: of the responses that running gates read.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        """Start without requests.

        Args:
            capacity: to begin with; it grows, because a preempted request keeps its index.
            device: of the tensors.
        """
        self.states: dict[str, RequestState] = {}
        self.courses = Courses(device)
        self.host = HostColumns.zeros(capacity)
        self._free = list(range(capacity - 1, NOBODY, -1))
        self.active = torch.zeros(capacity, device=device)
        self.probability = torch.full((capacity,), torch.nan, device=device)
        self.monitor = torch.zeros(capacity, device=device)

    def __len__(self) -> int:
        return len(self.states)

    def begin(self, request_id: str, options: ResolvedOptions, prompt_length: int, gate: SlotGate) -> RequestState:
        """Begin a request that the worker has not seen.

        Args:
            gate: of its slot, which reads also where the caller has decided.
        """
        if not self._free:
            self._grow()
        state = RequestState(options, self._free.pop(), prompt_length)
        self.states[request_id] = state
        host, req_index = self.host, state.req_index
        host.clear(req_index)
        host.row[req_index], host.strength[req_index] = options.slot, options.strength if options.gate else 0.0
        host.first[req_index], host.last[req_index] = options.first_position(prompt_length), prompt_length - 1
        host.pending[req_index], host.asked[req_index] = gate.reads, options.asks and gate.reads
        host.reader[req_index], host.runs[req_index] = gate.reader, gate.runs
        host.join[req_index] = gate.join if options.asks else IGNORED
        if gate.runs:
            self.courses.begin(req_index, request_id, gate.initial, gate.warns)
        self.active[req_index] = options.value(gate.reads, gate.constant)
        self.probability[req_index] = torch.nan
        self.monitor[req_index] = 0.0
        return state

    def resume(self, state: RequestState, known: int) -> None:
        """Take back what was read of tokens that the engine has thrown away before it resumes a preempted request.

        Args:
            known: tokens that it still has, those of the prompt included.
        """
        if self.host.runs[state.req_index] and known < self.host.seen[state.req_index]:
            self.host.seen[state.req_index] = known
            self.courses.rewind(state.req_index, max(0, known - state.prompt_length))

    def end(self, request_id: str) -> RequestState | None:
        """End a request and free its index; None for one that was never begun."""
        state = self.states.pop(request_id, None)
        if state is not None:
            if self.host.runs[state.req_index]:
                self.courses.end(state.req_index)
            self.host.clear(state.req_index)
            self._free.append(state.req_index)
        return state

    def _grow(self) -> None:
        before = len(self.active)
        self._free.extend(range(2 * before - 1, before - 1, -1))
        self.host = self.host.followed_by(HostColumns.zeros(before))
        for name in ("active", "probability", "monitor"):
            tensor: Tensor = getattr(self, name)
            setattr(self, name, torch.cat([tensor, torch.zeros_like(tensor)]))


RING = 4096
"""How many ended requests are remembered."""


class GateOutputs:
    """p(fail), the gate's value, the monitor's sum and the course of each request; on the device until they are read."""

    def __init__(self, requests: RequestStates, device: torch.device) -> None:
        """Start without any output."""
        self._requests = requests
        self._ring = torch.zeros(RING, 3 + len(Summary._fields), device=device)
        self._ended: OrderedDict[str, tuple[int, RequestState, _Seen]] = OrderedDict()
        self._next = 0

    def end(self, request_id: str, state: RequestState) -> None:
        """Keep the outputs of a request whose index is about to be freed."""
        if len(self._ended) == RING:
            self._ended.popitem(last=False)
        now = self._now(state)
        self._ring[self._next, : len(now)] = now
        self._ended[request_id] = (self._next, state, self._seen(state))
        self._next = (self._next + 1) % RING

    def find(self, request_id: str) -> dict[str, object] | None:
        """Return the outputs of a request, see :func:`find_request`; None if it is not remembered."""
        running = find_request(request_id, self._requests.states)
        if running is not None:
            state = self._requests.states[running]
            return _facts(running, state, self._now(state), self._seen(state), running=True)
        ended = find_request(request_id, self._ended)
        if ended is None:
            return None
        row, state, seen = self._ended[ended]
        return _facts(ended, state, self._ring[row], seen, running=False)

    def _now(self, state: RequestState) -> Tensor:
        requests, req_index = self._requests, state.req_index
        own = torch.stack([requests.probability[req_index], requests.active[req_index], requests.monitor[req_index]])
        return torch.cat([own, requests.courses.summary(req_index)]) if requests.host.runs[req_index] else own

    def _seen(self, state: RequestState) -> "_Seen":
        host, req_index = self._requests.host, state.req_index
        return _Seen(
            bool(host.runs[req_index]),
            max(0, int(host.seen[req_index]) - state.prompt_length),
            max(0, int(host.seen[req_index] - host.first[req_index])),
            int(host.monitored[req_index]),
        )


class _Seen(NamedTuple):
    """Of a request: whether a running gate reads it, and its tokens in the response, in the scope, and in the monitor's sum."""

    runs: bool
    response: int
    in_scope: int
    monitored: int


def _facts(request_id: str, state: RequestState, read: Tensor, seen: _Seen, running: bool) -> dict[str, object]:
    probability, value, total, *course = (float(number) for number in read.tolist())
    steered = seen.in_scope if value * state.options.strength else 0
    told: dict[str, object] | None = None
    if seen.runs:
        p, value, warned, opened, tokens = course
        steered = int(tokens) if state.options.strength else 0
        told = {
            "p_fail": None if math.isnan(p) else p,
            "tokens": seen.response,
            "warned_at": int(warned) or None,
            "opened_at": int(opened) or None,
        }
    return {
        "request_id": request_id,
        "slot": state.options.slot,
        "p_fail": None if math.isnan(probability) else probability,
        "g": value,
        "fired": steered > 0 if seen.runs else value > 0.0,
        "strength": state.options.strength,
        "scope": state.options.scope,
        "steered_tokens": steered,
        "monitor": total / seen.monitored if seen.monitored else None,
        "monitored_tokens": seen.monitored,
        "running_gate": told,
        "running": running,
    }
