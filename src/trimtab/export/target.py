"""The interface of a target: write its files, and open them in its own engine; and a steering layer by layer."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trimtab.errors import InputError
from trimtab.export.checkpoint import Checkpoint
from trimtab.export.parts import Part
from trimtab.model import LanguageModel
from trimtab.steering import Steering

ADAPTER_CONFIG = "adapter_config.json"
"""What PEFT and vLLM look for in the folder of an adapter."""


@dataclass(frozen=True, slots=True)
class Written:
    """A target's report on the files that it wrote.

    Args:
        facts: for the card and export.json.
        usage: the command or code that uses them, with ``PATH`` for the folder.
        samples: of every tensor, for the fingerprint, where writing read the whole checkpoint anyway; see
            :meth:`Checkpoint.identity_with`.
    """

    facts: dict[str, object]
    usage: str
    samples: dict[str, bytes] | None = None


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options that an engine may need beside the export.

    Args:
        steering: what the export has to do, parts already dropped.
        facts: those that :class:`Written` held.
        base_gguf: the base model as a GGUF file, None to write one.
        allow_pickle: whether a file that is unpickled may be opened.
        lora_modules: to which vLLM applies adapters, as a server's ``--lora-target-modules``; empty for those of the adapter.
    """

    steering: Steering
    facts: Mapping[str, object]
    base_gguf: Path | None = None
    allow_pickle: bool = False
    lora_modules: tuple[str, ...] = ()


class Answered(NamedTuple):
    """A prompt with its response, int64 ``[seq]``, of which the first ``prompt`` tokens are the prompt."""

    tokens: Tensor
    prompt: int


class Engine(Protocol):
    """The export and its base in the program that the target is made for."""

    @property
    def name(self) -> str:
        """Program and version."""
        ...

    def bare(self, sequence: Answered) -> Tensor:
        """Unsteered logits of a whole sequence, float32 ``[seq, vocab]`` on the CPU."""
        ...

    def steered(self, sequence: Answered) -> Tensor:
        """The same with the export."""
        ...


class Opener(Protocol):
    """Loads an export in one engine."""

    def __call__(self, folder: Path, model: LanguageModel, options: EngineOptions) -> AbstractContextManager[Engine]:
        """The base model is as it was afterwards."""
        ...


class Target(Protocol):
    """One format. ``needs_fingerprint`` is False where :attr:`Written.samples` brings it."""

    needs_fingerprint: bool

    def check(self, steering: Steering, checkpoint: Checkpoint) -> None:
        """Raise InputError for what this model or steering rules out, before anything is written."""
        ...

    def write(self, steering: Steering, checkpoint: Checkpoint, folder: Path) -> Written:
        """Write the files of a steering that :func:`trimtab.export.parts.expressible` let through."""
        ...

    def open(self, folder: Path, model: LanguageModel, options: EngineOptions) -> AbstractContextManager[Engine]:
        """Load the export with the target's own loader; the base model is as it was afterwards."""
        ...


def not_installed(package: str, what: str, cause: ModuleNotFoundError, module: str = "") -> InputError:
    """The error for an engine that is missing; any other missing module is raised as it is.

    Args:
        module: what the package is imported as, where that is not its own name.
    """
    if (cause.name or "").split(".")[0] != (module or package.replace("-", "_")):
        raise cause
    return InputError(f"{what} needs {package}, which is not installed; run: pip install {package}")


@dataclass(frozen=True, slots=True, eq=False)
class LayerEdit:
    """The edit of one layer at full strength.

    Args:
        index: int64 ``[neuron]``.
        gain, shift: float32 ``[neuron]``, strength times gain and strength times shift.
    """

    layer: int
    index: NDArray[np.int64]
    gain: NDArray[np.float32]
    shift: NDArray[np.float32]


def layer_edits(steering: Steering) -> Iterator[LayerEdit]:
    """The steered layers in order; the strength is multiplied in float32, as the hooks do."""
    strength = np.float32(steering.strength)
    for layer in np.unique(steering.layer).tolist():
        rows = np.flatnonzero(steering.layer == layer)
        yield LayerEdit(layer, steering.index[rows], strength * steering.gain[rows], strength * steering.shift[rows])


def output_shift(edit: LayerEdit, checkpoint: Checkpoint) -> NDArray[np.float32]:
    """``W[:, S] @ shift``, what the shifts add to the FFN's output: float32 ``[d_model]``, summed in float64."""
    columns = checkpoint.columns(edit.layer, edit.index).astype(np.float64)
    return (columns @ edit.shift.astype(np.float64)).astype(np.float32)


def residual_pushes(steering: Steering, checkpoint: Checkpoint) -> dict[int, NDArray[np.float32]]:
    """What a steering adds to the residual stream after each layer that it pushes, float32 ``[d_model]`` at full strength.

    ``s (W[:, S] @ shift + direction)``, where the FFN's output enters the stream unscaled and without a norm.
    """
    pushes = {edit.layer: output_shift(edit, checkpoint) for edit in layer_edits(steering)}
    along = np.float32(steering.strength) * steering.direction
    for layer, vector in zip(steering.direction_layer.tolist(), along, strict=True):
        pushes[layer] = pushes[layer] + vector if layer in pushes else vector
    return pushes


def shares_of(steering: Steering, drop: Collection[Part], checkpoint: Checkpoint | None) -> dict[str, object]:
    """The shares that dropping these parts leaves out, by names for the card.

    ``layer-0`` is the norm of :func:`residual_pushes` in layer 0 over the sum of that norm over all layers; ``shift`` and
    ``gain`` are counted in neurons, since what a gain does depends on the activations. Without a checkpoint no layer is left out.
    """
    shares: dict[str, object] = {}
    if "layer-0" in drop and checkpoint is not None and (steering.shift.any() or steering.has_directions):
        norms = {layer: float(np.linalg.norm(push)) for layer, push in residual_pushes(steering, checkpoint).items()}
        shares["share of the shifts dropped with layer 0"] = norms.get(0, 0.0) / sum(norms.values())
    if "gain" in drop:
        shares["share of neurons that lose a gain"] = float((steering.gain != 0).mean())
    if "shift" in drop:
        shares["share of neurons that lose a shift"] = float((steering.shift != 0).mean())
    return shares
