"""How long jobs report progress, without depending on who shows it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int, int], None]
"""``advance(items, tokens)``: this many more items are done, and this many more tokens went through the model."""

Progress = Callable[[str, int, int], AbstractContextManager[Advance]]
"""``progress(label, total_items, done_items)`` opens a bar and yields its ``advance``."""


@contextmanager
def silent(label: str, total: int, done: int = 0) -> Iterator[Advance]:  # noqa: ARG001
    """A progress that shows nothing."""
    yield lambda items, tokens: None  # noqa: ARG005
