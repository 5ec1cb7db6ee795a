"""The doctor: prove on the model at hand that every layer can be steered and an attachment acts as it says.

The layers are probed one by one, with plain hooks. The attachment is proved end to end: through the public :func:`attach` and a
cached, left-padded ``generate``, against a plain hook in one forward of each row alone.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trimtab.errors import ModelError
from trimtab.gate import ALWAYS
from trimtab.model.adapters import FfnLayout, linear_shape
from trimtab.model.attach import attach
from trimtab.model.experts import each_expert, is_gated, read_routing, recompute
from trimtab.model.opening import LanguageModel
from trimtab.model.probes import Probe, causality_fault, probe_layer, probe_logits, probe_tokens, relative_difference
from trimtab.neurons import ModelIdentity
from trimtab.steering import Steering

_TYPICAL_SHIFT = 0.3  # in standard deviations of the activation; AdaRAS steers at strength 0.3
_ROUNDING_LIMIT = 0.1  # of the shift


@dataclass(frozen=True, slots=True)
class LayerFinding:
    """The findings of the probes in one layer.

    Args:
        faults: what is wrong, in words; empty when the layer can be steered.
        width: width of the down projection's input, None when its hook never ran.
        activation_std: standard deviation of the activations over a short fixed input, None likewise.
        shift_survives: share of activations that a typical shift really moves, within 10 % of the shift; None likewise.
    """

    layer: int
    faults: tuple[str, ...]
    width: int | None
    activation_std: float | None
    shift_survives: float | None

    @property
    def ok(self) -> bool:
        return not self.faults


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result of :func:`check_model`.

    Args:
        gated: whether two projections make the activation (SwiGLU) or one does; None when the block does not show it.
        layers: those that have neurons.
        faults: what is wrong with the model as a whole or with an attachment to it, in words.
        pads_alike: whether the bare model gives a row of a left-padded batch what it gives the row alone.
        unseen: FFNs beside the experts, whose neurons are neither recorded nor steered; in words.
        seconds: wall time of the check.
    """

    identity: ModelIdentity
    family: str
    found_by: Literal["adapter", "search"]
    dtype: str
    device: str
    gated: bool | None
    tied_embeddings: bool
    layers: tuple[LayerFinding, ...]
    faults: tuple[str, ...]
    seconds: float
    unseen: tuple[str, ...] = ()
    pads_alike: bool = True

    @property
    def ok(self) -> bool:
        """Whether every layer can be steered, and an attachment acts as it says."""
        return not self.faults and all(finding.ok for finding in self.layers)

    @property
    def shift_survives(self) -> float | None:
        """The worst layer's share of activations that a typical shift really moves."""
        return min((finding.shift_survives for finding in self.layers if finding.shift_survives is not None), default=None)

    def summary(self) -> str:
        """A few lines for a person."""
        sizes = self.identity
        gated = {True: "gated", False: "ungated", None: "gating unknown"}[self.gated]
        lines = [
            f"{sizes.name}: {self.family}, found by {self.found_by}, {gated}, {self.dtype} on {self.device}",
            f"{sizes.n_layers} layers x {sizes.width_text} = {sizes.n_neurons:,} neurons, d_model {sizes.d_model}, "
            f"vocabulary {sizes.vocab_size:,}, embeddings {'tied' if self.tied_embeddings else 'untied'}",
        ]
        if self.shift_survives is not None:
            share = f"{self.shift_survives:.1%} of activations (worst layer)"
            lines.append(f"a shift of {_TYPICAL_SHIFT} standard deviations survives {self.dtype} in {share}")
        if self.unseen:
            lines.append(f"neither recorded nor steered: {', '.join(self.unseen)}")
        if not self.pads_alike:
            lines.append("steered or not, this model gives a row of a padded batch other logits than the row alone: do not pad")
        lines += [f"layer {finding.layer}: {fault}" for finding in self.layers for fault in finding.faults]
        lines += self.faults
        steerable = sum(finding.ok for finding in self.layers)
        lines.append(
            f"{'ok' if self.ok else 'NOT OK'}: {steerable} of {len(self.layers)} layers can be steered ({self.seconds:.1f} s)"
        )
        return "\n".join(lines)


def check_model(model: LanguageModel) -> Diagnosis:
    """Probe every layer, the direction of the attention, and an attachment end to end.

    Of a layer that has neurons: its hook fires once, is as wide as found, moves the logits, and leaves them bit-identical when
    removed. Of the model: a token leaves the logits before it as they are. Of an attachment: it steers the right rows and
    positions of a cached, left-padded ``generate``, as a plain hook would, and changes nothing at strength 0; of a model that
    cannot pad, of each row alone. Costs two forwards of eight tokens a layer, and some thirty more.
    """
    start = time.perf_counter()
    hf_model, layout = model.hf_model, model.layout
    tokens = probe_tokens(hf_model)
    reference = probe_logits(hf_model, tokens)
    findings = tuple(
        _finding(layer, probe_layer(hf_model, layout, layer, tokens, reference), ffn.width) for layer, ffn, _ in layout.places
    )
    pads_alike = _pads_alike(model)
    fault = _attachment_fault(model, [_ROWS] if pads_alike else [[row] for row in _ROWS])
    return Diagnosis(
        identity=model.identity,
        family=layout.family,
        found_by=layout.found_by,
        dtype=str(hf_model.dtype).removeprefix("torch."),
        device=str(hf_model.device),
        gated=_is_gated(layout),
        tied_embeddings=_has_tied_embeddings(hf_model),
        layers=findings,
        faults=tuple(fault for fault in (causality_fault(hf_model), fault) if fault),
        seconds=time.perf_counter() - start,
        unseen=layout.unseen,
        pads_alike=pads_alike,
    )


def shift_survival(activation: Tensor, shift: float) -> float:
    """Share of elements ``a`` with ``a + shift != a`` and ``abs((a + shift) - a - shift) < 0.1 * abs(shift)`` in a's dtype.

    Args:
        activation: any shape, in the dtype the model computes in.
    """
    moved = activation + torch.tensor(shift, dtype=activation.dtype, device=activation.device)
    error = (moved.double() - activation.double() - shift).abs()
    return ((moved != activation) & (error < _ROUNDING_LIMIT * abs(shift))).double().mean().item()


def _finding(layer: int, probe: Probe, width: int) -> LayerFinding:
    std = None if probe.activation is None else probe.activation.float().std().item()
    survives = None if probe.activation is None or std is None else shift_survival(probe.activation, _TYPICAL_SHIFT * std)
    return LayerFinding(layer, tuple(probe.faults(width)), probe.width, std, survives)


def _has_tied_embeddings(model: PreTrainedModel) -> bool:
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _is_gated(layout: FfnLayout) -> bool | None:
    """Two maps d_model -> width beside the down projection (or one fused to twice the width) make a gated FFN, one an ungated."""
    ffn, module = next((ffn, module) for _, ffn, module in layout.places if ffn.sparse == layout.mixture)
    if ffn.sparse:
        return is_gated(module)
    owners = (owner for owner in layout.base.modules() if any(child is module for child in owner.children()))
    owner: nn.Module | None = next(owners, None)
    shapes = [] if owner is None else [linear_shape(child) for child in owner.children()]
    wide, fused = shapes.count((layout.d_model, ffn.width)), shapes.count((layout.d_model, 2 * ffn.width))
    if wide == 2 or fused == 1:
        return True
    return False if wide == 1 else None


_NEW_TOKENS = 4
_EFFECT_LIMIT = 0.05
"""Relative difference of two effects. Rounding in bfloat16 stays below it; a row or position steered by mistake exceeds it."""


_ROWS = (list(range(2, 10)), list(range(3, 7)))


def _pads_alike(model: LanguageModel) -> bool:
    """Whether the unsteered model gives the rows of a left-padded batch what it gives each of them alone."""
    bare = _generated(model, _ROWS)
    for row, ids in enumerate(_ROWS):
        alone = _by_plain_hook(model, None, [*ids, *bare.tokens[row]], len(ids))
        if relative_difference(bare.logits[row], alone) > _EFFECT_LIMIT:
            return False
    return True


def _attachment_fault(model: LanguageModel, batches: Sequence[Sequence[list[int]]]) -> str | None:
    """What an attachment does otherwise than it should in any of these batches, in words; None when it is as it should be."""
    try:
        steering = _probe_steering(model)
        return next((fault for rows in batches if (fault := _fault_in(model, steering, rows))), None)
    except ModelError as error:
        return f"attaching a steering: {error}"


def _fault_in(model: LanguageModel, steering: Steering, rows: Sequence[list[int]]) -> str | None:
    bare = _generated(model, rows)
    with attach(model, steering, strength=0.0):
        still = _generated(model, rows)
    with attach(model, steering, strength=torch.tensor([1.0] + [0.0] * (len(rows) - 1))):
        first_only = _generated(model, rows)
    with attach(model, steering) as attachment:
        both = _generated(model, rows)
    if not all(attachment.calls.values()):
        return "attaching a steering: its hooks never steered in generate"
    if relative_difference(still.logits, bare.logits) > 0:
        return "attaching a steering at strength 0 changes the logits of generate"
    if len(rows) > 1 and relative_difference(first_only.logits[1:], bare.logits[1:]) > _EFFECT_LIMIT:
        return "steering one row of a batch changes another row"
    for row, ids in enumerate(rows):
        expected = _by_plain_hook(model, steering, [*ids, *both.tokens[row]], len(ids))
        plain = _by_plain_hook(model, None, [*ids, *both.tokens[row]], len(ids))
        if not torch.linalg.norm(expected - plain) > 0:
            return "a plain hook on one neuron of every layer changes no logit of a later token"
        difference = relative_difference(both.logits[row] - plain, expected - plain)
        if difference > _EFFECT_LIMIT:
            return (
                "an attachment in a cached generate does not do what a plain hook does in one forward of the row alone "
                f"(their effects differ by {difference:.1%})"
            )
    return None


@dataclass(frozen=True, slots=True)
class _Generated:
    """Greedy tokens ``[row][new]`` and their logits, float32 ``[row, new, vocabulary]``."""

    tokens: list[list[int]]
    logits: Tensor


@torch.no_grad()
def _generated(model: LanguageModel, rows: Sequence[list[int]]) -> _Generated:
    width, vocabulary = max(map(len, rows)), model.identity.vocab_size
    ids = torch.tensor([[0] * (width - len(row)) + [token % vocabulary for token in row] for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    output = model.hf_model.generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=mask,
        do_sample=False,
        num_beams=1,
        max_new_tokens=_NEW_TOKENS,
        min_new_tokens=_NEW_TOKENS,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return _Generated(output.sequences[:, width:].tolist(), torch.stack(output.logits, 1).float())


def _probe_steering(model: LanguageModel) -> Steering:
    """One neuron a layer, or one of each expert, pushed by what a large activation is."""
    first = {n: np.arange(max(1, ffn.n_experts)) * (ffn.width // max(1, ffn.n_experts)) for n, ffn, _ in model.layout.places}
    layer = np.concatenate([np.full(len(index), n) for n, index in first.items()])
    index = np.concatenate([*first.values()])
    shift = np.full(len(layer), 3.0, np.float32)
    return Steering(layer, index, 0 * shift, shift, 1.0, "generated", ALWAYS, model.identity)


@torch.no_grad()
def _by_plain_hook(model: LanguageModel, steering: Steering | None, ids: list[int], prompt: int) -> Tensor:
    """Logits of the generated tokens of one row in one forward without a cache, float32 ``[new, vocabulary]``."""
    steered = torch.arange(len(ids) - 1, device=model.device) >= prompt
    tokens = torch.tensor([[token % model.identity.vocab_size for token in ids[:-1]]], device=model.device)

    def dense(args: tuple[Tensor, ...], index: Tensor, shift: Tensor) -> tuple[Tensor, ...]:
        activation = args[0].clone()
        flat = activation.view(-1, activation.shape[-1])
        flat[:, index] += steered.to(flat.device, flat.dtype).unsqueeze(1) * shift.to(flat.device, flat.dtype)
        return (activation, *args[1:])

    def mixture(module: nn.Module, args: tuple[object, ...], index: Tensor, shift: Tensor) -> Tensor:
        routed = read_routing(module, args)
        parts = iter(each_expert(module, routed))

        def edit(activation: Tensor) -> Tensor:
            part, changed = next(parts), activation.clone()
            width = activation.shape[-1]
            own = index // width == part.expert
            here = steered.to(changed.device, changed.dtype)[part.token].unsqueeze(1)
            changed[:, index[own] % width] += here * shift[own].to(changed.device, changed.dtype)
            return changed

        return recompute(module, routed, edit)

    handles = []
    for layer, ffn, module in model.layout.places if steering is not None else ():
        assert steering is not None
        own = steering.layer == layer
        index, shift = torch.from_numpy(steering.index[own]), torch.from_numpy(steering.shift[own])
        if ffn.sparse:
            handles.append(module.register_forward_hook(lambda m, a, _, i=index, s=shift: mixture(m, a, i, s)))
        else:
            handles.append(module.register_forward_pre_hook(lambda _, a, i=index, s=shift: dense(a, i, s)))  # type: ignore[arg-type]
    try:
        logits = model.hf_model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return logits[0, prompt - 1 :].float()
