"""Identification during sampling: the moments of every sequence, summed up inside the generation loop.

The forwards that sample a chain compute every activation that a recording reads, so a hook a layer adds them up as they pass: in
place, into float32 ``[row, d_ff]`` a moment. Nothing is kept per token.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType

import torch
from torch import Tensor, nn

from trimtab.errors import InputError
from trimtab.model import OpenModel
from trimtab.moments import MOMENTS, Moments, TokenScope


class Recorder:
    """The moments of one batch while it is generated; made anew for each batch.

    What it gives equals :func:`trimtab.recording.record_batch` of the finished traces up to rounding, since a decode step
    multiplies matrices of another shape than one forward over a whole trace: in float32 every sum agrees to 1e-5 of the same
    neuron's sum of magnitudes.

    Example:
        >>> recorder = Recorder(opened, [request.id for request in requests], ("response",), ("sum",))  # doctest: +SKIP
        >>> generations = generate_batch(opened, requests, settings, recorder=recorder)  # doctest: +SKIP
        >>> recorder.moments()["response"].mean().shape  # doctest: +SKIP
        (32, 28, 6144)
    """

    def __init__(self, opened: OpenModel, ids: Sequence[str], scopes: Sequence[TokenScope], moments: Sequence[str]) -> None:
        """Nothing runs yet.

        Args:
            opened: the model that generates.
            ids: names of the sequences, in the order of their requests.
            scopes: token scopes to sum over.
            moments: of ``sum``, ``magnitude``, ``square``.

        Raises:
            InputError: unknown moments, or none.
        """
        unknown = set(moments) - set(MOMENTS)
        if unknown or not moments:
            raise InputError(f"unknown moments {sorted(unknown)}; accepted: {', '.join(MOMENTS)}")
        self._down, self._ids = opened.layout.down, tuple(ids)
        self._scopes, self._names = tuple(scopes), tuple(moments)
        self._prompt_scopes = tuple(scope for scope in scopes if scope != "response")
        self._origin = torch.arange(len(ids))
        self._weights = torch.empty(0)
        self._prompts: list[Tensor] = [torch.empty(0) for _ in self._down]
        self._sums: list[list[Tensor]] = [[] for _ in self._down]
        self._ended = torch.zeros(len(moments), len(ids), opened.n_layers, opened.d_ff)
        self._forwarded = torch.zeros(len(ids), dtype=torch.int64)
        self._hooks = ExitStack()

    def __enter__(self) -> "Recorder":
        for layer, module in enumerate(self._down):
            self._hooks.callback(module.register_forward_pre_hook(self._hook(layer)).remove)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._hooks.close()

    def begin(self, mask: Tensor) -> None:
        """The next forward is the prefill; every one after it adds one token a row.

        Args:
            mask: int64 ``[batch, seq]``, 1 on the prompts' tokens; every prompt ends in the last column.
        """
        last = torch.zeros_like(mask)
        last[:, -1] = 1
        spans = [last if scope == "last-prompt" else mask for scope in self._prompt_scopes]
        self._weights = torch.stack(spans, 1).float() if spans else mask.new_zeros(len(mask), 0, mask.shape[1]).float()

    def finish(self, rows: Tensor, forwarded: int) -> None:
        """These rows have ended: their sums are put aside, whatever the loop goes on to compute in them until it drops them.

        Args:
            rows: int64, numbers of rows of the present batch.
            forwarded: generated tokens that were forwarded so far.
        """
        if not len(rows) or not forwarded:
            return
        place = self._origin[rows.cpu()]
        self._forwarded[place] = forwarded
        for layer, sums in enumerate(self._sums):
            for moment, total in enumerate(sums):
                self._ended[moment, place, layer] = total[rows.to(total.device)].cpu()

    def select_rows(self, rows: Tensor) -> None:
        """Go on with these rows of the batch, int64 ``[kept]``."""
        self._origin = self._origin[rows.cpu()]
        self._sums = [[total[rows.to(total.device)] for total in sums] for sums in self._sums]

    def moments(self) -> dict[TokenScope, Moments]:
        """The moments of every sequence by scope, after the last forward. A count of 0 where a scope holds no token.

        Raises:
            InputError: activations that are not finite.
        """
        prompts = torch.stack([sums.cpu() for sums in self._prompts], 3)
        found: dict[TokenScope, Moments] = {}
        for scope in self._scopes:
            total, count = self._ended, self._forwarded
            if scope != "response":
                i = self._prompt_scopes.index(scope)
                prompt, tokens = prompts[:, :, i], self._weights[:, i].sum(-1).to(torch.int64).cpu()
                total, count = (total + prompt, count + tokens) if scope == "all" else (prompt, tokens)
            self._refuse_not_finite(total)
            found[scope] = Moments(count.numpy(), **{name: total[i].numpy() for i, name in enumerate(self._names)})
        return found

    def _hook(self, layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def accumulate(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:  # noqa: ARG001
            activation = inputs[0].float()
            if not self._sums[layer]:
                self._start(layer, activation.reshape(len(self._origin), -1, activation.shape[-1]))
                return
            token = activation.reshape(len(self._origin), activation.shape[-1])
            for name, total in zip(self._names, self._sums[layer], strict=True):
                _ADD[name](total, token)

        return accumulate

    def _start(self, layer: int, activation: Tensor) -> None:
        """The prefill, ``[batch, seq, d_ff]``."""
        weights = self._weights.to(activation.device)
        self._prompts[layer] = torch.stack([torch.bmm(weights, _POWERS[name](activation)) for name in self._names])
        rows, _, width = activation.shape
        self._sums[layer] = [activation.new_zeros(rows, width) for _ in self._names]

    def _refuse_not_finite(self, total: Tensor) -> None:
        broken = ~total.isfinite().all(-1).all(0)
        if broken.any():
            row, layer = broken.nonzero()[0].tolist()
            raise InputError(
                f"trace {self._ids[row]} has activations that are NaN or infinite, first in layer {layer}; "
                "sample in dtype float32 or bfloat16"
            )


_POWERS: dict[str, Callable[[Tensor], Tensor]] = {"sum": lambda a: a, "magnitude": torch.abs, "square": torch.square}
_ADD: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": lambda total, a: total.add_(a),
    "magnitude": lambda total, a: total.add_(a.abs()),
    "square": lambda total, a: total.addcmul_(a, a),
}
