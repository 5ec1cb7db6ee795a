"""The guard on ``generate`` of a steered model: refused options, one call at a time, and none that outlives its block."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from threading import Lock, get_ident
from types import MappingProxyType
from typing import Protocol

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from trimtab.errors import ModelError

_ASSISTED = "assisted decoding drafts several tokens per forward and takes some back"
_REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "assistant_model": _ASSISTED,
        "prompt_lookup_num_tokens": _ASSISTED,
        "assistant_early_exit": _ASSISTED,
        "use_mtp": _ASSISTED,
        "prefill_chunk_size": "a chunked prefill ends its first forward before the last prompt token",
        "guidance_scale": "classifier-free guidance runs a second prompt between the tokens of the first",
        "custom_generate": "a custom loop may run its forwards in any order",
    }
)
OUTLIVED = "a generate call in another thread was still running when its attach block ended; join the thread inside the block"


class Follower(Protocol):
    """An object that is notified of generate calls."""

    def generation_begins(self) -> None: ...

    def generation_ends(self, sequences: Tensor) -> None: ...


class GenerateGuard:
    """From :meth:`install` to :meth:`remove`, ``model.generate`` raises ModelError where a steering would act on wrong tokens.

    The forwards alone do not always give such a call away (a draft that is accepted whole looks like a longer prompt), so the
    call itself is checked.
    """

    def __init__(self, model: PreTrainedModel, base: nn.Module, follower: Follower, *, follows_rows: bool = False) -> None:
        """Guard a model.

        Args:
            model, base: the model and its decoder stack.
            follower: what is notified.
            follows_rows: whether it keeps something of each row from token to token, so that rows must not change places.
        """
        self._model, self._base, self._follower, self._follows_rows = model, base, follower, follows_rows
        self._lock = Lock()
        self._runner: int | None = None
        self._own: Callable[..., object] | None = None
        self._stop: RemovableHandle | None = None

    @property
    def running(self) -> bool:
        """Whether this thread is inside ``generate``."""
        return self._runner == get_ident()

    @property
    def running_elsewhere(self) -> bool:
        """Whether another thread is."""
        return self._runner is not None and not self.running

    def install(self) -> None:
        """Begin to check."""
        self._own = self._model.__dict__.get("generate")
        self._model.__dict__["generate"] = self._checked(self._model.generate)  # type: ignore[arg-type]

    def remove(self) -> None:
        """End to check. A call that still runs in another thread fails at its next forward."""
        if self.running_elsewhere:
            self._stop = self._base.register_forward_pre_hook(self._refuse_runner)
        if self._own is None:
            del self._model.__dict__["generate"]
        else:
            self._model.__dict__["generate"] = self._own

    def _refuse_runner(self, *_: object) -> None:
        if self.running:
            raise ModelError(OUTLIVED)

    def _checked(self, generate: Callable[..., object]) -> Callable[..., object]:
        signature = inspect.signature(generate)

        @wraps(generate)
        def checked(*args: object, **kwargs: object) -> object:  # generate's own arguments, which trimtab does not define
            bound = signature.bind(*args, **kwargs).arguments
            self._refuse_options({**bound, **bound.get("kwargs", {})})
            if not self._lock.acquire(blocking=False):
                raise ModelError(
                    "another generate call runs on this attached model, whose gate and positions are those of one batch; "
                    "generate one batch after the other, or all rows in one",
                    code="another-thread",
                )
            try:
                self._runner = get_ident()
                self._follower.generation_begins()
                result = generate(*args, **kwargs)
                self._follower.generation_ends(result if isinstance(result, Tensor) else result.sequences)  # type: ignore[attr-defined]
            finally:
                self._runner = None
                if self._stop is not None:
                    self._stop.remove()
                    self._stop = None
                self._lock.release()
            return result

        return checked

    def _refuse_options(self, given: Mapping[str, object]) -> None:
        config = given.get("generation_config") or self._model.generation_config
        for option, reason in _REFUSED.items():
            if given.get(option) or getattr(config, option, None):
                raise ModelError(
                    f"generate({option}=...) cannot be steered: {reason}. Leave {option} out, or detach first",
                    code="generate-option",
                )
        beams = given.get("num_beams") or getattr(config, "num_beams", None) or 1
        if self._follows_rows and int(beams) > 1:  # type: ignore[call-overload]
            raise ModelError(
                f"generate(num_beams={beams}) cannot be steered behind a running gate: beams exchange rows, and its state is "
                "one a row. Leave num_beams out, or attach with gate='on'"
            )
        if given.get("cache_implementation") == "paged":
            raise ModelError(
                "generate(cache_implementation='paged') packs sequences into one row and cannot be steered; leave it out"
            )
