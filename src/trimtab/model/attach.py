"""Steer a transformers model: one plan when attaching, one fused index operation per steered layer and forward."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trimtab.errors import InputError, ModelError
from trimtab.gate import ALWAYS, NEVER, AnyGate
from trimtab.model.adapters import FfnLayout, find_ffn, unwrapped
from trimtab.model.coefficients import Coefficients, InForward
from trimtab.model.conversation import Conversation
from trimtab.model.forwards import (
    Forward,
    ForwardReader,
    Positions,
    attended,
    column_of,
    every_position,
    place,
)
from trimtab.model.guard import OUTLIVED, GenerateGuard
from trimtab.model.hook_points import hook_neurons, hook_residual
from trimtab.model.identity import check_identity, identify
from trimtab.model.opening import LanguageModel
from trimtab.model.plan import LayerPlan, ResidualPlan, plan_layers, plan_residual
from trimtab.model.running import Course
from trimtab.neurons import ModelIdentity
from trimtab.steering import PositionScope, Steering

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from peft import PeftModel

GateOverride = Literal["auto", "on", "off"]

_steered_stacks: WeakSet[nn.Module] = WeakSet()


def attach(
    model: "PreTrainedModel | PeftModel | LanguageModel",
    steering: Steering,
    *,
    strength: float | Tensor | None = None,
    gate: GateOverride = "auto",
    prompt_lengths: Tensor | Sequence[int] | None = None,
    force_model: bool = False,
    layout: FfnLayout | None = None,
    identity: ModelIdentity | None = None,
) -> "Attachment":
    """Prepare ``a' = a + strength * g * (gain * a + shift)``; it acts within ``with attach(...)``.

    A steering with directions also adds ``strength * g * direction`` to the output of their decoder blocks.

    ``generate`` works greedy, sampling, with beams, several return sequences, static caches and ``torch.compile`` (compiled
    graphs are dropped on entering and leaving, because they do not see hooks come and go), and without a cache. So do several
    turns of a conversation in one block: with the ``past_key_values`` of the turn before, or by reading the conversation anew,
    what was generated in earlier turns stays steered, and the gate's decision on the first prompt holds. Assisted decoding,
    chunked prefill, packed sequences, a second attachment, a second thread and a copy of the model are refused. Scoring a
    response in one forward needs ``prompt_lengths``; a gate that reads then reads the prompts in an extra unsteered forward, at
    twice the cost.

    A running gate keeps a state for each row on the device. What it says of a token holds from the next token on, cached or not.
    Scoring repeats its extra forward until no decision changes, once more than decisions have changed. It refuses beams, which
    exchange rows, and a further turn of a conversation.

    Args:
        model: a transformers model; a PeftModel, with its adapters in force; or an opened one.
        strength: overrides the steering's; a tensor gives each row of the batch its own, float32 ``[batch]``.
        gate: ``auto`` asks the steering's gate, ``on`` steers every row, ``off`` none.
        prompt_lengths: int64 ``[batch]``, prompt tokens per row without padding.
        force_model: accept other weights of the same architecture and sizes.
        layout, identity: of the model, to save finding and hashing them again.

    Raises:
        ModelError: nothing to steer, or a bad option.
        MismatchError: the steering was made for another model.

    Example:
        >>> with attach(model, steering) as attachment:  # doctest: +SKIP
        ...     tokens = model.generate(**inputs)
        >>> attachment.probability  # doctest: +SKIP
        tensor([0.81, 0.12])
    """
    if not len(steering):
        raise ModelError(
            "this steering has no neurons and no direction, so attaching it would change nothing; select one at least",
            code="nothing-to-steer",
        )
    if gate not in ("auto", "on", "off"):
        raise ModelError(f"unknown gate override {gate!r}; accepted: auto, on, off")
    if isinstance(model, LanguageModel):
        model, layout, identity = model.hf_model, layout or model.layout, identity or model.identity
    model = unwrapped(model)
    layout = layout or find_ffn(model)
    check_identity(
        steering.model, identity or identify(model, model.name_or_path or "the model", None, layout=layout), force=force_model
    )
    chosen = {"auto": steering.gate, "on": ALWAYS, "off": NEVER}[gate]
    plans = plan_layers(steering, chosen, layout)
    lengths = None if prompt_lengths is None else torch.as_tensor(prompt_lengths, dtype=torch.int64)
    return Attachment(
        model,
        layout,
        plans,
        plan_residual(steering),
        chosen,
        steering.scope,
        _checked_strength(steering.strength if strength is None else strength),
        lengths,
    )


def _refuse_copy(_: object) -> NoReturn:
    raise ModelError(
        "a copy of a steered model would keep its hooks for good; leave the attach block, then copy the model",
        code="copied-while-steered",
    )


def _checked_strength(strength: float | Tensor) -> Tensor:
    checked = torch.as_tensor(strength, dtype=torch.float32).detach()
    if checked.dim() > 1 or not bool(torch.isfinite(checked).all()):
        raise InputError(f"strength must be a finite number or one per row, float32 [batch]; got {strength!r}")
    return checked


class _Turn(NamedTuple):
    """What a forward is: where it is steered and read, and whether a new batch starts with it."""

    positions: Positions
    starts: bool


class Attachment:
    """A steering on a model, from entering the ``with`` block to leaving it; made by :func:`attach`.

    Attributes:
        probability: float32 ``[batch]``, p(fail) that the gate read in the last prefill; None for a gate that reads nothing.
        coefficient: float32 ``[batch]``, strength times g in force, under a running gate that of the next token; None before it
            is known.
        calls: per steered layer, the number of forwards in which its hook steered.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layout: FfnLayout,
        plans: Mapping[int, LayerPlan],
        residual_plans: Mapping[int, ResidualPlan],
        gate: AnyGate,
        scope: PositionScope,
        strength: Tensor,
        prompt_lengths: Tensor | None,
    ) -> None:
        self._model, self._layout, self._plans = model, layout, dict(plans)
        self._residual_plans = dict(residual_plans)
        self._prompt_lengths = prompt_lengths
        self._rows = Coefficients(gate, strength, prompt_lengths)
        self._now = InForward()
        self._scope: PositionScope = scope
        self._reader = ForwardReader(layout.base)
        self._undo: ExitStack | None = None
        self._guard = GenerateGuard(model, layout.base, self, follows_rows=self._rows.runs)
        self._conversation = Conversation()
        self._first_of_generate = self._generated_next = False
        self._model_calls = self._forwards = 0
        self._outer_ids: Tensor | None = None
        self._only_scored, self._reached = True, False
        self._thread: int | None = None
        self._thread_in_forward: int | None = None
        self._reading_prompt = self._reading_beginning = False
        self._shape = (0, 0)
        self._fired: set[int] = set()
        self._passed: set[int] = set()
        steered = {layer for layer, plan in plans.items() if plan.neurons is not None} | residual_plans.keys()
        self.calls: dict[int, int] = dict.fromkeys(sorted(steered), 0)

    def __enter__(self) -> "Attachment":
        from torch._dynamo import config as dynamo_config  # slow to import, and nothing here needs it before

        base = self._layout.base
        if base in _steered_stacks:
            raise ModelError(
                "this model is steered already; leave the first attach block before entering a second", code="steered-already"
            )
        with ExitStack() as stack:
            _steered_stacks.add(base)
            stack.callback(_steered_stacks.discard, base)
            # a compiled graph has no guard on hooks: it would go on without these, or keep them after they are removed; and one
            # that is compiled from here on would serve another model of the same class too, unless it guards them
            torch.compiler.reset()
            stack.callback(torch.compiler.reset)
            stack.enter_context(dynamo_config.patch(skip_nnmodule_hook_guards=False))
            self._guard.install()
            stack.callback(self._guard.remove)
            for part in {id(part): part for part in (self._model, base)}.values():
                part.__dict__["__deepcopy__"] = _refuse_copy
                stack.callback(part.__dict__.pop, "__deepcopy__")
            around: Callable[..., None] = torch.compiler.disable(self._before_model)  # type: ignore[assignment]
            stack.callback(self._model.register_forward_pre_hook(around, with_kwargs=True).remove)
            before: Callable[..., None] = torch.compiler.disable(self._before_forward)  # type: ignore[assignment]
            after: Callable[..., None] = torch.compiler.disable(self._after_forward)  # type: ignore[assignment]
            stack.callback(base.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(base.register_forward_hook(after).remove)
            leave: Callable[..., None] = torch.compiler.disable(self._leave_forward)  # type: ignore[assignment]
            stack.callback(base.register_forward_hook(leave, always_call=True).remove)
            for layer, plan in self._plans.items():
                stack.callback(hook_neurons(self._layout, layer, partial(self._edit, layer), plan.chosen).remove)
            for layer in self._residual_plans:
                stack.callback(hook_residual(self._layout, layer, partial(self._add_direction, layer)).remove)
            self._undo = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        outlived = self._guard.running_elsewhere
        self.detach()
        if error is not None:
            return
        if outlived:
            raise ModelError(OUTLIVED)
        if self._model_calls and not self._reached:
            raise ModelError(
                f"the model ran {self._model_calls} times, but not through {type(self._layout.base).__name__}, where it is "
                "steered; trimtab doctor shows whether this architecture can be steered"
            )
        if self._forwards and self._only_scored and not any(self.calls.values()):
            logger.warning(
                "%d forwards ran, none was steered: scope %r begins after the prompt; to score responses, give prompt_lengths",
                self._forwards,
                self._scope,
            )

    def detach(self) -> None:
        """Remove every hook; the model is as it was before, bit for bit. Does nothing the second time."""
        if self._undo is not None:
            self._undo.close()
            self._undo = None

    @property
    def probability(self) -> Tensor | None:
        """See the class."""
        return self._rows.probability

    @property
    def coefficient(self) -> Tensor | None:
        """See the class."""
        return self._rows.value

    @property
    def reads_prompts(self) -> bool:
        """Whether the prompt's forward has to run under this attachment: a gate reads it there, or it is steered itself."""
        return self._rows.reads or self._scope != "generated"

    def select_rows(self, rows: Tensor) -> None:
        """Go on with these rows of the batch, int64 ``[kept]``, after a sampler dropped the others from its cache, or repeated
        some."""
        self._rows.select_rows(rows)
        self._conversation.select_rows(rows)

    @property
    def needs_whole_prompts(self) -> bool:
        """Whether one forward has to read all of a prompt, since all of it is steered."""
        return self._scope == "all"

    @contextmanager
    def reading_beginning(self) -> Iterator[None]:
        """The forward within reads, as one row, the tokens that all prompts of the next batch begin with.

        Nothing in it is steered; a gate that reads whole prompts reads them in it. The prefill that follows goes on from its
        cache, repeated for each prompt.

        Raises:
            ModelError: where :attr:`needs_whole_prompts`, where a gate reads prompts of known lengths, or a forward within that
                is not of one row on an empty cache.
        """
        if self.needs_whole_prompts:
            raise ModelError("scope 'all' steers every token of the prompt, so each prompt has to be read in one forward")
        if self._rows.reads and self._prompt_lengths is not None:
            raise ModelError(
                "with prompt_lengths the gate reads prompts in a forward of their own, without a cache, so each has to be whole"
            )
        self._reading_beginning = True
        try:
            yield
        finally:
            self._reading_beginning = False

    def note_beginning(self, ids: Sequence[int]) -> None:
        """The forward that follows goes on from a cache of these tokens, with which all of its rows begin; they were read before
        attaching.

        Raises:
            ModelError: where :attr:`needs_whole_prompts`, or the gate reads prompts.
        """
        if self.needs_whole_prompts or self._rows.reads:
            raise ModelError("this steering acts on prompts, or its gate reads them, so they have to be read within attach")
        self._rows.note_beginning(ids)

    @property
    def runs(self) -> bool:
        """Whether its gate decides again at each token."""
        return self._rows.runs

    @property
    def courses(self) -> list[Course]:
        """What a running gate decided at each token of the batch so far, one a row, rows that were dropped among them.

        Raises:
            ModelError: the gate decides once, or no prompt was read yet.
        """
        return self._rows.courses

    def repeat_rows(self, rows: Tensor) -> None:
        """Before a response begins, go on with these rows, int64 ``[row]``, where several begin with one prompt."""
        self.select_rows(rows)
        self._rows.number_rows()

    def note_sampled(self, tokens: Tensor) -> None:
        """Before a further turn on the same cache, outside of ``generate``: the token of each row that was drawn last.

        It is not in the cache yet, so the turn's forward begins with it; ``generate`` tells it by itself.

        Args:
            tokens: int64 ``[batch]``.
        """
        self._conversation.note_sampled(tokens)

    def expect_generated(self) -> None:
        """The next forward, on top of a cache, reads several tokens of each row that belong to its response: all are steered.

        Raises:
            ModelError: a running gate, which decides between one token and the next.
        """
        if self._rows.runs:
            raise ModelError("a running gate decides at each token, so a response cannot be read many tokens at a time")
        self._generated_next = True
        self._conversation.forget()

    def generation_begins(self) -> None:
        """``generate`` was called."""
        self._first_of_generate = True

    def generation_ends(self, sequences: Tensor) -> None:
        """``generate`` has returned."""
        config = self._model.generation_config
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        pad = config.pad_token_id if isinstance(config.pad_token_id, int) else ends[0]
        self._conversation.note_generated(sequences, pad, ends)

    def _before_model(self, _: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        self._model_calls += 1
        ids = kwargs.get("input_ids", args[0] if args else None)
        self._outer_ids = ids if isinstance(ids, Tensor) else None

    def _before_forward(self, base: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        self._reached = True
        self._fired.clear()
        self._passed.clear()
        if self._reading_prompt:
            return
        self._now = InForward()
        forward = self._reader.read(args, kwargs)
        if forward.ids is None and self._outer_ids is not None and self._outer_ids.shape == (forward.batch, forward.length):
            forward = forward._replace(ids=self._outer_ids)  # a wrapper embeds the tokens itself
        self._refuse_second_thread(forward)
        if self._reading_beginning:
            self._shape = (forward.batch, forward.length)
            self._rows.read_beginning(self._now, forward)
            return
        first, self._first_of_generate = self._first_of_generate, False
        turn = self._turn(forward, first)
        positions = turn.positions
        self._shape = (forward.batch, forward.length)
        self._forwards += 1
        self._only_scored = self._only_scored and not (forward.holds_cache or self._guard.running)
        if turn.starts:
            self._start(forward, positions, base, args, kwargs)
        else:
            self._rows.go_on(forward)
        if positions.steered is not None:
            self._rows.steer(self._now, positions.steered, turn.starts)

    def _refuse_second_thread(self, forward: Forward) -> None:
        me = get_ident()
        others = {self._thread_in_forward, None if forward.past == 0 else self._thread} - {None, me}
        if others or self._guard.running_elsewhere:
            raise ModelError(
                "another thread runs this attached model, whose gate and positions are those of one batch; "
                "run one batch after the other, or all rows in one",
                code="another-thread",
            )
        self._thread = self._thread_in_forward = me

    def _leave_forward(self, *_: object) -> None:
        if not self._reading_prompt and self._thread_in_forward == get_ident():
            self._thread_in_forward = None

    def _turn(self, forward: Forward, first: bool) -> "_Turn":
        """What this forward is to the conversation: its beginning, a further turn, or generated tokens."""
        if forward.past == 0 or self._rows.beginning_of(forward):
            return self._prefill(forward, first)
        every = every_position(forward)
        generated, self._generated_next = self._generated_next, False
        if generated or self._scope == "all":
            return _Turn(Positions(every, None), starts=False)
        if forward.length == 1 and not first:
            if self._conversation.begun:
                self._conversation.add_generated(forward.ids, every)
            return _Turn(Positions(every, None), starts=False)
        if not (first or self._conversation.can_go_on):
            raise ModelError(
                f"a forward of {forward.length} tokens on top of {forward.past} cached ones: assisted decoding and chunked "
                "prefill cannot be steered, and to continue a conversation call generate(past_key_values=...), or say which "
                "token of each row was drawn last: attachment.note_sampled(tokens)",
                code="chunked-prefill",
            )
        self._refuse_next_turn()
        steered = self._conversation.go_on(forward.ids, forward.past, every)
        prompt_end = torch.full((forward.batch,), forward.length - 1, device=forward.device)
        if self._scope == "last-and-generated":
            steered = steered | column_of(forward, prompt_end)
            self._conversation.mark(steered)
        return _Turn(Positions(steered, prompt_end), starts=self.coefficient is None)

    def _prefill(self, forward: Forward, first: bool) -> "_Turn":
        generating = self._guard.running and self._prompt_lengths is None
        if generating and not first and self._scope != "all":  # without a cache every forward reads all tokens again
            self._conversation.add_generated(
                None if forward.ids is None else forward.ids[:, -1:], every_position(forward)[:, -1:]
            )
            return _Turn(Positions(self._conversation.scope(), None), starts=False)
        positions = place(forward, self._scope, self._prompt_lengths, generating)
        if self._scope == "all" or self._prompt_lengths is not None:
            return _Turn(positions, starts=not (generating and not first))
        earlier = self._conversation.begin(forward.ids, attended(forward), self._rows.beginning_of(forward))
        steered = positions.steered
        if earlier is not None:
            self._refuse_next_turn()
            steered = earlier if steered is None else earlier | steered
        if steered is not None:
            self._conversation.mark(steered)
        return _Turn(Positions(steered, positions.prompt_end), starts=earlier is None)

    def _refuse_next_turn(self) -> None:
        if self._rows.runs:
            raise ModelError(
                "a running gate watches one response, and this is a further turn of a conversation; attach anew for each turn"
            )

    def _start(
        self, forward: Forward, positions: Positions, base: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        """A new batch: fix its coefficient now, or let the gate read the prompts."""
        self._rows.begin(forward)
        if not self._rows.reads:
            return
        if positions.steered is None:
            self._rows.begin_reading(self._now, forward, positions)
            return
        # generated tokens are in this very forward, and the gate's last layer comes after the first steered one
        arguments = self._reader.without_cache(args, kwargs)
        self._reading_prompt = True
        try:
            with torch.no_grad():
                if self._rows.runs:
                    self._rows.settle(self._now, forward, positions, lambda: base(**arguments))
                else:
                    self._rows.begin_reading(self._now, forward, positions)
                    base(**arguments)
        finally:
            self._reading_prompt = False
        self._fired.clear()
        self._passed.clear()
        self._now.reading = self._now.watching = None

    def _edit(self, layer: int, activation: Tensor) -> Tensor | None:
        """What a layer's activations become; see :func:`trimtab.model.hook_points.hook_neurons`."""
        self._fired.add(layer)
        now = self._now
        if now.idle:
            return None
        plan = self._plan_on(layer, activation.device)
        batched = activation.reshape(*self._shape, activation.shape[-1])  # some blocks flatten batch and seq
        if plan.features is not None and now.reading is not None:
            now.reading.add(plan.features, batched)
        if plan.running is not None and now.watching is not None:
            now.watching.add(plan.running, batched)
        if plan.neurons is None or now.weight is None:
            return None
        return plan.neurons.steer(batched, now.weight.to(activation.device)).reshape(activation.shape)

    def _add_direction(self, layer: int, stream: Tensor) -> Tensor | None:
        """What the output of a decoder block becomes; see :func:`trimtab.model.hook_points.hook_residual`."""
        self._passed.add(layer)
        weight = self._now.weight
        if weight is None:
            return None
        plan = self._residual_plans[layer] = self._residual_plans[layer].to(stream.device)
        batched = stream.reshape(*self._shape, stream.shape[-1])
        return plan.steer(batched, weight.to(stream.device)).reshape(stream.shape)

    def _plan_on(self, layer: int, device: torch.device) -> LayerPlan:
        plan = self._plans[layer]
        if plan.device != device:
            plan = self._plans[layer] = plan.to(device)
        return plan

    def _after_forward(self, *_: object) -> None:
        if missing := sorted(set(self._plans) - self._fired):
            raise ModelError(
                f"the hooks of layers {missing} did not run in this forward, so the down projection is bypassed there; "
                "switch off fused MLP kernels (use_kernels=False)",
                code="hooks-did-not-run",
            )
        if missing := sorted(self._residual_plans.keys() - self._passed):
            raise ModelError(
                f"the decoder blocks of layers {missing} did not run in this forward, so no direction was added there; "
                "switch off whatever runs their parts without them",
                code="hooks-did-not-run",
            )
        if self._reading_beginning:
            return
        if self._now.weight is not None and not self._reading_prompt:
            for layer in self.calls:
                self.calls[layer] += 1
        self._rows.after(self._now)
