"""Activations of prompts that a gate may read: all neurons of a few prompts at a time, or a few neurons of all prompts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.gate import PromptScope

if TYPE_CHECKING:
    from trimtab.recording import Recording  # torch, which fitting a gate needs nowhere

Block: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Row numbers, and their activations ``[row, layer, d_ff]``."""


class FeatureRows(Protocol):
    """Activations ``[problem, layer, d_ff]`` that need not fit into memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``[problem, layer, d_ff]``."""
        ...

    def stream(self, layers: slice = slice(None)) -> Iterator[Block]:
        """Some rows at a time, each of them once; only these layers."""
        ...


@dataclass(frozen=True, slots=True)
class ArrayRows:
    """An array in memory, as one block."""

    values: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        """``[problem, layer, d_ff]``."""
        return self.values.shape

    def stream(self, layers: slice = slice(None)) -> Iterator[Block]:
        """Everything at once."""
        yield np.arange(len(self.values)), self.values[:, layers]


@dataclass(frozen=True, slots=True)
class RecordedRows:
    """Mean activations over a scope of recorded prompts, a part at a time from disk.

    Args:
        recording: of the prompts.
        scope: one that was recorded.
        order: ids of the prompts, row by row; others of the recording are left out.
    """

    recording: "Recording"
    scope: PromptScope
    order: Sequence[str]

    @property
    def shape(self) -> tuple[int, ...]:
        """``[problem, layer, d_ff]``."""
        recorded = self.recording.shape(self.scope)
        return len(self.order), recorded.n_layers, recorded.d_ff

    def stream(self, layers: slice = slice(None)) -> Iterator[Block]:
        """A part at a time. Raises InputError for a prompt that is named twice or was not recorded, and as the recording does."""
        number = {name: row for row, name in enumerate(self.order)}
        if len(number) < len(self.order):
            raise InputError(f"{len(self.order)} rows name {len(number)} different prompts; give each once")
        for ids, moments in self.recording.stream(self.scope, ("sum",), layers):
            inside = [i for i, name in enumerate(ids) if name in number]
            if inside:
                rows = np.array([number.pop(ids[i]) for i in inside])
                yield rows, moments.take(inside).mean_of_all_tokens()
        if number:
            raise InputError(
                f"{len(number)} prompts are not in {self.recording.folder}, such as {next(iter(number))}; record them"
            )


def as_rows(features: NDArray[np.float32] | FeatureRows) -> FeatureRows:
    """An array as rows; rows as they are. Raises InputError unless there are three axes."""
    rows = ArrayRows(features) if isinstance(features, np.ndarray) else features
    if len(rows.shape) != 3:
        raise InputError(f"need features [problem, layer, d_ff], got shape {list(rows.shape)}")
    return rows


def columns(rows: FeatureRows, layer: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.float32]:
    """Some neurons of every prompt, float32 ``[problem, feature]``."""
    found = np.empty((rows.shape[0], len(layer)), np.float32)
    for numbers, values in rows.stream():
        found[numbers] = values[:, layer, index]
    return found
