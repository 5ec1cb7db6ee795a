"""The doctor: prove on the model at hand that every layer can be steered, and say what its dtype will swallow."""

import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trimtab.model.adapters import FfnLayout, linear_shape
from trimtab.model.opening import LanguageModel
from trimtab.model.probes import Probe, probe_layer, probe_logits, probe_tokens, prove
from trimtab.neurons import ModelIdentity

__all__ = ["Diagnosis", "LayerFinding", "check_model", "prove", "shift_survival"]

_TYPICAL_SHIFT = 0.3  # in standard deviations of the activation; AdaRAS steers at strength 0.3
_ROUNDING_LIMIT = 0.1  # of the shift


@dataclass(frozen=True, slots=True)
class LayerFinding:
    """What the probes saw in one layer.

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
    """The result of :func:`examine`.

    Args:
        gated: whether two projections make the activation (SwiGLU) or one does; None when the block does not show it.
        seconds: wall time of the examination.
    """

    identity: ModelIdentity
    family: str
    found_by: Literal["adapter", "search"]
    dtype: str
    device: str
    gated: bool | None
    tied_embeddings: bool
    layers: tuple[LayerFinding, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every layer can be steered."""
        return all(finding.ok for finding in self.layers)

    @property
    def shift_survives(self) -> float | None:
        """The worst layer's share of activations that a typical shift really moves."""
        return min((finding.shift_survives for finding in self.layers if finding.shift_survives is not None), default=None)

    def summary(self) -> str:
        """A few lines for a person."""
        sizes = self.identity
        width = f"{sizes.n_experts} experts x {sizes.d_expert}" if sizes.n_experts > 1 else str(sizes.d_ff)
        gated = {True: "gated", False: "ungated", None: "gating unknown"}[self.gated]
        lines = [
            f"{sizes.name}: {self.family}, found by {self.found_by}, {gated}, {self.dtype} on {self.device}",
            f"{sizes.n_layers} layers x {width} = {sizes.n_neurons:,} neurons, d_model {sizes.d_model}, "
            f"vocabulary {sizes.vocab_size:,}, embeddings {'tied' if self.tied_embeddings else 'untied'}",
        ]
        if self.shift_survives is not None:
            share = f"{self.shift_survives:.1%} of activations (worst layer)"
            lines.append(f"a shift of {_TYPICAL_SHIFT} standard deviations survives {self.dtype} in {share}")
        lines += [f"layer {finding.layer}: {fault}" for finding in self.layers for fault in finding.faults]
        steerable = sum(finding.ok for finding in self.layers)
        lines.append(
            f"{'ok' if self.ok else 'NOT OK'}: {steerable} of {len(self.layers)} layers can be steered ({self.seconds:.1f} s)"
        )
        return "\n".join(lines)


def check_model(model: LanguageModel) -> Diagnosis:
    """Probe every layer: its hook fires once, is d_ff wide, moves the logits, and leaves them bit-identical when removed.

    Costs two forwards of eight tokens a layer.
    """
    start = time.perf_counter()
    hf_model, layout = model.hf_model, model.layout
    tokens = probe_tokens(hf_model)
    reference = probe_logits(hf_model, tokens)
    findings = tuple(
        _finding(layer, probe_layer(hf_model, layout, layer, tokens, reference), layout.d_ff) for layer in range(layout.n_layers)
    )
    return Diagnosis(
        identity=model.identity,
        family=layout.family,
        found_by=layout.found_by,
        dtype=str(hf_model.dtype).removeprefix("torch."),
        device=str(hf_model.device),
        gated=_is_gated(layout),
        tied_embeddings=_has_tied_embeddings(hf_model),
        layers=findings,
        seconds=time.perf_counter() - start,
    )


def shift_survival(activation: Tensor, shift: float) -> float:
    """Share of elements ``a`` with ``a + shift != a`` and ``abs((a + shift) - a - shift) < 0.1 * abs(shift)`` in a's dtype.

    Args:
        activation: any shape, in the dtype the model computes in.
    """
    moved = activation + torch.tensor(shift, dtype=activation.dtype, device=activation.device)
    error = (moved.double() - activation.double() - shift).abs()
    return ((moved != activation) & (error < _ROUNDING_LIMIT * abs(shift))).double().mean().item()


def _finding(layer: int, probe: Probe, d_ff: int) -> LayerFinding:
    std = None if probe.activation is None else probe.activation.float().std().item()
    survives = None if probe.activation is None or std is None else shift_survival(probe.activation, _TYPICAL_SHIFT * std)
    return LayerFinding(layer, tuple(probe.faults(d_ff)), probe.width, std, survives)


def _has_tied_embeddings(model: PreTrainedModel) -> bool:
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _is_gated(layout: FfnLayout) -> bool | None:
    """Two maps d_model -> d_ff beside the down projection (or one fused to twice the width) make a gated FFN, one an ungated."""
    if layout.mixture:
        return True  # experts_shape admits gated experts only
    owners = (module for module in layout.base.modules() if any(child is layout.down[0] for child in module.children()))
    owner: nn.Module | None = next(owners, None)
    shapes = [] if owner is None else [linear_shape(child) for child in owner.children()]
    wide, fused = shapes.count((layout.d_model, layout.d_ff)), shapes.count((layout.d_model, 2 * layout.d_ff))
    if wide == 2 or fused == 1:
        return True
    return False if wide == 1 else None
