"""What was read of each request, for the callers who ask: those that run, and a bounded ring of those that ended."""

import math
from collections import OrderedDict

import torch
from torch import Tensor

from trimtab.vllm_plugin.request_ids import find_request
from trimtab.vllm_plugin.request_slots import RequestSlots, RequestState

RING = 4096
"""How many ended requests are remembered."""


class Scores:
    """The probability, the gate's value and the monitor's sum of each request; they stay on the device until somebody asks."""

    def __init__(self, requests: RequestSlots, device: torch.device) -> None:
        """Nothing was read yet."""
        self._requests = requests
        self._ring = torch.zeros(RING, 3, device=device)
        self._ended: OrderedDict[str, tuple[int, RequestState, int]] = OrderedDict()
        self._next = 0

    def end(self, request_id: str, state: RequestState) -> None:
        """Keep what was read of a request whose place is about to be given away."""
        if len(self._ended) == RING:
            self._ended.popitem(last=False)
        self._ring[self._next] = self._now(state)
        self._ended[request_id] = (self._next, state, int(self._requests.host.monitored[state.place]))
        self._next = (self._next + 1) % RING

    def find(self, request_id: str) -> dict[str, object] | None:
        """What is known of a request, see :func:`find_request`; None for one that is not remembered."""
        running = find_request(request_id, self._requests.states)
        if running is not None:
            state = self._requests.states[running]
            return self._facts(running, state, self._now(state), int(self._requests.host.monitored[state.place]), running=True)
        ended = find_request(request_id, self._ended)
        if ended is None:
            return None
        row, state, monitored = self._ended[ended]
        return self._facts(ended, state, self._ring[row], monitored, running=False)

    def _now(self, state: RequestState) -> Tensor:
        requests, place = self._requests, state.place
        return torch.stack([requests.probability[place], requests.active[place], requests.monitor[place]])

    @staticmethod
    def _facts(request_id: str, state: RequestState, read: Tensor, monitored: int, running: bool) -> dict[str, object]:
        probability, value, total = (float(number) for number in read.tolist())
        return {
            "request_id": request_id,
            "slot": state.options.slot,
            "p_fail": None if math.isnan(probability) else probability,
            "g": value,
            "fired": value > 0.0,
            "strength": state.options.strength,
            "scope": state.options.scope,
            "monitor": total / monitored if monitored else None,
            "monitored_tokens": monitored,
            "running": running,
        }
