"""One step of the engine, from requests to tokens: which row, weight and target each token of the batch has."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trimtab.vllm_plugin.request_slots import BUCKETS, NOBODY, HostColumns


@dataclass(frozen=True, slots=True, eq=False)
class StepPlan:
    """What the device needs, ``[token]`` unless said otherwise.

    Args:
        row: int64, slot of the steering.
        strength: float32, 0 outside the scope.
        place: int64, of the token's request.
        target: int64, row of the recorded sums.
        monitored: bool, a generated token that is read and computed for the first time.
        decide: int64 ``[4, prompt]`` of each gate to be read: last prompt token, place, row, and 1 where it decides.
    """

    row: NDArray[np.int64]
    strength: NDArray[np.float32]
    place: NDArray[np.int64]
    target: NDArray[np.int64]
    monitored: NDArray[np.bool_]
    decide: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)


def plan_step(
    host: HostColumns,
    places: NDArray[np.int64],
    start: NDArray[np.int64],
    count: NDArray[np.int64],
    nowhere: int = 0,
    buckets: Sequence[str] = (),
) -> StepPlan:
    """Lay the requests out as the batch does, and note in ``host`` what is computed now.

    Args:
        host: of all places.
        places: of the requests in the order of the batch, ``[request]``.
        start: position of each one's first token in this step, ``[request]``.
        count: its tokens in this step, ``[request]``.
        nowhere: the row of the recorded sums that is of no request.
        buckets: of :data:`BUCKETS` that are recorded.
    """
    offset = np.cumsum(count) - count
    owner = np.repeat(np.arange(len(places)), count)
    position = np.arange(len(owner)) + (start - offset)[owner]
    place = places[owner]
    new = position >= host.seen[place]
    after_last = np.sign(position - host.last[place])  # -1 in the prompt, 0 at its last token, 1 when generated
    monitored = host.watched[place] & new & (after_last > 0)
    np.add.at(host.monitored, place[monitored], 1)
    last = host.last[places]
    deciding = host.pending[places] & (start <= last) & (last < start + count)
    host.pending[places[deciding]] = False
    gates = places[deciding]
    decide = np.stack([(offset + last - start)[deciding], gates, host.row[gates], host.asked[gates].astype(np.int64)])
    target = _targets(host, place, after_last + 1, new, nowhere, buckets)
    host.seen[places] = np.maximum(host.seen[places], start + count)
    host.seen[NOBODY] = 0
    strength = np.where(position >= host.first[place], host.strength[place], np.float32(0.0))
    return StepPlan(host.row[place], strength, place, target, monitored, decide)


def _targets(
    host: HostColumns,
    place: NDArray[np.int64],
    kind: NDArray[np.int64],
    new: NDArray[np.bool_],
    nowhere: int,
    buckets: Sequence[str],
) -> NDArray[np.int64]:
    """Where each token's activations are added; counted by place and kind, an index into :data:`BUCKETS`."""
    column = np.array([buckets.index(name) if name in buckets else -1 for name in BUCKETS])[kind]
    recorded = new & (host.record_row[place] >= 0) & (column >= 0)
    np.add.at(host.counts, (place[recorded], kind[recorded]), 1)
    return np.where(recorded, host.record_row[place] * len(buckets) + column, nowhere)
