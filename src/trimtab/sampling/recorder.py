"""Identification during sampling: the moments of every sequence, summed up inside the generation loop.

The forwards that sample a response compute every activation that a recording reads, so a hook a layer adds them up as they pass:
in place, into float32 ``[row, d_ff]`` a moment. Nothing is kept per token, and nothing waits for the device but a row that ends.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType

import torch
from torch import Tensor, nn

from trimtab.errors import InputError
from trimtab.model import LanguageModel
from trimtab.moments import MOMENTS, Moments, TokenScope
from trimtab.recording.forward import DenseSums


class Recorder:
    """The moments of one batch while it is generated; made anew for each batch.

    What it gives equals :func:`trimtab.recording.record_batch` of the finished traces up to rounding, since a decode step
    multiplies matrices of another shape than one forward over a whole trace: in float32 every sum is within 1e-5 of the largest
    sum of its trace and layer. Dense models only; a mixture of experts is recorded afterwards.

    Example:
        >>> recorder = Recorder(opened, [request.id for request in requests], ("response",), ("sum",))  # doctest: +SKIP
        >>> generations = generate_batch(opened, requests, settings, recorder=recorder)  # doctest: +SKIP
        >>> recorder.moments()["response"].mean().shape  # doctest: +SKIP
        (32, 28, 6144)
    """

    def __init__(self, model: LanguageModel, ids: Sequence[str], scopes: Sequence[TokenScope], moments: Sequence[str]) -> None:
        """Nothing runs yet.

        Args:
            model: the model that generates.
            ids: names of the sequences, in the order of their requests.
            scopes: token scopes to sum over.
            moments: of ``sum``, ``magnitude``, ``square``.

        Raises:
            InputError: unknown moments, or none.
            ModelError: a mixture of experts.
        """
        unknown = set(moments) - set(MOMENTS)
        if unknown or not moments:
            raise InputError(f"unknown moments {sorted(unknown)}; accepted: {', '.join(MOMENTS)}")
        self._opened, self._down, self._ids = model, model.layout.down, tuple(ids)
        self._scopes = tuple(scopes)
        self._names = tuple(name for name in MOMENTS if name in moments)
        self._prompt: DenseSums | None = None
        self._lengths = torch.zeros(len(ids), dtype=torch.int64)
        self._prompt_row = self._origin = torch.arange(len(ids))
        self._begun = False
        self._sums: list[list[Tensor]] = [[] for _ in self._down]
        self._scratch: dict[torch.device, Tensor] = {}
        self._ended = torch.zeros(len(self._names), len(ids), model.n_layers, model.d_ff)
        self._forwarded = torch.zeros(len(ids), dtype=torch.int64)
        self._hooks = ExitStack()

    def __enter__(self) -> "Recorder":
        for layer, module in enumerate(self._down):
            self._hooks.callback(module.register_forward_pre_hook(self._hook(layer)).remove)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._hooks.close()

    @property
    def needs_whole_prompts(self) -> bool:
        """Whether a scope holds more of a prompt than its last token."""
        return not {"response", "last-prompt"}.issuperset(self._scopes)

    def begin(self, lengths: Sequence[int]) -> None:
        """The next forward is the prefill of left-padded prompts of these lengths; every one after it adds one token a row.

        Where the beginning of the prompts was read before, the lengths are those of the rest.

        Where sequences have a prompt in common, it may stand there once: :meth:`repeat_rows` says whose it is.
        """
        self._begun = True
        self._lengths = torch.tensor(lengths)
        self._prompt_row = self._origin = torch.arange(len(lengths))
        width = max(lengths)
        spans = [[(width - 1 if s == "last-prompt" else width - n, width) for s in self._prompt_scopes] for n in lengths]
        if self._prompt_scopes:
            self._prompt = DenseSums(spans, self._names, len(self._down), self._opened.device)

    def repeat_rows(self, rows: Tensor) -> None:
        """After the prefill: go on with one row a sequence, int64 ``[sequence]``, the number of its prompt's row."""
        self._prompt_row, self._origin = rows.cpu(), torch.arange(len(rows))
        self._lengths = self._lengths[self._prompt_row]
        self._sums = [[total[rows.to(total.device)] for total in sums] for sums in self._sums]
        self._scratch = {device: scratch.new_empty(len(rows), scratch.shape[1]) for device, scratch in self._scratch.items()}

    def finish(self, rows: Tensor, forwarded: int) -> None:
        """These rows have ended: their sums are put aside, whatever the loop goes on to compute in them until it drops them.

        Args:
            rows: int64, numbers of rows of the present batch.
            forwarded: generated tokens that were forwarded so far.
        """
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
        found: dict[TokenScope, Moments] = {}
        for scope in self._scopes:
            count = {
                "response": self._forwarded,
                "last-prompt": torch.ones_like(self._forwarded),
                "prompt": self._lengths,
                "all": self._forwarded + self._lengths,
            }[scope]
            total = self._total(scope)
            self._refuse_not_finite(total)
            found[scope] = Moments(count.numpy(), **{name: total[i].numpy() for i, name in enumerate(self._names)})
        return found

    @property
    def _prompt_scopes(self) -> tuple[TokenScope, ...]:
        return tuple(scope for scope in self._scopes if scope != "response")

    def _total(self, scope: TokenScope) -> Tensor:
        """``[moment, batch, layer, d_ff]``."""
        if scope == "response" or self._prompt is None:
            return self._ended
        sums = self._prompt.collect(self._prompt_scopes.index(scope))
        prompt = torch.stack([torch.from_numpy(sums[name]) for name in self._names])[:, self._prompt_row]
        return prompt + self._ended if scope == "all" else prompt

    def _hook(self, layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def accumulate(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if not self._begun:
                return
            activation = inputs[0].reshape(len(self._origin), -1, inputs[0].shape[-1])  # some blocks flatten batch and seq
            if self._sums[layer]:
                self._add(self._sums[layer], activation.squeeze(1))
                return
            if self._prompt is not None:
                self._prompt.hook(layer)(module, (activation,))
            shape, device = (len(activation), activation.shape[-1]), activation.device
            self._sums[layer] = [torch.zeros(shape, device=device) for _ in self._names]
            self._scratch.setdefault(device, torch.empty(shape, device=device))

        return accumulate

    def _add(self, sums: Sequence[Tensor], token: Tensor) -> None:
        """Add one token a row, ``[row, d_ff]``. One scratch for all layers stays in the cache, where new memory would not."""
        scratch = self._scratch[token.device][: len(token)]
        token = token if token.dtype == torch.float32 else scratch.copy_(token)
        for name, total in zip(self._names, sums, strict=True):
            if name == "square":
                total.addcmul_(token, token)
                continue
            token = token if name == "sum" else torch.abs(token, out=scratch)
            total.add_(token)

    def _refuse_not_finite(self, total: Tensor) -> None:
        broken = ~total.isfinite().all(-1).all(0)
        if broken.any():
            row, layer = broken.nonzero()[0].tolist()
            raise InputError(
                f"trace {self._ids[row]} has activations that are NaN or infinite, first in layer {layer}; "
                "sample in dtype float32 or bfloat16",
                code="not-finite-activations",
            )
