"""Logits of transformers models, bare and steered by whatever a context manager turns on or off."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from trimtab.export.target import Answered
from trimtab.model import LanguageModel, attach
from trimtab.steering import Steering

Switch = Callable[[Answered], AbstractContextManager[object]]


def _nothing(_: Answered) -> AbstractContextManager[object]:
    return nullcontext()


@torch.no_grad()
def logits_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """Float32 ``[seq, vocab]`` on the CPU, of int64 ``[seq]``, in one forward without a cache."""
    device = next(model.parameters()).device
    row = tokens[None].to(device)
    return model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False).logits[0].float().cpu()


class TransformersEngine:
    """Two models, or one with a switch.

    Args:
        name: program and version.
        steered: the model with the export.
        bare: the base; None for the same model.
        on, off: entered around every steered and every bare forward.
    """

    def __init__(
        self, name: str, steered: nn.Module, bare: nn.Module | None = None, *, on: Switch = _nothing, off: Switch = _nothing
    ) -> None:
        self.name = name
        self._steered, self._bare, self._on, self._off = steered, bare or steered, on, off

    def bare(self, sequence: Answered) -> Tensor:
        """Unsteered logits."""
        with self._off(sequence):
            return logits_of(self._bare, sequence.tokens)

    def steered(self, sequence: Answered) -> Tensor:
        """Logits with the export."""
        with self._on(sequence):
            return logits_of(self._steered, sequence.tokens)


def hooks_engine(model: LanguageModel, steering: Steering) -> TransformersEngine:
    """The transformers hooks, in one forward that knows where each prompt ends."""

    def on(sequence: Answered) -> AbstractContextManager[object]:
        return attach(model.hf_model, steering, layout=model.layout, identity=model.identity, prompt_lengths=[sequence.prompt])

    return TransformersEngine("transformers hooks", model.hf_model, on=on)
