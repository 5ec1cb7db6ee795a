"""Strength times g of each row of a batch: what a gate has decided, once from the prompt or again at each token."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trimtab.errors import ModelError
from trimtab.gate import AnyGate, RandomOpening, RunningGate
from trimtab.model.forwards import Forward, GateReading, Positions, begin_reading, prompt_positions
from trimtab.model.plan import question_of
from trimtab.model.running import Course, RandomBatch, RunningBatch, RunningReading


class InForward:
    """What the hooks do in the forward that runs.

    Attributes:
        weight: float32 ``[batch, seq]``, strength times g of each position; None where nothing is steered.
        reading: of the gate on the prompt; None where none is read.
        watching: of the running gate; None where none is read.
        new: bool ``[batch]``, which rows have a token of the response in the last column, for a running gate to decide on.
    """

    def __init__(self) -> None:
        self.weight: Tensor | None = None
        self.reading: GateReading | None = None
        self.watching: RunningReading | None = None
        self.new: Tensor | None = None

    @property
    def idle(self) -> bool:
        """Whether the hooks only pass by."""
        return self.weight is None and self.reading is None and self.watching is None


class _Beginning(NamedTuple):
    """What all prompts of the next batch begin with: its tokens, and the gate's reading of them."""

    ids: list[int]
    reading: GateReading | None


class Coefficients:
    """The coefficients of the batch at hand.

    Attributes:
        probability: float32 ``[batch]``, p(fail) that the gate read in the last prefill; None for a gate that reads nothing.
        value: float32 ``[batch]``, strength times g in force, under a running gate that of the next token; None before it is
            known.
    """

    def __init__(self, gate: AnyGate, strength: Tensor, prompt_lengths: Tensor | None) -> None:
        """Before any batch.

        Args:
            gate: in force.
            strength: float32 ``[]``, or ``[batch]`` for one a row.
            prompt_lengths: int64 ``[batch]``, where they are known.
        """
        self._gate, self._strength, self._prompt_lengths = gate, strength, prompt_lengths
        self._question = question_of(gate)
        self._running: RunningBatch | None = None
        self._row_strength: Tensor | None = None
        self._beginning: _Beginning | None = None
        self.probability: Tensor | None = None
        self.value: Tensor | None = None

    @property
    def reads(self) -> bool:
        """Whether the gate reads prompts."""
        return self._gate.reads

    @property
    def runs(self) -> bool:
        """Whether the gate decides again at each token."""
        return isinstance(self._gate, RunningGate | RandomOpening)

    @property
    def courses(self) -> list[Course]:
        """See :attr:`trimtab.model.attach.Attachment.courses`."""
        if self._running is None:
            raise ModelError(
                f"gate {self._gate.kind!r} of this steering keeps no course: only a running gate does, after a prefill"
            )
        return self._running.courses()

    def begin(self, forward: Forward) -> None:
        """A new batch: what is known of it before the gate has read its prompts."""
        if not self.beginning_of(forward):
            self._beginning = None  # of a batch that never followed
        self.probability = self.value = None
        if not self._gate.reads:
            self.value = self._constant(forward)
            return
        self._row_strength = self._strength_of(forward.batch).to(forward.device)
        if self.runs:
            self._running = self._new_run(forward)
            self.value = self._row_strength * self._running.value

    def read_beginning(self, now: InForward, forward: Forward) -> None:
        """Let the gate read the one row that all prompts of the next batch begin with.

        Raises:
            ModelError: several rows, embeddings, or something cached.
        """
        self._beginning = None
        if forward.ids is None or forward.batch != 1 or forward.past:
            raise ModelError(
                "what all prompts begin with is read in one forward, as one row of input_ids on an empty cache; "
                "repeat the cache for the rows of the batch afterwards"
            )
        end = torch.full((forward.batch,), forward.length - 1, device=forward.device)
        self.begin_reading(now, forward, Positions(None, end))
        self._beginning = _Beginning(forward.ids[0].tolist(), now.reading)

    def note_beginning(self, ids: Sequence[int]) -> None:
        """What all prompts of the next batch begin with was read elsewhere, and no gate reads it."""
        self._beginning = _Beginning(list(ids), None)

    def beginning_of(self, forward: Forward) -> list[int]:
        """The tokens that its prompts begin with, where this forward reads them from after these on; none otherwise."""
        known = [] if self._beginning is None else self._beginning.ids
        return known if forward.past == len(known) else []

    def begin_reading(self, now: InForward, forward: Forward, positions: Positions) -> None:
        """Let the gate read the prompts of this forward, from after their beginning on where that was read."""
        if self._question is not None:
            earlier = None if self._beginning is None else self._beginning.reading
            now.reading = begin_reading(self._question, forward, positions, self._prompt_lengths, earlier)

    def decide(self, reading: GateReading) -> None:
        """p(fail) and the coefficient of each row, on the device throughout."""
        assert self._question is not None
        self.probability = torch.sigmoid(reading.logit())
        threshold = self._question.cutoff
        if self._question.mode == "hard":
            g = (self.probability >= threshold).float()
        else:
            g = ((self.probability - threshold) / (1.0 - threshold)).clamp(0.0, 1.0)
        if self._running is not None:
            self._running.ask(g)
            g = self._running.value
        self.value = self._strength_of(len(g)).to(g.device) * g

    def go_on(self, forward: Forward) -> None:
        """A decode forward: the coefficients of the prefill have to fit it."""
        if self.value is not None and len(self.value) == forward.batch:
            return
        if not self._gate.reads and self._strength.dim() == 0:
            self.value = self._constant(forward)
            return
        if self.value is None:
            raise ModelError(
                "the prompt was read before attaching, so its gate and row strengths are unknown; run the prefill within attach",
                code="prompt-read-before",
            )
        raise ModelError(
            f"{forward.batch} rows go on after a prefill of {len(self.value)}; tell the attachment which: select_rows(rows)",
            code="rows-changed",
        )

    def steer(self, now: InForward, steered: Tensor, starts: bool) -> None:
        """Steer these positions, bool ``[batch, seq]``; under a running gate, as was decided at each of them.

        Args:
            now: of the forward.
            steered: positions in scope; without a cache they end in all of the response so far.
            starts: whether a batch starts with this forward, whose weights :meth:`settle` has set.
        """
        if self._running is None:
            assert self.value is not None
            now.weight = self.value.unsqueeze(1) * steered
        elif not starts:
            self._watch(now, steered)

    def _watch(self, now: InForward, response: Tensor) -> None:
        """Read the last column, the one that is new."""
        assert self._running is not None
        assert self._row_strength is not None
        in_force = torch.zeros(response.shape, device=response.device)
        values = self._running.values() if response.shape[1] > 1 else self._running.value.unsqueeze(1)
        in_force[:, -values.shape[1] :] = values
        now.weight = self._row_strength.unsqueeze(1) * in_force * response
        now.watching = RunningReading(torch.zeros(response.shape, device=response.device))
        now.new = response[:, -1]

    def after(self, now: InForward) -> None:
        """At the end of a forward: decide by what was read."""
        self._beginning = None
        if now.reading is not None:
            self.decide(now.reading)
        if now.new is not None and now.watching is not None and self._running is not None:
            self._running.add(now.watching.scores[:, -1], now.new)
            self.value = self._row_strength * self._running.value  # type: ignore[operator]  # set with the batch

    def settle(self, now: InForward, forward: Forward, positions: Positions, run: Callable[[], object]) -> None:
        """Read whole responses under a running gate, until its decisions are those under which they were read.

        A decision depends on tokens before it alone, so every forward settles one more token at least.
        """
        steered = positions.steered
        assert steered is not None
        assert self._row_strength is not None
        strength = self._row_strength.unsqueeze(1)
        value = self._new_run(forward).value.unsqueeze(1).expand(steered.shape)
        for _ in range(forward.length + 1):
            now.weight = strength * value * steered
            now.watching = RunningReading(torch.zeros(steered.shape, device=forward.device))
            self._running = self._new_run(forward)
            self.begin_reading(now, forward, positions)
            run()  # the question's gate is asked at its end
            for column in range(forward.length):
                self._running.add(now.watching.scores[:, column], steered[:, column])
            self.value = strength.squeeze(1) * self._running.value
            before, value = value, self._running.values()[:, :-1]
            if torch.equal(before * steered, value * steered):
                return
        raise ModelError(
            f"the running gate did not settle in {forward.length + 1} forwards of the same tokens: this model gives other "
            "numbers for the same input each time; decode token by token instead"
        )

    def select_rows(self, rows: Tensor) -> None:
        """Go on with these rows, int64 ``[kept]``; see :meth:`trimtab.model.attach.Attachment.select_rows`."""
        if self.value is None:
            raise ModelError("select_rows before any prefill: there is no batch yet to select rows from")
        if rows.dtype != torch.int64:
            raise ModelError(
                f"select_rows needs row numbers as int64, got {rows.dtype}; for a mask use mask.nonzero().squeeze(1)"
            )
        self.value = self.value[rows.to(self.value.device)]
        if self.probability is not None:
            self.probability = self.probability[rows.to(self.probability.device)]
        if self._running is not None:
            self._running.select_rows(rows)
        if self._row_strength is not None:
            self._row_strength = self._row_strength[rows.to(self._row_strength.device)]

    def number_rows(self) -> None:
        """Take the rows that are there for the whole batch, before any response has begun."""
        if self._running is not None:
            self._running.number_rows()

    def _new_run(self, forward: Forward) -> RunningBatch:
        """The state of a batch of which no response has begun."""
        gate = self._gate
        if isinstance(gate, RunningGate):
            return RunningBatch(gate, forward.batch, forward.device)
        assert isinstance(gate, RandomOpening)
        if forward.ids is None:
            raise ModelError("the tokens at which this control opens are drawn by the prompts' ids; give input_ids")
        prompt = prompt_positions(forward, self._prompt_lengths).cpu()
        beginning = [] if self._beginning is None else self._beginning.ids
        opened = [gate.draw([*beginning, *ids[real].tolist()]) for ids, real in zip(forward.ids.cpu(), prompt, strict=True)]
        return RandomBatch(torch.tensor(opened, device=forward.device))

    def _constant(self, forward: Forward) -> Tensor:
        g = 1.0 if self._gate.kind == "always" else 0.0
        return (g * self._strength_of(forward.batch)).to(forward.device)

    def _strength_of(self, batch: int) -> Tensor:
        if self._strength.dim() == 1 and len(self._strength) != batch:
            raise ModelError(
                f"{len(self._strength)} row strengths for a batch of {batch}; give one per row "
                "(beams and several return sequences repeat each prompt: strength.repeat_interleave(n))"
            )
        return self._strength.expand(batch)
