"""Reading a recording back, part by part."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.moments import MOMENTS, Moments, TokenScope
from trimtab.store import AnyPath, Parts, TensorSlice, open_tensors

if TYPE_CHECKING:
    import pandas

INDEX = "index.parquet"


class RecordedShape(NamedTuple):
    """Sizes of a recording: ``n_experts`` of a layer stand side by side in ``d_ff``, 1 for a dense model."""

    n_layers: int
    d_ff: int
    n_experts: int


class Recording:
    """Moments on disk. Iterating streams one part at a time, in the order of the plan."""

    def __init__(self, folder: AnyPath) -> None:
        self.folder = folder
        self._parts = Parts(folder, ".safetensors")

    @property
    def scopes(self) -> tuple[str, ...]:
        """The token scopes that were recorded."""
        return tuple(self._parts.plan.settings["recording"]["scopes"])  # type: ignore[index]

    def __len__(self) -> int:
        return sum(map(len, self._parts.plan.parts))

    def __repr__(self) -> str:
        layers, d_ff, experts = self.shape(self.scopes[0])  # type: ignore[arg-type]
        width = f"{d_ff} neurons" if experts == 1 else f"{experts} experts of {d_ff // experts} neurons"
        return f"recording of {len(self):,} traces, {layers} layers of {width}, scopes {', '.join(self.scopes)}"

    def to_pandas(self) -> "pandas.DataFrame":
        """One row a trace: its id, and the part and the row in it that hold its moments."""
        import pandas

        rows = [(name, part, row) for part, ids in enumerate(self._parts.plan.parts) for row, name in enumerate(ids)]
        return pandas.DataFrame(rows, columns=["trace_id", "part", "row"])

    def stream(
        self, scope: TokenScope, moments: Collection[str] = MOMENTS, layers: slice = slice(None)
    ) -> Iterator[tuple[tuple[str, ...], Moments]]:
        """Yield (trace ids, moments) of every part. Only what is asked for is read from disk.

        Args:
            scope: one of those that were recorded.
            moments: of ``sum``, ``magnitude``, ``square``; one that was not recorded stays None.
            layers: which layers.

        Raises:
            InputError: the scope was not recorded.
            StoreError: a part is missing or truncated.
        """
        for part, ids in enumerate(self._parts.plan.parts):
            with self._opened(part, scope) as tensors:
                arrays = {name: tensors[name][:, layers] for name in MOMENTS if name in moments and name in tensors}
                if "tokens" in tensors:
                    found = Moments(tensors["count"][:, layers], **arrays, tokens=tensors["tokens"][:])
                else:
                    found = Moments(tensors["count"][:], **arrays)
            yield ids, found

    def shape(self, scope: TokenScope) -> RecordedShape:
        """Sizes of its moments; all 0 for a recording of no trace. Raises as :meth:`stream`."""
        if not self._parts.plan.parts:
            return RecordedShape(0, 0, 0)
        with self._opened(0, scope) as tensors:
            _, n_layers, d_ff = next(tensors[name].get_shape() for name in MOMENTS if name in tensors)
            return RecordedShape(n_layers, d_ff, tensors["count"].get_shape()[2] if "tokens" in tensors else 1)

    def means(self, scope: TokenScope, order: Sequence[str]) -> NDArray[np.float32]:
        """Mean activations over the tokens of a scope, float32 ``[trace, layer, d_ff]``, in the given order of ids.

        As a gate reads them: a token counts as 0 in experts that it is not routed to.
        """
        rows: dict[str, NDArray[np.float32]] = {}
        for ids, moments in self.stream(scope, ("sum",)):
            rows.update(zip(ids, moments.mean_of_all_tokens(), strict=True))
        return np.stack([rows[name] for name in order])

    @contextmanager
    def _opened(self, part: int, scope: TokenScope) -> Iterator[Mapping[str, TensorSlice]]:
        """The tensors of one scope in a part: ``count``, the moments, and for experts ``tokens``."""
        with open_tensors(self._parts.path(part)) as tensors:
            own = {name.removeprefix(f"{scope}."): tensor for name, tensor in tensors.items() if name.startswith(f"{scope}.")}
            if not own:
                scopes = sorted({name.partition(".")[0] for name in tensors})
                raise InputError(f"{self.folder} holds the scopes {', '.join(scopes)}, not {scope!r}; record again with it")
            yield own
