"""A batch of sequences while it is generated: which they are, their tokens, mask and positions, and how a response ends."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from trimtab.errors import InputError, ModelError
from trimtab.model import Attachment, LanguageModel
from trimtab.sampling.decoding import keep_rows
from trimtab.sampling.recorder import Recorder

DROP_SHARE = 0.1
"""Finished rows are dropped once they are this share of the batch: each drop copies the cache."""
NOTHING = -1
"""Where a response has no token."""

_stops: WeakKeyDictionary[nn.Module, dict[str, tuple[int, ...]]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Request:
    """One sequence to generate. ``seed`` is its own (see :func:`trimtab.sampling.decoding.row_seed`)."""

    id: str
    prompt_ids: tuple[int, ...]
    seed: int = 0


class Rows:
    """The sequences that are still being generated.

    Attributes:
        origin: int64 ``[row]``, the number of its request.
        input_ids: int64 ``[row, token]``, what the next forward reads.
        positions: int64 ``[row, token]``, theirs.
        mask: int64 ``[row, column]``, 1 where a column of the cache holds a token of the row.
        filled: columns so far, those of the next forward included.
        made: int64 ``[row]``, tokens of the response so far; the last of them is not in the cache yet.
        finished: bool ``[row]``.
    """

    def __init__(self, requests: Sequence[Request], model: LanguageModel, room: int, shared: int = 0) -> None:
        """Left-padded prompts, with room for more columns.

        The first ``shared`` tokens, which are the same in all prompts, come before the padding: they are in the cache already,
        and the next forward reads the rest.
        """
        pad, device = cast("int", model.tokenizer.pad_token_id), model.device
        self.width = self.filled = max(len(request.prompt_ids) for request in requests)
        self.origin = torch.arange(len(requests), device=device)
        self.input_ids = torch.full((len(requests), self.width), pad, device=device)
        self.mask = torch.zeros((len(requests), self.width + room), dtype=torch.long, device=device)
        for row, request in enumerate(requests):
            start = self.width - len(request.prompt_ids) + shared
            self.input_ids[row, start:] = torch.tensor(request.prompt_ids[shared:], device=device)
            self.mask[row, start : self.width] = 1
        self.mask[:, :shared] = 1
        self.positions = (self.mask[:, : self.width].cumsum(-1) - 1).clamp_(min=0)[:, shared:]
        self.input_ids = self.input_ids[:, shared:]
        self.seeds = torch.tensor([request.seed for request in requests], device=device)
        self.lengths = torch.tensor([len(request.prompt_ids) for request in requests], device=device)
        self.made = torch.zeros(len(requests), dtype=torch.long, device=device)
        self.finished = torch.zeros(len(requests), dtype=torch.bool, device=device)

    def __len__(self) -> int:
        return len(self.origin)

    def read(self, ids: Tensor, real: Tensor | None = None) -> None:
        """The next forward reads these tokens, ``[row, token]``, the last one made first; ``real`` says which are no padding."""
        end = self.filled + ids.shape[1]
        self.mask[:, self.filled : end] = 1 if real is None else real
        self.input_ids = ids
        self.positions = (self.lengths + self.made - 1)[:, None] + torch.arange(ids.shape[1], device=ids.device)
        self.filled = end

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows."""
        for name in ("origin", "input_ids", "mask", "positions", "seeds", "lengths", "made", "finished"):
            setattr(self, name, getattr(self, name)[rows])


def end_tokens(model: LanguageModel, stop: tuple[str, ...] = ()) -> tuple[int, ...]:
    """Ids that end a response: the generation config's, the tokenizer's, and every token whose text contains a text of ``stop``.

    Raises:
        ModelError: the model names no end of a sequence.
        InputError: no token contains a text of ``stop``, which a response could never end with.
    """
    configured = model.hf_model.generation_config.eos_token_id if model.hf_model.generation_config else None
    named = [model.tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])]
    ends = tuple(sorted({i for i in named if isinstance(i, int)}))
    if not ends:
        raise ModelError(f"{model.identity.name} names no end-of-sequence token; set eos_token_id in its generation_config.json")
    return tuple(sorted({*ends, *(i for text in stop for i in _containing(model, text))}))


def _containing(model: LanguageModel, text: str) -> tuple[int, ...]:
    known = _stops.setdefault(model.hf_model, {})
    if text not in known:
        words = model.tokenizer.batch_decode([[i] for i in range(len(model.tokenizer))])
        known[text] = tuple(i for i, word in enumerate(words) if text and text in word)
    if not known[text]:
        raise InputError(f"sampling.stop has {text!r}, which no single token contains; give a shorter text, such as a line break")
    return known[text]


def forward(model: LanguageModel, rows: Rows, cache: DynamicCache, tokens: int = 1) -> Tensor:
    """Logits after each of the last tokens that it reads, ``[row, token, vocabulary]``."""
    return model.hf_model(
        input_ids=rows.input_ids,
        attention_mask=rows.mask[:, : rows.filled],
        position_ids=rows.positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=tokens,
    ).logits[:, -tokens:]


def numbers(mask: Tensor) -> Tensor:
    """Where a mask is true."""
    return mask.nonzero().squeeze(-1)


class Followers(NamedTuple):
    """What looks at every forward and has to know its rows."""

    attachment: Attachment | None
    recorder: Recorder | None

    @property
    def need_prompts(self) -> bool:
        """Whether the forward that reads the prompts has to run under them."""
        return self.recorder is not None or (self.attachment is not None and self.attachment.reads_prompts)

    @property
    def need_whole_prompts(self) -> bool:
        """Whether one forward has to read every token of the prompts."""
        return any(follower is not None and follower.needs_whole_prompts for follower in self)

    def reading_beginning(self) -> AbstractContextManager[None]:
        """The forward within reads what all prompts begin with; a recorder that has not begun reads nothing."""
        return nullcontext() if self.attachment is None else self.attachment.reading_beginning()

    def select_rows(self, rows: Tensor) -> None:
        if self.attachment is not None and self.attachment.coefficient is not None:
            self.attachment.select_rows(rows)
        if self.recorder is not None:
            self.recorder.select_rows(rows)

    def repeat_rows(self, rows: Tensor) -> None:
        if self.attachment is not None:
            self.attachment.repeat_rows(rows)
        if self.recorder is not None:
            self.recorder.repeat_rows(rows)


def drop_finished(rows: Rows, cache: DynamicCache, followers: Followers, finished: int) -> Tensor | None:
    """Go on without the finished rows, of which there are ``finished``, once they are :data:`DROP_SHARE` of the batch.

    Returns:
        int64, the rows that are kept, or None where all are.
    """
    if finished < DROP_SHARE * len(rows):
        return None
    kept = numbers(~rows.finished)
    rows.keep(kept)
    keep_rows(cache, kept)
    followers.select_rows(kept)
    return kept
