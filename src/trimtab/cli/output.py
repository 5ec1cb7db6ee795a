"""What the command line prints: data on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimtab.progress import Advance, Progress, silent

if TYPE_CHECKING:
    from rich.table import Table

    from trimtab.report import Report


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

    def stage(self, stage: str, seconds: float | None) -> None:
        """A finished stage of a run."""
        self.note(f"{stage:<10} {'already done' if seconds is None else f'{seconds:6.1f} s'}")

    def verdict(self, report: "Report") -> None:
        """The verdict, the table of conditions, and the verdict by domain and difficulty."""
        from trimtab.report.terminal import breakdown_table, verdict_table

        tables = [verdict_table(report), *(breakdown_table(breakdown) for breakdown in report.breakdowns)]
        self.tables(tables, report.verdict.sentence, report.claims)

    def tables(self, tables: Sequence["Table"], sentence: str, claims: Sequence[str] = ()) -> None:
        """Tables, the sentence that says what they mean, and caveats."""
        from rich.console import Console

        console = Console(width=max(Console().width, 110))
        for table in tables:
            console.print(table)
        console.print(sentence, highlight=False, markup=False)
        for claim in claims:
            console.print(claim, style="dim", highlight=False, markup=False)

    def data(self, value: object, text: str) -> None:
        """The result: as JSON when asked for, else as text."""
        print(json.dumps(value, allow_nan=False) if self.as_json else text)


@contextmanager
def _bar(label: str, total: int, done: int = 0) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

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
