"""One step of the engine in one worker: each token's row, weight and target before the forward, the gates after it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.errors import ModelError
from trimtab.vllm_plugin.courses import AND, IN_FORCE, VALUE, CoursePlan, CourseReading, joined
from trimtab.vllm_plugin.hooks import StepBuffers, to_device
from trimtab.vllm_plugin.options import ResolvedOptions
from trimtab.vllm_plugin.recording import RecordedSums, Recording
from trimtab.vllm_plugin.requests import BUCKETS, NOBODY, GateOutputs, HostColumns, RequestStates
from trimtab.vllm_plugin.tables import SlotTables


@dataclass(frozen=True, slots=True, eq=False)
class StepPlan:
    """The values that the device needs for a step, ``[token]`` unless said otherwise.

    Args:
        row: int64, slot of the steering.
        reader: int64, row of what is read.
        strength: float32, 0 outside the scope.
        req_index: int64, of the token's request.
        target: int64, row of the recorded sums.
        monitored: bool, a generated token that is read and computed for the first time.
        decide: int64 ``[4, prompt]`` of each gate to be read: last prompt token, request, row, and 1 where it decides.
        courses: the tokens that running gates read.
    """

    row: NDArray[np.int64]
    reader: NDArray[np.int64]
    strength: NDArray[np.float32]
    req_index: NDArray[np.int64]
    target: NDArray[np.int64]
    monitored: NDArray[np.bool_]
    decide: NDArray[np.int64]
    courses: CoursePlan

    def __len__(self) -> int:
        return len(self.row)


def plan_step(
    requests: RequestStates,
    req_indices: NDArray[np.int64],
    start: NDArray[np.int64],
    count: NDArray[np.int64],
    nowhere: int = 0,
    buckets: Sequence[str] = (),
) -> StepPlan:
    """Lay the requests out as the batch does, and note in ``requests`` which tokens are computed now.

    Args:
        requests: all of them.
        req_indices: the requests in the order of the batch, ``[request]``.
        start: position of each one's first token in this step, ``[request]``.
        count: its tokens in this step, ``[request]``.
        nowhere: the row of the recorded sums that is of no request.
        buckets: of :data:`BUCKETS` that are recorded.
    """
    host = requests.host
    offset = np.cumsum(count) - count
    owner = np.repeat(np.arange(len(req_indices)), count)
    position = np.arange(len(owner)) + (start - offset)[owner]
    req_index = req_indices[owner]
    new = position >= host.seen[req_index]
    after_last = np.sign(position - host.last[req_index])  # -1 in the prompt, 0 at its last token, 1 when generated
    monitored = host.watched[req_index] & new & (after_last > 0)
    np.add.at(host.monitored, req_index[monitored], 1)
    last = host.last[req_indices]
    deciding = host.pending[req_indices] & (start <= last) & (last < start + count)
    host.pending[req_indices[deciding]] = False
    gates = req_indices[deciding]
    decide = np.stack([(offset + last - start)[deciding], gates, host.row[gates], host.asked[gates].astype(np.int64)])
    target = _targets(host, req_index, after_last + 1, new, nowhere, buckets)
    host.seen[req_indices] = np.maximum(host.seen[req_indices], start + count)
    host.seen[NOBODY] = 0
    strength = np.where(position >= host.first[req_index], host.strength[req_index], np.float32(0.0))
    row = host.row[req_index]
    number = position - host.last[req_index] - 1
    courses = requests.courses.plan(req_index, number, row, host.join[req_index], host.runs[req_index])
    reader = np.where(number >= 0, host.reader[req_index], row)
    return StepPlan(row, reader, strength, req_index, target, monitored, decide, courses)


def _targets(
    host: HostColumns,
    req_index: NDArray[np.int64],
    kind: NDArray[np.int64],
    new: NDArray[np.bool_],
    nowhere: int,
    buckets: Sequence[str],
) -> NDArray[np.int64]:
    """Find the row of sums for each token, and count tokens by request and kind, an index into :data:`BUCKETS`."""
    column = np.array([buckets.index(name) if name in buckets else -1 for name in BUCKETS])[kind]
    recorded = new & (host.record_row[req_index] >= 0) & (column >= 0)
    np.add.at(host.counts, (req_index[recorded], kind[recorded]), 1)
    return np.where(recorded, host.record_row[req_index] * len(buckets) + column, nowhere)


class EngineSteering:
    """The steering of one worker, which a model runner calls around each forward.

    The order in a step: :meth:`end` and :meth:`pause` requests, :meth:`begin` new ones, :meth:`before_forward`, the forward,
    :meth:`after_forward`. Nothing here waits for the device, unless moments are fetched.

    Attributes:
        steered_requests: how many requests with a steering were begun.
        expected: int64 ``[1]``, tokens that had a weight so far: what each steered layer should have counted.
        testing: the self-test has set the buffers, so that no forward of dummy tokens clears them.
    """

    def __init__(
        self, tables: SlotTables, step: StepBuffers, requests: RequestStates, recording: Recording | None, monitor: bool
    ) -> None:
        """Steer through tables that are installed.

        Args:
            monitor: read the probe at generated tokens.
        """
        self.tables, self.step, self.requests, self.recording, self._monitor = tables, step, requests, recording, monitor
        self.gate_outputs = GateOutputs(requests, step.device)
        self.steered_requests = 0
        self._paused: set[str] = set()
        self.testing = False
        self.expected = torch.zeros(1, dtype=torch.int64, device=step.device)
        self._plan: StepPlan | None = None
        self._reading: CourseReading | None = None
        self._tensors: dict[str, Tensor] = {}
        self._used = step.capacity
        self.idle()

    def begin(self, request_id: str, extra_args: dict[str, object] | None, prompt_length: int, known: int) -> int:
        """Return the index of a request that is about to run; its first step assigns it.

        Args:
            known: tokens that it has, those of the prompt included.

        Raises:
            ModelError: its slot holds another steering than the one it was admitted for.
        """
        state = self.requests.states.get(request_id)
        if state is None:
            options = ResolvedOptions.of(extra_args)
            if not options.steers and not options.record:
                return NOBODY
            self._verify(request_id, options)
            gate = self.tables.gates.slots[options.slot]
            state = self.requests.begin(request_id, options, prompt_length, gate)
            self.requests.host.watched[state.req_index] = self._monitor and gate.reads and not gate.runs
            self.steered_requests += options.edits
        elif request_id in self._paused:
            self._paused.remove(request_id)
            self.requests.resume(state, known)
        if state.options.record and self.recording is not None:
            self.recording.enter(self.requests.host, request_id, state)
        return state.req_index

    def pause(self, request_id: str) -> None:
        """Note that a request was preempted; it keeps its index and its gate's decision."""
        state = self.requests.states.get(request_id)
        if state is None:
            return
        self._paused.add(request_id)
        if self.recording is not None:
            self.recording.leave(self.requests.host, request_id, state)

    def end(self, request_id: str) -> None:
        """Note that a request has ended, or was aborted."""
        state = self.requests.states.get(request_id)
        if state is None:
            return
        if self.recording is not None:
            self.recording.leave(self.requests.host, request_id, state)
        if state.options.steers:
            self.gate_outputs.end(request_id, state)
        self._paused.discard(request_id)
        self.requests.end(request_id)

    def idle(self) -> None:
        """Prepare for a forward without requests."""
        self._plan = self._reading = None
        if self._used and not self.testing:
            self.step.clear(0 if self.recording is None else self.recording.nowhere)
            self._used = 0

    def wipe(self) -> None:
        """Reset counters and buffers to their state after the start."""
        self._used = self.step.capacity
        self.idle()
        for table in self.tables.layers.values():
            table.fired.zero_()

    def before_forward(self, req_indices: Sequence[int], start: NDArray[np.integer], count: NDArray[np.integer]) -> None:
        """Fill the buffers for a batch.

        Args:
            req_indices: the requests in the order of the batch.
            start: position of each one's first token.
            count: its tokens in this step.
        """
        if not any(req_indices):
            self.idle()
            return
        recording = self.recording
        nowhere, buckets = (0, ()) if recording is None else (recording.nowhere, recording.buckets)
        plan = plan_step(
            self.requests,
            np.asarray(req_indices, np.int64),
            start.astype(np.int64),
            count.astype(np.int64),
            nowhere,
            buckets,
        )
        step, total = self.step, len(plan)
        integers = to_device(np.stack([plan.row, plan.req_index, plan.target, plan.reader]), step.device)
        weight = self._weight(plan, integers[1])
        step.rows[:total].copy_(integers[0])
        step.weight[:total].copy_(weight)
        step.target[:total].copy_(integers[2])
        step.readers[:total].copy_(integers[3])
        step.score[:total].zero_()
        if self._used > total:  # what the last batch left behind, where a padded graph could still read it
            step.rows[total : self._used].zero_()
            step.weight[total : self._used].zero_()
            step.readers[total : self._used].zero_()
            step.target[total : self._used].fill_(nowhere)
        torch.sum(weight != 0, 0, keepdim=True, out=step.steered)
        self.expected.add_(step.steered)
        self._used, self._plan = total, plan
        self._tensors = {"row": integers[0], "req_index": integers[1]}

    def _weight(self, plan: StepPlan, req_index: Tensor) -> Tensor:
        """Return strength times g of each token: of a running gate, as it said after the token before."""
        device, requests = self.step.device, self.requests
        strength, g = to_device(plan.strength, device), requests.active[req_index]
        courses = plan.courses
        if courses.again.shape[1]:
            token, place = to_device(courses.again, device)
            g[token] = requests.courses.records[place, IN_FORCE]
        if courses.new.shape[1]:
            token, row, before, after, read, join = to_device(courses.new, device)
            records = requests.courses.records.index_select(0, before)
            only_and = bool((courses.new[5] == AND).all())
            in_force = joined(g.index_select(0, token), records[:, VALUE], join, only_and)
            g.index_copy_(0, token, in_force)
            self._reading = CourseReading(token, row, after, read, records, in_force)
        return strength * g

    def after_forward(self) -> None:
        """Read the gates whose prompts have just ended, and the monitor."""
        plan, self._plan = self._plan, None
        if plan is None:
            return
        gates, requests = self.tables.gates, self.requests
        if self._reading is not None:
            reading, self._reading = self._reading, None
            score = self._summed(self.step.score.index_select(0, reading.token))
            requests.courses.records.index_copy_(0, reading.after, gates.running.step(reading, score))
        if plan.decide.shape[1]:
            token, req_index, row, asked = to_device(plan.decide, self.step.device)
            probability = gates.probability(self._summed(self.step.score[token]), row)
            requests.probability[req_index] = probability
            requests.active[req_index] = gates.decide(probability, row, requests.active[req_index], asked.bool())
        if plan.monitored.any():
            mask = to_device(plan.monitored, self.step.device)
            probability = gates.probability(self._summed(self.step.score[: len(plan)]), self._tensors["row"])
            requests.monitor.index_add_(0, self._tensors["req_index"], torch.where(mask, probability, 0.0))

    def moments(self, request_id: str) -> RecordedSums | None:
        """Return the recorded sums of a request, once."""
        if self.recording is None:
            return None
        return self.recording.take(self.requests.host, request_id, self.requests.states)

    def status(self) -> dict[str, object]:
        """Return the counters since the start, as plain values; waits for the device."""
        tables = self.tables
        return {
            "slots": {str(slot): digest for slot, digest in tables.digests.items()},
            "layers": {
                str(layer): int(table.fired)
                for layer, table in tables.layers.items()
                if table.steers_input or table.steers_output
            },
            "steered_tokens": int(self.expected),
            "requests_steered": self.steered_requests,
            "requests_running": len(self.requests),
            "gate_read": int(tables.gates.histogram.sum()),
            "gate_fired": int(tables.gates.fired),
            "p_fail_histogram": tables.gates.histogram.tolist(),
            "warnings": self.requests.courses.warned_so_far(),
        }

    def _verify(self, request_id: str, options: ResolvedOptions) -> None:
        held = self.tables.digests.get(options.slot, "")
        if held != options.digest:
            raise ModelError(
                f"request {request_id} was admitted for steering {options.digest} in slot {options.slot}, which holds "
                f"{held or 'nothing'}; the input processor and this worker disagree, so the engine stops. "
                "Fix: load and unload steerings through trimtab.vllm_plugin.offline or the routes only"
            )

    def _summed(self, score: Tensor) -> Tensor:
        """Sum a score of this rank's neurons over all ranks."""
        if self.tables.rank.count == 1:
            return score
        from vllm.distributed import tensor_model_parallel_all_reduce  # pyright: ignore[reportMissingImports]

        return tensor_model_parallel_all_reduce(score)
