"""Which neurons a gate reads: those whose activation differs most between failures and successes.

Activations of prompts are read as all neurons of a few prompts at a time, or a few neurons of all prompts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import product
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.gate import PromptScope
from trimtab.moments import MAX_STATE_BYTES, layer_blocks

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


SPREAD_BYTES = 8 + 8 + 4 + 4

Layers: TypeAlias = tuple[int, int]
RunBlocks: TypeAlias = Callable[[Callable[[Layers], NDArray[np.float64]], Iterable[Layers]], Iterable[NDArray[np.float64]]]


def choose_by_folds(
    features: NDArray[np.float32] | FeatureRows,
    failed: NDArray[np.bool_],
    n: int,
    fold: NDArray[np.int64],
    kept: Sequence[Sequence[int]],
    *,
    max_bytes: int = MAX_STATE_BYTES,
    at_once: int = 1,
    run_blocks: RunBlocks = map,
) -> list[NDArray[np.int64]]:
    """The n features with the highest F scores on the problems of some folds, for several choices of folds, in one reading.

    Features with F = 0, the constant ones among them, are never chosen, so there can be fewer than n. Ties go by address. Needs
    memory for one part of the rows and for a few numbers of each neuron and fold, however many problems there are.

    Args:
        features: float32 ``[problem, layer, d_ff]``, in memory or on disk.
        failed: bool ``[problem]``.
        n: how many to choose.
        fold: int64 ``[problem]``, the number of each problem's fold.
        kept: the folds of each choice.
        max_bytes: bound on what is kept of a block of layers; one layer is the smallest block.
        at_once: make at least this many blocks of layers, where there are as many layers.
        run_blocks: applies a function to the blocks and keeps their order, such as an executor's ``map``.

    Returns:
        flat addresses ``layer * d_ff + index`` of each choice, sorted.

    Raises:
        InputError: n is not positive, lengths differ, or a feature is NaN or infinite.
        NotEnoughDataError: a class is empty, there are fewer than three problems, or no feature differs between the classes.
    """
    if n < 1:
        raise InputError(f"a gate needs at least one feature, got n_features = {n}")
    rows = as_rows(features)
    _check(rows, failed, fold, kept)
    score = partial(f_scores_of, rows, failed, fold, kept)
    _, n_layers, d_ff = rows.shape
    layer_bytes = d_ff * (2 * len(np.unique(fold)) * SPREAD_BYTES + 8 * len(kept))
    blocks = run_blocks(score, layer_blocks(n_layers, layer_bytes, max_bytes, at_once))
    return [_best(scores.ravel(), n) for scores in np.concatenate(list(blocks), axis=1)]


def _best(scores: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    best = np.argsort(-scores, kind="stable")[:n]
    chosen = np.sort(best[scores[best] > 0])
    if not len(chosen):
        raise NotEnoughDataError("no feature differs between failed and solved problems; check the recording, or add problems")
    return chosen.astype(np.int64)


class _Spread(NamedTuple):
    """Mean, summed squared deviation and range of some rows, ``[d_ff]`` each, :data:`SPREAD_BYTES` a neuron."""

    n: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    @classmethod
    def of(cls, rows: NDArray[np.float32]) -> Self:
        """Of ``[row, d_ff]``, in two passes."""
        values = rows.astype(np.float64)
        mean = values.mean(axis=0)
        return cls(len(rows), mean, ((values - mean) ** 2).sum(axis=0), rows.min(axis=0), rows.max(axis=0))

    def merged(self, other: "_Spread") -> "_Spread":
        """Of both."""
        n, apart = self.n + other.n, other.mean - self.mean
        mean = self.mean + apart * other.n / n
        squares = self.squares + other.squares + apart**2 * (self.n * other.n / n)
        return _Spread(n, mean, squares, np.minimum(self.low, other.low), np.maximum(self.high, other.high))


_Group: TypeAlias = tuple[int, bool]
"""Number of a fold, and whether its problems failed."""


def f_scores_of(
    rows: FeatureRows, failed: NDArray[np.bool_], fold: NDArray[np.int64], kept: Sequence[Sequence[int]], layers: Layers
) -> NDArray[np.float64]:
    """One-way ANOVA F score of each feature against the failure label, ``[choice, layer, d_ff]`` of a block of layers.

    ``F = between / (within / (n - 2))`` with ``between = sum_c n_c (mean_c - mean)^2`` and
    ``within = sum_i (x_i - mean_c(i))^2``, in float64 and from deviations, merged over parts as Chan, Golub and LeVeque
    (1979) do: scikit-learn's ``f_classif`` subtracts sums of squares, which cancels for features with a large mean. A constant
    feature has F = 0; one that separates the classes without any spread within them has F = infinity.

    Raises:
        InputError: NaN or infinite features.
    """
    first, last = layers
    spreads: list[dict[_Group, _Spread]] = [{} for _ in range(first, last)]
    groups = list(product(np.unique(fold).tolist(), (True, False)))
    for numbers, values in rows.stream(slice(first, last)):
        if not np.isfinite(values).all():
            layer = first + np.flatnonzero(~np.isfinite(values).all(axis=(0, 2)))[0]
            raise InputError(f"features of layer {layer} hold NaN or infinity; record them again in float32 or bfloat16")
        inside = {group: np.flatnonzero((fold[numbers] == group[0]) & (failed[numbers] == group[1])) for group in groups}
        for layer, by_group in enumerate(spreads):
            for group, own in inside.items():
                if len(own):
                    new = _Spread.of(values[own, layer])
                    by_group[group] = by_group[group].merged(new) if group in by_group else new
    return np.stack([np.stack([_f_of_groups(by_group, folds) for by_group in spreads]) for folds in kept])


def _f_of_groups(by_group: Mapping[_Group, _Spread], folds: Sequence[int]) -> NDArray[np.float64]:
    classes = [reduce(_Spread.merged, [by_group[k, label] for k in folds if (k, label) in by_group]) for label in (True, False)]
    both = reduce(_Spread.merged, classes)
    between = sum((one.n * (one.mean - both.mean) ** 2 for one in classes), start=np.zeros_like(both.mean))
    within = sum((one.squares for one in classes), start=np.zeros_like(both.mean))
    scores = np.divide(between * (both.n - 2), within, out=np.full_like(within, np.inf), where=within > 0)
    return np.where(both.high > both.low, scores, 0.0)


def _check(rows: FeatureRows, failed: NDArray[np.bool_], fold: NDArray[np.int64], kept: Sequence[Sequence[int]]) -> None:
    if not rows.shape[1]:
        raise InputError("these features have no layer: nothing was recorded; record the prompts first")
    if rows.shape[0] != len(failed):
        raise InputError(
            f"need features [problem, layer, d_ff] and {len(failed)} problems to match, got shape {list(rows.shape)}"
        )
    for folds in kept:
        own = failed[np.isin(fold, folds)]
        n, n_failed = len(own), int(own.sum())
        if not 0 < n_failed < n or n < 3:
            raise NotEnoughDataError(
                f"an F score needs both classes and three problems, got {n_failed} failed of {n}; add problems"
            )
