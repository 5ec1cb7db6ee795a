"""Output of the command line: data on stdout, everything else on stderr."""

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimtab.display import printable
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
        """Bars on a terminal, a line a minute where stderr is none, or nothing."""
        if self.quiet:
            return silent
        return _bar if sys.stderr.isatty() else _lines

    def note(self, text: str) -> None:
        """A line on stderr, unless told to be quiet."""
        if not self.quiet:
            print(printable(text), file=sys.stderr)

    def stage(self, stage: str, seconds: float, summary: Mapping[str, object]) -> None:
        """A finished stage of a run, and its result."""
        self.note(f"{stage:<11} {seconds:7.1f} s   {', '.join(f'{name}: {value}' for name, value in list(summary.items())[:4])}")

    def verdict(self, report: "Report") -> None:
        """The verdict, the table of conditions, the verdict by domain and difficulty, and the results of the controls."""
        from trimtab.report.terminal import breakdown_table, verdict_table

        tables = [verdict_table(report), *(breakdown_table(breakdown) for breakdown in report.breakdowns)]
        controls = report.controls.sentences if report.controls else {}
        said = [f"{name}: {sentence}" for name, sentence in controls.items()]
        self.tables(tables, report.verdict.sentence, [*said, *report.claims])

    def tables(self, tables: Sequence["Table"], sentence: str, claims: Sequence[str] = ()) -> None:
        """Tables, the sentence that says what they mean, and caveats."""
        from rich.console import Console

        console = Console(width=max(Console().width, 110))
        for table in tables:
            console.print(table)
        console.print(printable(sentence), highlight=False, markup=False)
        for claim in claims:
            console.print(printable(claim), style="dim", highlight=False, markup=False)

    def data(self, value: object, text: str) -> None:
        """The result: as JSON when asked for, else as text."""
        print(json.dumps(value, allow_nan=False) if self.as_json else printable(text))


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


LINE_SECONDS = 60.0
"""How often a job says how far it is where stderr is no terminal."""


@contextmanager
def _lines(label: str, total: int, done: int = 0) -> Iterator[Advance]:
    """A line when a job begins with something to do, one a minute with rate, share done and time left, and one at the end."""
    start, seen, tokens_seen = time.monotonic(), 0, 0
    ended = threading.Event()

    def say() -> None:
        elapsed = time.monotonic() - start
        left = f", {(total - done - seen) * elapsed / seen:,.0f} s left" if 0 < seen < total - done else ""
        rate = f", {tokens_seen / elapsed:,.0f} tokens/s" if tokens_seen and elapsed else ""
        print(
            f"{label}: {done + seen:,} of {total:,} ({(done + seen) / max(total, 1):.0%}){rate}{left}",
            file=sys.stderr,
            flush=True,
        )

    def keep_saying() -> None:
        while not ended.wait(LINE_SECONDS):
            say()

    def advance(items: int, tokens: int) -> None:
        nonlocal seen, tokens_seen
        seen, tokens_seen = seen + items, tokens_seen + tokens

    if done < total:
        say()
    thread = threading.Thread(target=keep_saying, daemon=True)
    thread.start()
    try:
        yield advance
    finally:
        ended.set()
        thread.join()
        if seen:
            say()
