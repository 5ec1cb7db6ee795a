"""Moments of activations by request, summed up in the graph and fetched when a request leaves the batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.errors import ModelError
from trimtab.moments import MOMENTS, TokenScope
from trimtab.vllm_plugin.config import RecordConfig
from trimtab.vllm_plugin.courses import find_request
from trimtab.vllm_plugin.requests import BUCKETS, HostColumns, RequestState

_SCOPES: dict[TokenScope, tuple[str, ...]] = {
    "response": ("response",),
    "last-prompt": ("last-prompt",),
    "prompt": ("prompt", "last-prompt"),
    "all": BUCKETS,
}


@dataclass(slots=True, eq=False)
class RecordedSums:
    """The sums and counts fetched of a request so far: float32 ``[layer, moment, bucket, d_ff]``, int64 ``[bucket]``."""

    sums: NDArray[np.float32]
    counts: NDArray[np.int64]


class Recording:
    """The rows of the sums, and the request that holds each.

    A request has a row while it is in the batch. When it is preempted its sums are fetched and the row is given away; when it
    comes back it gets another, and its parts are added up.

    Attributes:
        buckets: kinds of tokens that are kept apart, those that the scopes need.
        moments: in the order of :data:`trimtab.moments.MOMENTS`.
        sums: by layer, float32 ``[moment, row, d_ff]``.
        nowhere: the last row, of no request.
    """

    def __init__(self, config: RecordConfig, layers: int, requests: int, width: int, device: torch.device) -> None:
        """Allocate rows of zeros.

        Args:
            config: which moments, over which tokens.
            layers: how many are recorded.
            requests: at most in one batch.
            width: neurons of a layer on this rank.
            device: of the sums.
        """
        self.config = config
        needed = {bucket for scope in config.scopes for bucket in _SCOPES[scope]}
        self.buckets = tuple(bucket for bucket in BUCKETS if bucket in needed)
        self.moments = tuple(name for name in MOMENTS if name in config.moments)
        self.nowhere = requests * len(self.buckets)
        shape = (len(self.moments), self.nowhere + 1, width)
        self.sums: dict[int, Tensor] = {layer: torch.zeros(shape, device=device) for layer in range(layers)}
        self._free = list(range(requests - 1, -1, -1))
        self._parts: dict[str, list[RecordedSums]] = {}

    @property
    def needs_whole_prompt(self) -> bool:
        """Whether a prompt's cached tokens would be missing from the sums."""
        return "prompt" in self.buckets

    def enter(self, host: HostColumns, request_id: str, state: RequestState) -> None:
        """Give a request that is in the batch a row, if it has none."""
        if host.record_row[state.req_index] >= 0:
            return
        row = self._free.pop()
        span = self._span(row)
        for total in self.sums.values():
            total[:, span] = 0.0
        host.record_row[state.req_index] = row
        host.counts[state.req_index] = 0
        self._parts.setdefault(request_id, [])

    def leave(self, host: HostColumns, request_id: str, state: RequestState) -> None:
        """Fetch the sums of a request that leaves the batch, which waits for the device, and free its row."""
        row = int(host.record_row[state.req_index])
        if row < 0:
            return
        self._parts[request_id].append(self._fetch(host, state, row))
        host.record_row[state.req_index] = -1
        self._free.append(row)

    def take(self, host: HostColumns, request_id: str, states: Mapping[str, RequestState]) -> RecordedSums | None:
        """Return the sums of a request, once; see :func:`find_request`. None if it was not recorded, or was taken already.

        Raises:
            ModelError: activations that are not finite.
        """
        own = find_request(request_id, self._parts)
        if own is None:
            return None
        if own in states:
            self.leave(host, own, states[own])
        parts = self._parts.pop(own)
        if not parts:
            return None
        total = RecordedSums(np.sum([part.sums for part in parts], 0), np.sum([part.counts for part in parts], 0))
        if not np.isfinite(total.sums).all():
            raise ModelError(
                f"request {request_id} has activations that are not finite; use a dtype that holds them, bfloat16 or float32"
            )
        return total

    def wire(self, total: RecordedSums) -> dict[str, object]:
        """Convert sums into plain values that vLLM can send between processes: count and bytes by scope and moment."""
        layers, _, _, width = total.sums.shape
        scopes: dict[str, object] = {}
        for scope in self.config.scopes:
            kinds = [self.buckets.index(bucket) for bucket in _SCOPES[scope]]
            arrays = total.sums[:, :, kinds].sum(2)
            scopes[scope] = {
                "count": int(sum(total.counts[BUCKETS.index(bucket)] for bucket in _SCOPES[scope])),
                "moments": {name: arrays[:, i].astype("<f4").tobytes() for i, name in enumerate(self.moments)},
            }
        return {"shape": [layers, width], "scopes": scopes}

    def _fetch(self, host: HostColumns, state: RequestState, row: int) -> RecordedSums:
        span = self._span(row)
        sums = torch.stack([total[:, span] for total in self.sums.values()]).cpu().numpy()
        return RecordedSums(sums.copy(), host.counts[state.req_index].copy())

    def _span(self, row: int) -> slice:
        return slice(row * len(self.buckets), (row + 1) * len(self.buckets))


def read_wire(ranks: Sequence[dict[str, object]]) -> tuple[dict[str, int], dict[str, dict[str, NDArray[np.float32]]]]:
    """Join the ranks' parts: counts by scope, and float32 ``[layer, d_ff]`` by scope and moment."""
    counts: dict[str, int] = {}
    arrays: dict[str, dict[str, NDArray[np.float32]]] = {}
    first = ranks[0]["scopes"]
    for scope, content in first.items():  # type: ignore[attr-defined]
        counts[scope] = content["count"]
        arrays[scope] = {
            name: np.concatenate(
                [np.frombuffer(rank["scopes"][scope]["moments"][name], "<f4").reshape(rank["shape"]) for rank in ranks],  # type: ignore[index,call-overload]
                axis=1,
            )
            for name in content["moments"]
        }
    return counts, arrays
