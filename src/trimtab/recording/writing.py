"""Writing beside computing: one thread that takes one job at a time."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

Job = Callable[[], None]


@contextmanager
def in_background() -> Iterator[Callable[[Job], None]]:
    """Yield a function that starts a job in a thread and returns, as soon as the job before it has ended.

    Jobs run in the order they were given, one at a time, and the block does not end before the last one has. A job that raises
    is the last that runs: its error is raised by the next call, or when the block ends; an error of the block itself wins.

    Example:
        >>> written = []
        >>> with in_background() as start:
        ...     for part in range(3):
        ...         start(lambda part=part: written.append(part))
        >>> written
        [0, 1, 2]
    """
    with ThreadPoolExecutor(1, "trimtab-writer") as thread:
        before = thread.submit(lambda: None)

        def start(job: Job) -> None:
            nonlocal before
            before.result()
            before = thread.submit(job)

        yield start
        before.result()
