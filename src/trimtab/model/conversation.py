"""The tokens of each row that are in a steering's scope, remembered from one call to the next turn of a conversation.

A conversation goes on either from its cache, in a forward of several tokens on top of cached ones, or by reading all of it again
in a new prefill. Both are recognised, and both steer the same tokens: those that were generated in earlier turns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trimtab.errors import ModelError

_UNKNOWN = -1  # the id of a token that came as an embedding


class Conversation:
    """The columns of one batch so far, each with its token ids, whether they are padding, and whether they are in scope."""

    def __init__(self) -> None:
        self._ids: list[Tensor] = []
        self._real: list[Tensor] = []
        self._scope: list[Tensor] = []
        self._sampled: Tensor | None = None
        self._last_is_real = torch.ones(0, dtype=torch.bool)
        self._known = False

    @property
    def columns(self) -> int:
        """How many columns were forwarded."""
        return sum(part.shape[1] for part in self._ids)

    @property
    def begun(self) -> bool:
        return bool(self._ids)

    def begin(self, ids: Tensor | None, real: Tensor, before: Sequence[int] = ()) -> Tensor | None:
        """Take in a prefill.

        Args:
            ids: int64 ``[batch, seq]``, None for embeddings.
            real: bool ``[batch, seq]``, which of them are no padding.
            before: tokens that every row begins with, which are cached already.

        Returns:
            bool ``[batch, seq]``, what is in scope from earlier turns, if every row repeats the conversation so far and goes on;
            None for a new conversation.
        """
        if before:
            first = torch.tensor(before, device=real.device).expand(len(real), -1)
            real = torch.cat((torch.ones_like(first, dtype=torch.bool), real), 1)
            ids = None if ids is None else torch.cat((first, ids), 1)
        remembered = None if ids is None or not self._known else self._found_again(ids, real)
        self._ids, self._real, self._sampled, self._known = [_copied(ids, real)], [real], None, ids is not None
        self._scope = [torch.zeros_like(real) if remembered is None else remembered]
        return None if remembered is None else remembered[:, len(before) :]

    def mark(self, scope: Tensor) -> None:
        """Say what is in scope of the last columns, those of a forward, bool ``[batch, seq]``."""
        self._scope[-1] = torch.cat((self._scope[-1][:, : -scope.shape[1]], scope), 1)

    def add_generated(self, ids: Tensor | None, like: Tensor) -> None:
        """Take in one more column, of generated tokens; ``like`` is bool ``[batch, 1]`` and all True."""
        self._ids.append(_copied(ids, like))
        self._real.append(like)
        self._scope.append(like)
        self._sampled = None
        self._known = self._known and ids is not None

    def go_on(self, ids: Tensor | None, past: int, like: Tensor) -> Tensor:
        """Take in a further turn on top of ``past`` cached columns.

        Returns:
            bool ``[batch, seq]``: which of its tokens were generated in the turn before, which is at most the first of each row.
        """
        scope = torch.zeros_like(like)
        if ids is not None and self._sampled is not None and past == self.columns:
            scope[:, 0] = ids[:, 0] == self._sampled.to(ids.device)
        elif ids is not None and self._known and past < self.columns:  # the cache was cropped
            before, marks = torch.cat(self._ids, 1), torch.cat(self._scope, 1)
            again = min(ids.shape[1], before.shape[1] - past)
            scope[:, :again] = marks[:, past : past + again] & (before[:, past : past + again] == ids[:, :again])
        self._cut(past)
        self._known = self._known and ids is not None and past == self.columns
        self._ids.append(_copied(ids, like))
        self._real.append(like)
        self._scope.append(scope)
        self._sampled = None
        return scope

    def note_sampled(self, tokens: Tensor) -> None:
        """Say which token of each row was drawn last and is not forwarded yet, int64 ``[batch]``."""
        if not self.begun or len(tokens) != len(self._ids[0]):
            raise ModelError(f"{len(tokens)} sampled tokens for {len(self._ids[0]) if self.begun else 0} rows; give one per row")
        self._sampled, self._last_is_real = tokens.detach().clone(), torch.ones(len(tokens), dtype=torch.bool)

    @property
    def can_go_on(self) -> bool:
        """Whether it is known which token was drawn last."""
        return self._sampled is not None

    def note_generated(self, sequences: Tensor, pad: int | None, ends: Sequence[int]) -> None:
        """Learn from what ``generate`` returned: the last token of each row, and what is padding after a row's end.

        Args:
            sequences: int64 ``[batch, seq]``, one column more than was forwarded.
            pad: the padding's id.
            ends: ids of the tokens that end a response; the padding may be one of them.
        """
        if not self._known:
            return
        ids = torch.cat(self._ids, 1)
        if sequences.shape != (len(ids), ids.shape[1] + 1) or not torch.equal(sequences[:, :-1].to(ids.device), ids):
            self.forget()  # beams, whose rows changed places
            return
        self._sampled, self._last_is_real = sequences[:, -1], torch.ones(len(ids), dtype=torch.bool)
        if pad is None:
            return
        run = (sequences == pad).flip(1).int().cumprod(1).sum(1)  # trailing padding of each row
        run = (run - int(pad in ends)).clamp(min=0)  # the first of the run is then the row's end
        padding = torch.arange(sequences.shape[1], device=run.device) >= sequences.shape[1] - run.unsqueeze(1)
        self._last_is_real = ~padding[:, -1].cpu()
        self._real = [torch.cat(self._real, 1) & ~padding[:, :-1].to(ids.device)]
        self._ids, self._scope = [ids], [torch.cat(self._scope, 1)]

    def select_rows(self, rows: Tensor) -> None:
        """Go on with these rows, int64 ``[kept]``."""
        for parts in (self._ids, self._real, self._scope):
            parts[:] = [part[rows.to(part.device)] for part in parts]
        self._sampled = None

    def scope(self) -> Tensor:
        """All columns so far, bool ``[batch, columns]``."""
        return torch.cat(self._scope, 1)

    def forget(self) -> None:
        """Go on as if nothing was generated here."""
        self._sampled, self._known = None, False

    def _cut(self, columns: int) -> None:
        """Leave the first columns only; with fewer at hand they were read before attaching."""
        if self.columns <= columns:
            return
        for parts in (self._ids, self._real, self._scope):
            parts[:] = [torch.cat(parts, 1)[:, :columns]]

    def _found_again(self, ids: Tensor, real: Tensor) -> Tensor | None:
        if len(ids) != len(self._ids[0]):
            return None
        before, kept, marks = (torch.cat(parts, 1).tolist() for parts in (self._ids, self._real, self._scope))
        sampled = None if self._sampled is None else self._sampled.tolist()
        found = torch.zeros_like(real)
        for row, columns in enumerate(real.tolist()):
            said = [(token, mark) for token, keep, mark in zip(before[row], kept[row], marks[row], strict=True) if keep]
            if sampled is not None and self._last_is_real[row]:
                said.append((sampled[row], True))
            places = [column for column, here in enumerate(columns) if here]
            own = ids[row].tolist()
            if len(said) >= len(places) or any(own[p] != token for p, (token, _) in zip(places, said, strict=False)):
                return None
            for place, (_, mark) in zip(places, said, strict=False):
                found[row, place] = mark
        return found


def _copied(ids: Tensor | None, like: Tensor) -> Tensor:
    # a compiled generation writes its next token into the same memory
    return torch.full(like.shape, _UNKNOWN, device=like.device) if ids is None else ids.detach().clone()
