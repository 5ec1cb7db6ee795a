"""Reading a recording back, part by part."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.moments import MOMENTS, Moments, TokenScope
from trimtab.store import Parts, load_tensors

INDEX = "index.parquet"


class Recording:
    """Moments on disk. Iterating streams one part at a time, in the order of the plan."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts = Parts(folder, ".safetensors")

    def stream(self, scope: TokenScope) -> Iterator[tuple[tuple[str, ...], Moments]]:
        """Yield (trace ids, moments) of every part.

        Raises:
            InputError: the scope was not recorded.
            StoreError: a part is missing or truncated.
        """
        for part, ids in enumerate(self._parts.plan.parts):
            tensors, _ = load_tensors(self._parts.path(part))
            if f"{scope}.count" not in tensors:
                scopes = sorted({name.partition(".")[0] for name in tensors})
                raise InputError(f"{self.folder} holds the scopes {', '.join(scopes)}, not {scope!r}; record again with it")
            arrays = {name: tensors.get(f"{scope}.{name}") for name in (*MOMENTS, "tokens")}
            yield ids, Moments(tensors[f"{scope}.count"], **arrays)

    def means(self, scope: TokenScope, order: Sequence[str]) -> NDArray[np.float32]:
        """Mean activations over the tokens of a scope, float32 ``[trace, layer, d_ff]``, in the given order of ids.

        As a gate reads them: a token counts as 0 in experts that it is not routed to.
        """
        rows: dict[str, NDArray[np.float32]] = {}
        for ids, moments in self.stream(scope):
            rows.update(zip(ids, moments.mean_of_all_tokens(), strict=True))
        return np.stack([rows[name] for name in order])
