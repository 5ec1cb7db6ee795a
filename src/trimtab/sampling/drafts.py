"""Greedy responses of the bare model as drafts of steered ones: only what departs from them is written token by token.

Most responses of most conditions are the bare model's, up to somewhere. One forward under the steering reads many tokens of a
draft and says what would be chosen after each of them; up to the first that is another one, the draft is the steered response.
This is speculative decoding (arXiv 2211.17192) with a draft that costs nothing.

The promise is the plain decode. Reading many tokens at once adds in another order, so a token counts as settled only where the
two best logits differ by more than rounding can make (``NEAR_TIE``); any other is decided by a plain step.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from trimtab.model import LanguageModel
from trimtab.sampling.batch import NOTHING, Followers, Request, Rows, drop_finished, end_tokens, forward
from trimtab.sampling.decoding import NEAR_TIE, SamplingSettings, sees_everything
from trimtab.sampling.ways import drafts_hold

FIRST_BLOCK, BLOCK = 4, 16
"""Tokens of a draft that the first forward reads; each reads twice as many as the one before, up to the second number."""
LOGITS = 2**26
"""Logits that a forward may give, 256 MiB of float32: a large vocabulary makes the blocks shorter."""
ROOM = 2
"""Columns of the cache for each token of a response: a row that departs from its draft leaves the draft's columns behind."""
DEPARTED_SHARE = 0.1
"""Once this share of the batch has departed, all rows are written token by token from where they are."""


def draft_ids(
    model: LanguageModel, requests: Sequence[Request], drafts: Mapping[str, Sequence[int]], settings: SamplingSettings
) -> Tensor | None:
    """The drafts, int64 ``[request, token]``, each cut at its end and at the limit; None where they would not pay or not hold.

    They hold where :func:`trimtab.sampling.ways.drafts_hold`, every request has one, and no window is narrower than all columns.
    """
    if not all(drafts.get(request.id) for request in requests) or _most(model, len(requests)) < FIRST_BLOCK:
        return None
    columns = max(len(request.prompt_ids) for request in requests) + ROOM * settings.max_new_tokens
    if not sees_everything(model.hf_model.config, columns) or not drafts_hold(model):
        return None
    ends = set(end_tokens(model, settings.stop))
    ids = torch.full((len(requests), settings.max_new_tokens), NOTHING)
    for row, request in enumerate(requests):
        draft = list(drafts[request.id][: settings.max_new_tokens])
        length = next((i + 1 for i, token in enumerate(draft) if token in ends), len(draft))
        ids[row, :length] = torch.tensor(draft[:length])
    return ids.to(model.device)


def _most(model: LanguageModel, rows: int) -> int:
    """Tokens that one forward may read of each row."""
    return min(BLOCK, LOGITS // (rows * model.identity.vocab_size))


def follow_drafts(
    model: LanguageModel,
    rows: Rows,
    cache: DynamicCache,
    logits: Tensor,
    drafts: Tensor,
    output: Tensor,
    ends: Tensor,
    followers: Followers,
) -> Tensor:
    """Write each response as far as it is its draft.

    Rows that the gate leaves alone are finished: they are the bare model's. Afterwards the rows are those whose responses have
    not ended, with the columns of the cache that any of them uses.

    Args:
        model: the model.
        rows: of all requests, whose prompts were read.
        cache: of the prompts, with room for the drafts and for what is written after them.
        logits: of the first tokens, ``[row, vocabulary]``.
        drafts: of :func:`draft_ids`.
        output: int64 ``[request, token]``, filled in.
        ends: ids that end a response.
        followers: with an attachment.

    Returns:
        Logits of the next token of each remaining row.
    """
    if logits[:, 0].isnan().any():
        return logits
    following = _begin(rows, logits, drafts, output, ends, followers)
    lengths, block = (drafts != NOTHING).sum(1), FIRST_BLOCK
    while True:
        finished = int(rows.finished.sum())
        kept = drop_finished(rows, cache, followers, finished)
        if kept is not None:
            following, finished = following[kept], 0
        departed = len(rows) - finished - int(following.sum())
        if not following.any() or departed > DEPARTED_SHARE * (len(rows) - finished):
            break
        asked = drafts[rows.origin], lengths[rows.origin]
        following = _read_block(
            model, rows, cache, *asked, following, min(block, _most(model, len(rows))), output, ends, followers
        )
        block *= 2
    if not len(rows):
        return logits[:0]
    used = rows.width + int(rows.made[~rows.finished].max()) - 1
    if used < rows.filled:
        cache.crop(used - rows.filled)
    rows.filled = used
    rows.mask[:, used:] = 0
    rows.read(output[rows.origin, rows.made - 1, None])
    return forward(model, rows, cache)[:, -1]


def _begin(rows: Rows, logits: Tensor, drafts: Tensor, output: Tensor, ends: Tensor, followers: Followers) -> Tensor:
    """Write the first tokens, which the prompts' forward has given, and whole responses where nothing is steered.

    Returns:
        bool ``[row]``, which rows are their drafts so far and not finished.
    """
    limit, lengths = drafts.shape[1], (drafts != NOTHING).sum(1)
    first = logits.argmax(-1)
    output[:, 0] = first
    rows.made += 1
    rows.finished |= torch.isin(first, ends) | (rows.made == limit)
    attachment = followers.attachment
    if attachment is not None and attachment.coefficient is not None:
        last = drafts.gather(1, lengths[:, None] - 1).squeeze(1)
        idle = (attachment.coefficient == 0.0) & (torch.isin(last, ends) | (lengths == limit))
        output[:, :limit] = torch.where(idle[:, None], drafts, output[:, :limit])
        rows.made = torch.where(idle, lengths, rows.made)
        rows.finished |= idle
    return (first == drafts[:, 0]) & (lengths > 1) & ~rows.finished


def _read_block(
    model: LanguageModel,
    rows: Rows,
    cache: DynamicCache,
    drafts: Tensor,
    lengths: Tensor,
    following: Tensor,
    block: int,
    output: Tensor,
    ends: Tensor,
    followers: Followers,
) -> Tensor:
    """Read a block of the drafts of the rows that follow theirs, ``drafts`` and ``lengths`` by row; see :func:`_begin`."""
    assert followers.attachment is not None
    made = int(rows.made[following][0])  # the same in all of them
    tokens = min(block, int(lengths[following].max()) - made)
    column, start = torch.arange(tokens, device=drafts.device), rows.filled
    real = following[:, None] & (made + column < lengths[:, None])
    rows.read(drafts[:, made - 1 : made - 1 + tokens].clamp(min=0), real)
    followers.attachment.expect_generated()
    best = forward(model, rows, cache, tokens).topk(2)
    asked = drafts[:, made : made + tokens]
    settled = (best.indices[..., 0] == asked) & (best.values[..., 0] - best.values[..., 1] >= NEAR_TIE)
    accepted = settled.int().cumprod(1).sum(1) * following
    taken = column < accepted[:, None]
    output[rows.origin, made : made + tokens] = torch.where(taken, asked, output[rows.origin, made : made + tokens])
    rows.mask[:, start : rows.filled] = real & taken  # so the last token that was made is read again, in a step of its own
    rows.made += accepted
    last = output[rows.origin, rows.made - 1]
    rows.finished |= following & (torch.isin(last, ends) | (rows.made == output.shape[1] - 1))
    return following & (accepted == tokens) & (rows.made < lengths) & ~rows.finished
