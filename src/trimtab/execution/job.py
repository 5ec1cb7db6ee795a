"""What an executor runs: jobs, each of them the parts of one folder."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from trimtab.model import LanguageModel
from trimtab.progress import Advance, Progress
from trimtab.store import Plan

Item = TypeVar("Item")
Value = TypeVar("Value")


class Job(Protocol):
    """The work on one folder of parts, as a frozen value that another process can be sent.

    What a part holds depends on the job and on the model alone: not on who computes it, in which order, or how often. So every
    executor leaves the same bytes, and a part that is written twice is written the same.
    """

    @property
    def label(self) -> str:
        """For the person who waits, such as ``sample greedy-find``."""
        ...

    @property
    def plan(self) -> Plan:
        """The stored plan, with the ids of the work items of every part."""
        ...

    def missing(self) -> list[int]:
        """Numbers of the parts that are not written yet."""
        ...

    def run(self, model: LanguageModel, parts: Iterable[int], advance: Advance) -> None:
        """Compute and write these parts, each whole or not at all.

        Args:
            model: the model.
            parts: numbers of the parts.
            advance: told of each written part's items and tokens.
        """
        ...


class Executor(Protocol):
    """Runs jobs: here, or on other machines."""

    @property
    def driver_device(self) -> str:
        """Where this process opens its own copy of the model; empty for where it is configured to be."""
        ...

    def run(self, model: LanguageModel, jobs: Sequence[Job], progress: Progress) -> None:
        """Write every missing part of every job.

        Args:
            model: the model, which an executor elsewhere opens again and compares with this one.
            jobs: whose plans are stored.
            progress: for the person who waits.
        """
        ...

    @property
    def width(self) -> int:
        """How many items of :meth:`map` are worked on at a time."""
        ...

    def map(self, function: Callable[[Item], Value], items: Iterable[Item]) -> list[Value]:
        """A function without a model applied to each item, in order; both can be sent to another process."""
        ...


def items_done(job: Job, missing: Sequence[int]) -> tuple[int, int]:
    """How many work items a job has, and how many of them are in parts that are written."""
    total = sum(map(len, job.plan.parts))
    return total, total - sum(len(job.plan.parts[part]) for part in missing)
