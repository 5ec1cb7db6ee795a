"""What keeps the prefix cache exact: whose blocks may serve whose prompts.

vLLM finds a cached block by the tokens up to its end and by extra keys. Two of ours:

- a **salt** for every request that has a steering, from its digest, strength, scope and gate. It separates steerings from each
  other and from none, from the first block on.
- a **key of the request's own** for each block that reaches into steered positions, unless the scope is ``all``. Generated
  tokens are computed steered where a prompt with the same tokens would not be (and a gate decides anew for it), so such a block
  must serve nobody but the request itself, after a preemption.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Protocol

from trimtab.errors import InputError
from trimtab.vllm_plugin.options import ResolvedOptions

PREFIX = "trimtab:"


class SamplingLike(Protocol):
    """The part of vLLM's SamplingParams that is read here."""

    extra_args: dict[str, object] | None


class RequestLike(Protocol):
    """The part of vLLM's Request that is read here."""

    request_id: str
    num_prompt_tokens: int
    sampling_params: SamplingLike | None


ExtraKeys = Callable[[RequestLike, int, int, int], tuple[tuple[object, ...] | None, int]]
"""vLLM's ``generate_block_hash_extra_keys(request, start, end, start_mm_idx)``."""


def salted(own: str | None, resolved: ResolvedOptions) -> str | None:
    """The cache salt of a request, from the caller's own and what steers it.

    Raises:
        InputError: a caller's salt that looks like one of these.
    """
    if own is not None and own.startswith(PREFIX):
        raise InputError(f"cache_salt {own!r} cannot be used; accepted: one that does not begin with {PREFIX!r}")
    if not resolved.steers:
        return own
    parts = [own, resolved.digest, resolved.strength, resolved.scope, resolved.gate]
    return PREFIX + hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def with_own_blocks(generate: ExtraKeys) -> ExtraKeys:
    """The same extra keys with the request's own for blocks that hold positions only it computes so."""

    def generate_block_hash_extra_keys(
        request: RequestLike, start_token_idx: int, end_token_idx: int, start_mm_idx: int
    ) -> tuple[tuple[object, ...] | None, int]:
        keys, next_mm_idx = generate(request, start_token_idx, end_token_idx, start_mm_idx)
        resolved = ResolvedOptions.of(request.sampling_params.extra_args if request.sampling_params else None)
        alone = resolved.steers and resolved.scope != "all"
        if alone and end_token_idx > resolved.first_position(request.num_prompt_tokens):
            keys = (*(keys or ()), ("trimtab_request", request.request_id))
        return keys, next_mm_idx

    return generate_block_hash_extra_keys
