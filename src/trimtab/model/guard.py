"""Refuse the ways of generating in which a steering would silently act on the wrong tokens."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from types import MappingProxyType

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


@contextmanager
def guarded_generate(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, ``model.generate`` raises ModelError for the options it cannot be steered under.

    The forwards alone do not always give them away (a draft that is accepted whole looks like a longer prompt), so the call
    itself is checked.
    """
    original: Callable[..., object] = model.generate  # type: ignore[assignment]
    own = model.__dict__.get("generate")
    model.__dict__["generate"] = _checked(original, model)
    try:
        yield
    finally:
        if own is None:
            del model.__dict__["generate"]
        else:
            model.__dict__["generate"] = own


def _checked(generate: Callable[..., object], model: PreTrainedModel) -> Callable[..., object]:
    signature = inspect.signature(generate)

    @wraps(generate)
    def checked(*args: object, **kwargs: object) -> object:  # generate's own arguments, which trimtab does not define
        bound = signature.bind(*args, **kwargs).arguments
        given = {**bound, **bound.get("kwargs", {})}
        config = given.get("generation_config") or model.generation_config
        for option, reason in _REFUSED.items():
            if given.get(option) or getattr(config, option, None):
                raise ModelError(f"generate({option}=...) cannot be steered: {reason}. Leave {option} out, or detach first")
        if given.get("cache_implementation") == "paged":
            raise ModelError(
                "generate(cache_implementation='paged') packs sequences into one row and cannot be steered; leave it out"
            )
        return generate(*args, **kwargs)

    return checked
