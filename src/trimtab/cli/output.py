"""What the command line prints: data on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from trimtab.progress import Advance, Progress, silent


@dataclass(frozen=True, slots=True)
class Output:
    """``--json`` prints one JSON object instead of tables; ``--quiet`` shows no progress."""

    as_json: bool = False
    quiet: bool = False

    @property
    def progress(self) -> Progress:
        """Bars on stderr, or nothing."""
        return silent if self.quiet or not sys.stderr.isatty() else _bar

    def note(self, text: str) -> None:
        """A line for the person who waits."""
        if not self.quiet:
            print(text, file=sys.stderr)

    def data(self, value: object, text: str) -> None:
        """The result: as JSON when asked for, else as text."""
        print(json.dumps(value, allow_nan=False) if self.as_json else text)


@contextmanager
def _bar(label: str, total: int, done: int = 0) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bar, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, completed=done, rate="")
        tokens_seen = 0

        def advance(items: int, tokens: int) -> None:
            nonlocal tokens_seen
            tokens_seen += tokens
            elapsed = bar.tasks[0].elapsed or 0.0
            rate = f"{tokens_seen / elapsed:,.0f} tokens/s" if elapsed else ""
            bar.update(task, advance=items, rate=rate)

        yield advance
