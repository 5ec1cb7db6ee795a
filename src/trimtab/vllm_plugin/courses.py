"""Running gates in one worker: the rule of each slot, and what they have decided, by request and token.

What a gate said after a token is kept under the number of that token, as an engine keeps keys and values, and not in a variable
that each step moves on. So a preempted request that computes its response again is steered as before, and a token that was thrown
away is taken back by writing over it.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.errors import ModelError
from trimtab.gate import RunningGate
from trimtab.model.running import RunningRule, RunningState, step
from trimtab.vllm_plugin.hooks import to_device

PAGE = 64
"""Records that a request is given at a time."""
KEPT = 2**20
"""Records of ended requests that are kept, 20 MiB."""
REMEMBERED = 4096
"""Warnings that are remembered."""
MEAN, P, STEERS, VALUE, IN_FORCE = range(5)
"""Columns of a record: the state after a token, p(fail) after it, and g that was in force at it, joined with the question's."""
IGNORED, AND, OR = range(3)
"""How a request joins its running gate: the caller has set the gate, or as the gate says."""


def places(tokens: int) -> int:
    """Return how many records a response of this many tokens takes up, one before its first token among them, in whole pages."""
    return (tokens // PAGE + 1) * PAGE


class RunningRows:
    """The rule of each slot's running gate, one row of a table, which costs one gather a step where six tensors cost six."""

    def __init__(self, n_rows: int, device: torch.device) -> None:
        """Start with rules of nothing."""
        self._table = torch.zeros(n_rows, len(RunningRule._fields), device=device)

    def load(self, slot: int, gate: RunningGate) -> None:
        """Set a slot's rule."""
        self._table[slot] = torch.stack([part.float() for part in RunningRule.of(gate, self._table.device)])

    def step(self, reading: "CourseReading", score: Tensor) -> Tensor:
        """Return the records after tokens, float32 ``[token, 5]``, from those before them and ``w . x`` of each ``[token]``."""
        bias, floor, on, off, after, scales = self._table.index_select(0, reading.row).unbind(1)
        mean, _, steers, value, _ = reading.records.unbind(1)
        state = RunningState(mean, reading.read, steers > 0, value)
        rule = RunningRule(bias, floor, on, off, after, scales > 0)
        new, p = step(rule, state, score, torch.ones_like(score, dtype=torch.bool))
        return torch.stack([new.mean, p, new.steers.float(), new.value, reading.in_force], 1)


class CourseReading(NamedTuple):
    """The new response tokens that running gates read in a forward, on the device.

    Args:
        token: int64 ``[token]``, place in the batch.
        row: int64 ``[token]``, slot.
        after: int64 ``[token]``, place of the record to write.
        read: int64 ``[token]``, how many tokens of the response came before.
        records: float32 ``[token, 5]``, before each token.
        in_force: float32 ``[token]``, g at the token.
    """

    token: Tensor
    row: Tensor
    after: Tensor
    read: Tensor
    records: Tensor
    in_force: Tensor


def joined(asked: Tensor, own: Tensor, join: Tensor, only_and: bool) -> Tensor:
    """Return g of each token: that of the question's gate, joined with the running gate's own as :data:`AND`, :data:`OR` say.

    Args:
        only_and: whether all of ``join`` is :data:`AND`, as the host knows.
    """
    if only_and:
        return torch.minimum(asked, own)
    return torch.where(join == AND, torch.minimum(asked, own), torch.where(join == OR, torch.maximum(asked, own), asked))


@dataclass(frozen=True, slots=True)
class Warns:
    """When a running gate warns: once p(fail) reaches ``threshold``, from the token ``after`` on."""

    threshold: float = 2.0  # p never is 2
    after: int = 1

    @classmethod
    def of(cls, gate: RunningGate) -> "Warns":
        """Of a gate that has a threshold."""
        return cls(gate.cutoff, gate.after)


@dataclass(frozen=True, slots=True)
class SlotGate:
    """A slot's gate, as the host has to know it.

    Args:
        reads: whether it reads the prompt, or holds one that does.
        constant: g of the question where nothing reads it.
        reader: row of what is read of the response.
        runs: whether it decides again at each token; the rest is of such a gate.
        initial: g of its own before the first token.
        join: see :data:`AND`.
        warns: when it warns.
    """

    reads: bool = False
    constant: float = 0.0
    reader: int = 0
    runs: bool = False
    initial: float = 0.0
    join: int = IGNORED
    warns: Warns = Warns()


_SUFFIX = 9
"""Characters that vLLM adds to a caller's request id: a dash and eight random ones."""


def find_request(asked: str, known: Iterable[str]) -> str | None:
    """Return the engine's id of a request, given that or the caller's id: the latest of several, None if there is none.

    The samples of a request with n > 1 are ``0_ID``, ``1_ID`` ...

    Args:
        asked: an id.
        known: the engine's ids, the latest last.

    Example:
        >>> find_request("7", ["6-0a1b2c3d", "7-0a1b2c3d"])
        '7-0a1b2c3d'
    """
    return next((own for own in reversed(list(known)) if asked in (own, own[:-_SUFFIX])), None)


class Summary(NamedTuple):
    """What a running gate has done in one response; numbers of tokens count from 1, and 0 stands for none."""

    p_fail: float
    g: float
    warned_at: int
    opened_at: int
    steered_tokens: int


@dataclass(slots=True)
class _Course:
    """The pages of one response, and how many of its tokens were looked at for a warning, None once it has warned."""

    request_id: str
    warns: Warns
    pages: list[int] = field(default_factory=list)
    tokens: int = 0
    searched: int | None = 0
    taken: bool = False

    def places(self, first: int, last: int) -> NDArray[np.int64]:
        """Where the records of these tokens are; record 0 is the state before the first token."""
        number = np.arange(first, last + 1)
        return np.asarray(self.pages, np.int64)[number // PAGE] * PAGE + number % PAGE


class Warned(NamedTuple):
    """A response whose running p(fail) has reached the threshold.

    Args:
        request_id: the caller's.
        token: number of the token, from 1.
        p: after it.
    """

    request_id: str
    token: int
    p: float


@dataclass(frozen=True, slots=True, eq=False)
class CoursePlan:
    """The response tokens of a step that running gates read or have read.

    Args:
        new: int64 ``[6, token]``: place in the batch, row, place of the record before and after, tokens before it, and join.
        again: int64 ``[2, token]``: place in the batch of a token that is computed again, and of its record.
    """

    new: NDArray[np.int64]
    again: NDArray[np.int64]


NO_COURSES = CoursePlan(np.zeros((6, 0), np.int64), np.zeros((2, 0), np.int64))


class Courses:
    """Records of all responses that running gates read, in pages.

    Attributes:
        records: float32 ``[place, 5]``.
        warnings: how many responses have warned, of those that were searched.
    """

    def __init__(self, device: torch.device) -> None:
        """Start without pages."""
        self.records = torch.zeros(0, 5, device=device)
        self._free: list[int] = []
        self._running: dict[int, _Course] = {}
        # of running requests, by index: tokens that were read, and the place of the last record
        self._tokens, self._last = np.zeros(64, np.int64), np.zeros(64, np.int64)
        self._ended: OrderedDict[str, _Course] = OrderedDict()
        self._unsearched: list[_Course] = []
        self._kept = 0
        self._warned: deque[Warned] = deque(maxlen=REMEMBERED)
        self.warnings = 0

    def begin(self, req_index: int, request_id: str, initial: float, warns: Warns) -> None:
        """Begin a response, with g of its own before a decision."""
        course = self._running[req_index] = _Course(request_id, warns)
        course.pages.append(self._page())
        while req_index >= len(self._tokens):
            self._tokens, self._last = (np.concatenate([each, np.zeros_like(each)]) for each in (self._tokens, self._last))
        self._tokens[req_index], self._last[req_index] = 0, course.pages[0] * PAGE
        first = np.array([0.0, np.nan, initial, initial, 0.0], np.float32)
        self.records[course.pages[0] * PAGE] = to_device(first, self.records.device)

    def rewind(self, req_index: int, tokens: int) -> None:
        """Take back the tokens of a response after this many."""
        course = self._running[req_index]
        self._tokens[req_index] = min(self._tokens[req_index], tokens)
        self._last[req_index] = self._place(course, int(self._tokens[req_index]))
        if course.searched is not None:
            course.searched = min(course.searched, tokens)

    def plan(
        self,
        req_index: NDArray[np.int64],
        number: NDArray[np.int64],
        row: NDArray[np.int64],
        join: NDArray[np.int64],
        runs: NDArray[np.bool_],
    ) -> CoursePlan:
        """Find the records of a step's tokens, and note the new ones.

        Args:
            req_index: of each token, ``[token]``.
            number: of the token in its response, from 0; less in the prompt.
            row, join: of the token's request.
            runs: whether that has a running gate.

        Raises:
            ModelError: two new tokens of one response, or one after a gap.
        """
        token = np.flatnonzero(runs & (number >= 0))
        if not len(token):
            return NO_COURSES
        owner, t = req_index[token], number[token]
        is_new, seen = t >= self._tokens[owner], t < self._tokens[owner]
        new, of, at = token[is_new], owner[is_new], t[is_new]
        for request in of[at > self._tokens[of]]:
            raise ModelError(
                f"request {self._running[int(request)].request_id} hands over token {int(at[of == request].max()) + 1} of its "
                "response before the one before it was decided, so its running gate cannot tell whether to steer; report this "
                "with the engine's options"
            )
        before = self._last[of]
        after = before + 1
        for i in np.flatnonzero((at + 1) % PAGE == 0).tolist():
            after[i] = self._place(self._running[int(of[i])], int(at[i]) + 1)
        self._last[of], self._tokens[of] = after, at + 1
        again = token[seen & (join[token] != IGNORED)]
        places = [self._place(self._running[int(req_index[i])], int(number[i]) + 1) for i in again.tolist()]
        return CoursePlan(np.stack([new, row[new], before, after, at, join[new]]), np.stack([again, np.array(places, np.int64)]))

    def end(self, req_index: int) -> None:
        """End a response; its course is kept until it is taken or too many others are."""
        course = self._running.pop(req_index)
        course.tokens = int(self._tokens[req_index])
        if course.taken:
            self._free.extend(course.pages)
            return
        if course.request_id in self._ended:
            self._drop(course.request_id)
        self._ended[course.request_id] = course
        self._unsearched.append(course)
        self._kept += len(course.pages) * PAGE
        if self._kept > KEPT:
            self.search()
        while self._kept > KEPT:
            self._drop(next(iter(self._ended)))

    def take(self, request_id: str) -> NDArray[np.float32] | None:
        """Return p(fail) and g in force at each token of a response, once: float32 ``[token, 2]``; waits for the device.

        A worker hears that a response has ended when the next step begins, so it need not have.

        Args:
            request_id: see :func:`find_request`.
        """
        running = {course.request_id: course for course in self._counted()}
        own = find_request(request_id, [*self._ended, *running])
        if own is None:
            return None
        course = running[own] if own in running else self._ended[own]
        self.search()
        found = self._read(course)[:, [P, IN_FORCE]].cpu().numpy()
        course.taken = True
        if own in self._ended:
            self._drop(own)
        return found

    def summary(self, req_index: int) -> Tensor:
        """Return a :class:`Summary` of a response that has not ended, float32 ``[5]`` on the device."""
        course = self._running[req_index]
        course.tokens = int(self._tokens[req_index])
        if not course.tokens:
            return torch.tensor([torch.nan, 0.0, 0.0, 0.0, 0.0], device=self.records.device)
        read = self._read(course)
        number = torch.arange(1, course.tokens + 1, device=read.device)
        warned = (read[:, P] >= course.warns.threshold) & (number >= course.warns.after)
        steered = read[:, IN_FORCE] > 0
        first = [torch.where(mask.any(), mask.int().argmax() + 1, 0) for mask in (warned, steered)]
        return torch.stack([read[-1, P], read[-1, IN_FORCE], *first, steered.sum()])

    def warned_so_far(self) -> int:
        """Return how many responses have warned; waits for the device."""
        self.search()
        return self.warnings

    def warned(self, since: int) -> list[Warned]:
        """Return the warnings after the first ``since``, of which the last 4,096 are remembered; waits for the device."""
        self.search()
        new = min(self.warnings - since, len(self._warned))
        return list(self._warned)[-new:] if new > 0 else []

    def search(self) -> None:
        """Look for warnings since the last time; waits for the device."""
        courses = [*self._unsearched, *self._counted()]
        self._unsearched.clear()
        waiting = [course for course in courses if course.searched is not None and course.tokens > course.searched]
        if not waiting:
            return
        places = [course.places((course.searched or 0) + 1, course.tokens) for course in waiting]
        found = self.records[to_device(np.concatenate(places), self.records.device), P].cpu().numpy()
        for course, p in zip(waiting, np.split(found, np.cumsum([len(each) for each in places])[:-1]), strict=True):
            self._search(course, p)

    def _counted(self) -> list[_Course]:
        """Return the courses of running requests, after their tokens were counted."""
        for req_index, course in self._running.items():
            course.tokens = int(self._tokens[req_index])
        return list(self._running.values())

    def _search(self, course: _Course, p: NDArray[np.float32]) -> None:
        searched = course.searched or 0
        number = np.arange(searched + 1, searched + 1 + len(p))
        hits = np.flatnonzero((p >= np.float32(course.warns.threshold)) & (number >= course.warns.after))
        course.searched = None if len(hits) else course.tokens
        if len(hits):
            self.warnings += 1
            self._warned.append(Warned(course.request_id[:-_SUFFIX], int(number[hits[0]]), float(p[hits[0]])))

    def _read(self, course: _Course) -> Tensor:
        return self.records[to_device(course.places(1, course.tokens), self.records.device)]

    def _place(self, course: _Course, number: int) -> int:
        if number // PAGE == len(course.pages):
            course.pages.append(self._page())
        return course.pages[number // PAGE] * PAGE + number % PAGE

    def _page(self) -> int:
        if not self._free:
            before = len(self.records)
            more = max(before, 16 * PAGE)
            self.records = torch.cat([self.records, torch.zeros(more, 5, device=self.records.device)])
            self._free = list(range((before + more) // PAGE - 1, before // PAGE - 1, -1))
        return self._free.pop()

    def _drop(self, request_id: str) -> None:
        course = self._ended.pop(request_id)
        self._kept -= len(course.pages) * PAGE
        self._free.extend(course.pages)
