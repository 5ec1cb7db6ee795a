"""One forward of the decoder stack: prefill or decode, the positions in scope, and the gate read in the prefill."""

import inspect
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from transformers import Cache

from trimtab.errors import ModelError
from trimtab.gate import AttentionGate, Gate, PromptGate
from trimtab.model.adapters import CACHES
from trimtab.model.plan import FeaturePlan
from trimtab.steering import PositionScope


class Forward(NamedTuple):
    """One call of the decoder stack.

    Args:
        past: tokens already in the cache; 0 makes it a prefill.
        cached: whether a later forward can go on from this one's cache.
        mask: the attention mask as it was given: None, ``[batch, past + seq]``, a prepared ``[batch, 1, seq, key]``, or several.
        ids: int64 ``[batch, seq]``, None where embeddings were given.
        holds_cache: whether the caller gave a cache, as every loop that generates does and a plain forward does not.
    """

    batch: int
    length: int
    past: int
    cached: bool
    mask: object
    device: torch.device
    ids: Tensor | None = None
    holds_cache: bool = False


class Positions(NamedTuple):
    """Where a forward is steered and where its gate reads.

    Args:
        steered: bool ``[batch, seq]``, None when no position is in scope.
        prompt_end: int64 ``[batch]``, column of the last prompt token; None in a decode forward.
    """

    steered: Tensor | None
    prompt_end: Tensor | None


class ForwardReader:
    """Reads the arguments of a decoder stack's forward, positional or by name."""

    def __init__(self, base: nn.Module) -> None:
        self._signature = inspect.signature(base.forward)
        config = base.config.get_text_config()  # type: ignore[union-attr]
        self._caches_by_default = bool(getattr(config, "use_cache", False))  # newer configurations leave it to generate

    def arguments(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Every argument by its name."""
        bound = self._signature.bind_partial(*args, **kwargs).arguments
        return {**{name: value for name, value in bound.items() if name != "kwargs"}, **bound.get("kwargs", {})}

    def without_cache(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """The same, for a forward that neither reads a cache nor fills one."""
        given = self.arguments(args, kwargs)
        return {name: value for name, value in given.items() if not isinstance(value, Cache)} | {"use_cache": False}

    def read(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Forward:
        """Batch size, length, past and mask of a call.

        Raises:
            ModelError: packed sequences, no tokens, or a cache that cannot say how much it holds.
        """
        given = self.arguments(args, kwargs)
        if given.get("cu_seq_lens_q") is not None:
            raise ModelError("several sequences packed into one row (continuous batching) cannot be steered; give a padded batch")
        ids = given.get("input_ids")
        tokens = given.get("inputs_embeds") if ids is None else ids
        if not isinstance(tokens, Tensor):
            raise ModelError("a steered forward needs input_ids or inputs_embeds as a tensor")
        for name in CACHES:
            if not isinstance(given.get(name), Cache | None):
                raise ModelError(f"{name} is a {type(given[name]).__name__}; give a transformers Cache, whose length can be read")
        # by what it is: under a name that is not known here, a cache would make each token look like a prompt
        cache = next((value for value in given.values() if isinstance(value, Cache)), None)
        use_cache = given.get("use_cache")
        return Forward(
            batch=tokens.shape[0],
            length=tokens.shape[1],
            past=0 if cache is None else int(cache.get_seq_length()),
            cached=cache is not None or bool(self._caches_by_default if use_cache is None else use_cache),
            mask=given.get("attention_mask"),
            device=tokens.device,
            ids=ids if isinstance(ids, Tensor) else None,
            holds_cache=cache is not None,
        )


def place(forward: Forward, scope: PositionScope, prompt_lengths: Tensor | None, generating: bool = False) -> Positions:
    """Which positions of a forward without past are steered.

    With prompt lengths, a forward without past may hold generated tokens too (scoring a response): a position's number is
    counted over the attention mask, so rows may be padded on either side.

    Args:
        prompt_lengths: int64 ``[batch]``, prompt tokens per row without padding; None when a prefill holds prompts only.
        generating: whether it is the first forward of ``generate``, which holds prompts only even without a cache.

    Raises:
        ModelError: a forward whose positions cannot be told apart, with the fix.
    """
    if prompt_lengths is not None:
        return _place_known(forward, scope, prompt_lengths)
    if scope == "all":
        return Positions(every_position(forward), None)
    if not (forward.cached or generating):
        raise ModelError(
            f"without a cache one forward holds prompt and generated tokens, so scope {scope!r} needs to know where each prompt "
            "ends: attach with prompt_lengths, or use the cache (use_cache=True)",
            code="prompt-lengths",
        )
    if not bool(attended(forward)[:, -1].all()):
        raise ModelError(
            "the last column of a prefill is padding in some row, so the last prompt token is not where generation starts: "
            'tokenize with padding_side="left", or attach with prompt_lengths',
            code="padded-right",
        )
    prompt_end = torch.full((forward.batch,), forward.length - 1, device=forward.device)
    return Positions(column_of(forward, prompt_end) if scope == "last-and-generated" else None, prompt_end)


def prompt_positions(forward: Forward, prompt_lengths: Tensor | None) -> Tensor:
    """Which positions of a prefill hold a token of the prompt, bool ``[batch, seq]``; padding on either side holds none.

    Args:
        prompt_lengths: int64 ``[batch]``, prompt tokens per row without padding; None when the prefill holds prompts only.

    Raises:
        ModelError: an attention mask that does not show which positions are padding.
    """
    if prompt_lengths is None:
        return attended(forward)
    real = _real_tokens(forward)
    return real & (real.cumsum(1) <= prompt_lengths.to(forward.device).unsqueeze(1) - forward.past)


def _place_known(forward: Forward, scope: PositionScope, prompt_lengths: Tensor) -> Positions:
    if prompt_lengths.shape != (forward.batch,):
        raise ModelError(
            f"{len(prompt_lengths)} prompt lengths for a forward of {forward.batch} rows; give one per row "
            "(beams and several return sequences repeat each prompt: prompt_lengths.repeat_interleave(n))",
            code="prompt-lengths",
        )
    real = _real_tokens(forward)
    lengths = prompt_lengths.to(forward.device).unsqueeze(1) - forward.past  # a beginning that is cached has no padding
    number = real.cumsum(1) - 1
    if bool(((lengths < 1) | (lengths > real.sum(1, keepdim=True))).any()):
        raise ModelError(
            f"prompt lengths {prompt_lengths.tolist()} for rows of {real.sum(1).tolist()} tokens; "
            "each must lie between 1 and the row's number of tokens without padding",
            code="prompt-lengths",
        )
    prompt_end = (real & (number == lengths - 1)).int().argmax(1)
    if scope == "all":
        return Positions(every_position(forward), prompt_end)
    steered = real & (number >= lengths)
    if scope == "last-and-generated":
        steered = steered | column_of(forward, prompt_end)
    return Positions(steered if bool(steered.any()) else None, prompt_end)


def every_position(forward: Forward) -> Tensor:
    """Bool ``[batch, seq]``, all True."""
    return torch.ones(forward.batch, forward.length, dtype=torch.bool, device=forward.device)


def column_of(forward: Forward, column: Tensor) -> Tensor:
    """Bool ``[batch, seq]``, True at one column per row."""
    return torch.arange(forward.length, device=forward.device) == column.unsqueeze(1)


def _real_tokens(forward: Forward) -> Tensor:
    mask = forward.mask
    if mask is None:
        return every_position(forward)
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        raise ModelError(
            "prompt_lengths need the plain attention mask [batch, seq] (or none), and a prepared one was given, as a static "
            "cache does; use the default cache, or leave prompt_lengths out"
        )
    return mask[:, -forward.length :].to(forward.device).bool()


def attended(forward: Forward) -> Tensor:
    """Which positions attend to themselves, as all but padding does, bool ``[batch, seq]``, from a plain or a prepared mask."""
    mask = forward.mask
    if isinstance(mask, Mapping):
        prepared = [attended(forward._replace(mask=entry)) for entry in mask.values() if entry is not None]
        return torch.stack([every_position(forward), *prepared]).all(0)
    if mask is None:
        return every_position(forward)
    if not isinstance(mask, Tensor) or mask.dim() not in (2, 4):
        raise ModelError(
            f"cannot read an attention mask of type {type(mask).__name__}, so the end of the prompt is unknown; "
            'open the model with attn_implementation="sdpa", or attach with prompt_lengths'
        )
    if mask.dim() == 2:
        own = mask[:, -forward.length :]
    else:
        own = mask[:, 0].diagonal(offset=forward.past, dim1=1, dim2=2)[:, : forward.length]
    seen = own if own.dtype == torch.bool else own > 0 if mask.dim() == 2 else own == 0
    return seen.to(forward.device).expand(forward.batch, -1)


class GateReading(Protocol):
    """A gate's reading of one prefill."""

    def add(self, features: FeaturePlan, activation: Tensor) -> None:
        """Take in one layer's ``[batch, seq, d_ff]``."""

    def logit(self) -> Tensor:
        """The logit of p(fail), float32 ``[batch]``, once every layer was taken in."""
        ...


def begin_reading(
    gate: PromptGate,
    forward: Forward,
    positions: Positions,
    prompt_lengths: Tensor | None,
    beginning: GateReading | None = None,
) -> GateReading:
    """Begin to read a prefill.

    Args:
        positions: of the forward; the last prompt token is where the default gate reads.
        prompt_lengths: int64 ``[batch]``, None when the prefill holds prompts only.
        beginning: this gate's reading of one row that all prompts begin with, where an earlier forward read it.

    Raises:
        ModelError: an attention mask that does not show which positions are padding.
    """
    if isinstance(gate, AttentionGate):
        assert beginning is None or isinstance(beginning, _Attention)
        return _Attention(gate, prompt_positions(forward, prompt_lengths), beginning)
    if gate.pooling == "mean":
        assert beginning is None or isinstance(beginning, _Mean)
        return _Mean(gate, prompt_positions(forward, prompt_lengths), beginning)
    assert positions.prompt_end is not None
    return _LastToken(gate, positions.prompt_end)


class _LastToken:
    """``w . a`` of the last prompt token."""

    def __init__(self, gate: Gate, position: Tensor) -> None:
        self._gate, self._position = gate, position
        self._score = torch.zeros(len(position), device=position.device)

    def add(self, features: FeaturePlan, activation: Tensor) -> None:
        self._score = self._score + features.score(activation, self._position).to(self._score.device)

    def logit(self) -> Tensor:
        return self._score + self._gate.bias


class _Mean:
    """``w . mean_t a_t`` over the prompt's tokens, which is the mean of ``w . a_t``."""

    def __init__(self, gate: Gate, prompt: Tensor, beginning: "_Mean | None" = None) -> None:
        self._gate, self._prompt, self._beginning = gate, prompt, beginning
        self._scores = torch.zeros(prompt.shape, device=prompt.device)

    def add(self, features: FeaturePlan, activation: Tensor) -> None:
        self._scores = self._scores + features.scores(features.values(activation)).to(self._scores.device)

    def logit(self) -> Tensor:
        total, tokens = self._sums()
        if self._beginning is not None:
            earlier, more = self._beginning._sums()
            total, tokens = total + earlier, tokens + more
        return total / tokens + self._gate.bias

    def _sums(self) -> tuple[Tensor, Tensor]:
        # what stands at padding may be anything, NaN too, so it is taken out rather than multiplied by 0
        return self._scores.where(self._prompt, 0.0).sum(1), self._prompt.sum(1)


class _Attention:
    """Attention pooling: a token's weight needs every layer's part of its score, so the features are kept until then."""

    def __init__(self, gate: AttentionGate, prompt: Tensor, beginning: "_Attention | None" = None) -> None:
        self._gate, self._prompt, self._beginning = gate, prompt, beginning
        self._scores = torch.zeros(prompt.shape, device=prompt.device)
        self._kept: list[tuple[Tensor, Tensor]] = []

    def add(self, features: FeaturePlan, activation: Tensor) -> None:
        values = features.values(activation)
        self._scores = self._scores + features.scores(values).to(self._scores.device)
        self._kept.append((features.column, values))

    def logit(self) -> Tensor:
        gate, device = self._gate, self._prompt.device
        prompt, raw, kept = self._prompt, self._scores, self._kept
        if self._beginning is not None:
            prompt, raw, kept = self._joined(self._beginning)
        weight = torch.softmax(torch.tanh(raw + gate.query_bias).masked_fill(~prompt, -torch.inf), dim=1)
        pooled = torch.empty(len(weight), len(gate.layer), device=device)
        for column, values in kept:
            real = values.to(device).masked_fill(~prompt.unsqueeze(-1), 0.0)
            pooled[:, column.to(device)] = torch.bmm(weight.unsqueeze(1), real).squeeze(1)
        hidden, offset, output = (torch.tensor(array, device=device) for array in (gate.hidden, gate.offset, gate.output))
        return torch.relu(pooled @ hidden.T + offset) @ output + gate.bias

    def _joined(self, beginning: "_Attention") -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """Prompt, scores and features with the one row of the beginning before every row."""

        def join(first: Tensor, rest: Tensor) -> Tensor:
            return torch.cat((first.expand(len(rest), *first.shape[1:]), rest), 1)

        pairs = zip(beginning._kept, self._kept, strict=True)
        kept = [(column, join(first, rest)) for (_, first), (column, rest) in pairs]
        return join(beginning._prompt, self._prompt), join(beginning._scores, self._scores), kept
