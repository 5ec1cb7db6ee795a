"""Steer a transformers model: one plan when attaching, one fused index operation per steered layer and forward."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Literal
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trimtab.errors import InputError, ModelError
from trimtab.gate import ALWAYS, NEVER, AnyGate
from trimtab.model.adapters import FfnLayout, find_ffn
from trimtab.model.forwards import Forward, ForwardReader, Positions, place
from trimtab.model.gate_reading import GateReading, begin_reading
from trimtab.model.guard import guarded_generate
from trimtab.model.hook_points import hook_neurons
from trimtab.model.identity import check_identity, identify
from trimtab.model.opening import LanguageModel
from trimtab.model.plan import LayerPlan, plan_layers
from trimtab.neurons import ModelIdentity
from trimtab.steering import PositionScope, Steering

logger = logging.getLogger(__name__)

GateOverride = Literal["auto", "on", "off"]

_steered_stacks: WeakSet[nn.Module] = WeakSet()


def attach(
    model: PreTrainedModel | LanguageModel,
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

    ``generate`` works greedy, sampling, with beams, several return sequences, static caches and ``torch.compile`` (compiled
    graphs are dropped on entering and leaving, because they do not see hooks come and go). Assisted decoding, chunked prefill,
    packed sequences and a second attachment are refused. Scoring a response in one forward, or generating without a cache, needs
    ``prompt_lengths``; a gate that reads then reads the prompts in an extra unsteered forward, at twice the cost.

    Args:
        model: a transformers model, or an opened one, whose layout and identity are then known.
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
        raise ModelError("this steering has no neurons, so attaching it would change nothing; select at least one neuron")
    if gate not in ("auto", "on", "off"):
        raise ModelError(f"unknown gate override {gate!r}; accepted: auto, on, off")
    if isinstance(model, LanguageModel):
        model, layout, identity = model.hf_model, layout or model.layout, identity or model.identity
    layout = layout or find_ffn(model)
    check_identity(
        steering.model, identity or identify(model, model.name_or_path or "the model", None, layout=layout), force=force_model
    )
    chosen = {"auto": steering.gate, "on": ALWAYS, "off": NEVER}[gate]
    plans = plan_layers(steering, chosen if chosen.reads else None, layout)
    lengths = None if prompt_lengths is None else torch.as_tensor(prompt_lengths, dtype=torch.int64)
    return Attachment(
        model,
        layout,
        plans,
        chosen,
        steering.scope,
        _checked_strength(steering.strength if strength is None else strength),
        lengths,
    )


def _checked_strength(strength: float | Tensor) -> Tensor:
    checked = torch.as_tensor(strength, dtype=torch.float32).detach()
    if checked.dim() > 1 or not bool(torch.isfinite(checked).all()):
        raise InputError(f"strength must be a finite number or one per row, float32 [batch]; got {strength!r}")
    return checked


class Attachment:
    """A steering on a model, from entering the ``with`` block to leaving it; made by :func:`attach`.

    Attributes:
        probability: float32 ``[batch]``, p(fail) that the gate read in the last prefill; None for a gate that reads nothing.
        coefficient: float32 ``[batch]``, strength times g in force; None before it is known.
        calls: per steered layer, the number of forwards in which its hook steered.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layout: FfnLayout,
        plans: Mapping[int, LayerPlan],
        gate: AnyGate,
        scope: PositionScope,
        strength: Tensor,
        prompt_lengths: Tensor | None,
    ) -> None:
        self._model, self._layout, self._plans = model, layout, dict(plans)
        self._gate, self._strength, self._prompt_lengths = gate, strength, prompt_lengths
        self._scope: PositionScope = scope
        self._reader = ForwardReader(layout.base)
        self._undo: ExitStack | None = None
        self._forwards = 0
        self._reading_prompt = False
        self._shape = (0, 0)
        self._weight: Tensor | None = None
        self._reading: GateReading | None = None
        self._fired: set[int] = set()
        self.probability: Tensor | None = None
        self.coefficient: Tensor | None = None
        self.calls: dict[int, int] = {layer: 0 for layer, plan in plans.items() if plan.neurons is not None}

    def __enter__(self) -> "Attachment":
        from torch._dynamo import config as dynamo_config  # slow to import, and nothing here needs it before

        base = self._layout.base
        if base in _steered_stacks:
            raise ModelError("this model is steered already; leave the first attach block before entering a second")
        with ExitStack() as stack:
            _steered_stacks.add(base)
            stack.callback(_steered_stacks.discard, base)
            # a compiled graph has no guard on hooks: it would go on without these, or keep them after they are removed; and one
            # that is compiled from here on would serve another model of the same class too, unless it guards them
            torch.compiler.reset()
            stack.callback(torch.compiler.reset)
            stack.enter_context(dynamo_config.patch(skip_nnmodule_hook_guards=False))
            stack.enter_context(guarded_generate(self._model))
            before: Callable[..., None] = torch.compiler.disable(self._before_forward)  # type: ignore[assignment]
            after: Callable[..., None] = torch.compiler.disable(self._after_forward)  # type: ignore[assignment]
            stack.callback(base.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(base.register_forward_hook(after).remove)
            for layer, plan in self._plans.items():
                stack.callback(hook_neurons(self._layout, layer, partial(self._edit, layer), plan.chosen).remove)
            self._undo = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.detach()
        if error is None and self._forwards and not any(self.calls.values()):
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

    def select_rows(self, rows: Tensor) -> None:
        """Go on with these rows of the batch, int64 ``[kept]``, after a sampler dropped the others from its cache."""
        if self.coefficient is None:
            raise ModelError("select_rows before any prefill: there is no batch yet to select rows from")
        if rows.dtype != torch.int64:
            raise ModelError(
                f"select_rows needs row numbers as int64, got {rows.dtype}; for a mask use mask.nonzero().squeeze(1)"
            )
        self.coefficient = self.coefficient[rows.to(self.coefficient.device)]
        if self.probability is not None:
            self.probability = self.probability[rows.to(self.probability.device)]

    def _before_forward(self, base: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        self._fired.clear()
        if self._reading_prompt:
            return
        self._weight = self._reading = None
        forward = self._reader.read(args, kwargs)
        positions = place(forward, self._scope, self._prompt_lengths)
        self._shape = (forward.batch, forward.length)
        self._forwards += 1
        if forward.past == 0:
            self._start(forward, positions, base, args, kwargs)
        else:
            self._go_on(forward)
        if positions.steered is not None:
            assert self.coefficient is not None
            self._weight = self.coefficient.unsqueeze(1) * positions.steered

    def _start(
        self, forward: Forward, positions: Positions, base: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        """A new batch: fix its coefficient now, or let the gate read the prompts."""
        self.probability = self.coefficient = None
        if not self._gate.reads:
            self.coefficient = self._constant_coefficient(forward)
            return
        self._strength_of(forward.batch)
        self._reading = begin_reading(self._gate, forward, positions, self._prompt_lengths)
        if positions.steered is not None:
            # generated tokens are in this very forward, and the gate's last layer comes after the first steered one
            arguments = self._reader.arguments(args, kwargs) | {"past_key_values": None, "use_cache": False}
            self._reading_prompt = True
            try:
                with torch.no_grad():
                    base(**arguments)
            finally:
                self._reading_prompt = False
            self._fired.clear()
            self._reading = None

    def _go_on(self, forward: Forward) -> None:
        """A decode forward: the coefficient of the prefill has to fit it."""
        if self.coefficient is not None and len(self.coefficient) == forward.batch:
            return
        if not self._gate.reads and self._strength.dim() == 0:
            self.coefficient = self._constant_coefficient(forward)
            return
        if self.coefficient is None:
            raise ModelError(
                "the prompt was read before attaching, so its gate and row strengths are unknown; run the prefill within attach"
            )
        raise ModelError(
            f"{forward.batch} rows go on after a prefill of {len(self.coefficient)}; tell the attachment which: select_rows(rows)"
        )

    def _constant_coefficient(self, forward: Forward) -> Tensor:
        g = 1.0 if self._gate.kind == "always" else 0.0
        return (g * self._strength_of(forward.batch)).to(forward.device)

    def _strength_of(self, batch: int) -> Tensor:
        if self._strength.dim() == 1 and len(self._strength) != batch:
            raise ModelError(
                f"{len(self._strength)} row strengths for a batch of {batch}; give one per row "
                "(beams and several return sequences repeat each prompt: strength.repeat_interleave(n))"
            )
        return self._strength.expand(batch)

    def _edit(self, layer: int, activation: Tensor) -> Tensor | None:
        """What a layer's activations become; see :func:`trimtab.model.hook_points.hook_neurons`."""
        if self._weight is None and self._reading is None:
            return None
        plan = self._plan_on(layer, activation.device)
        batched = activation.reshape(*self._shape, activation.shape[-1])  # some blocks flatten batch and seq
        if plan.features is not None and self._reading is not None:
            self._reading.add(plan.features, batched)
            self._fired.add(layer)
        if plan.neurons is None or self._weight is None:
            return None
        self._fired.add(layer)
        return plan.neurons.steer(batched, self._weight.to(activation.device)).reshape(activation.shape)

    def _plan_on(self, layer: int, device: torch.device) -> LayerPlan:
        plan = self._plans[layer]
        if plan.device != device:
            plan = self._plans[layer] = plan.to(device)
        return plan

    def _after_forward(self, *_: object) -> None:
        steering, reading = self._weight is not None, self._reading is not None
        expected = {
            layer
            for layer, plan in self._plans.items()
            if (steering and plan.neurons is not None) or (reading and plan.features is not None)
        }
        if missing := sorted(expected - self._fired):
            raise ModelError(
                f"the hooks of layers {missing} did not run in this forward, so the down projection is bypassed there; "
                "switch off fused MLP kernels (use_kernels=False)"
            )
        if steering:
            for layer in self.calls:
                self.calls[layer] += 1
        if reading:
            self._decide()

    def _decide(self) -> None:
        """p(fail) and the coefficient of each row, on the device throughout."""
        assert self._reading is not None
        self.probability = torch.sigmoid(self._reading.logit())
        threshold = self._gate.cutoff
        if self._gate.mode == "hard":
            g = (self.probability >= threshold).float()
        else:
            g = ((self.probability - threshold) / (1.0 - threshold)).clamp(0.0, 1.0)
        self.coefficient = self._strength_of(len(g)).to(g.device) * g
