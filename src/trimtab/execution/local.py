"""The default executor: this process."""

from collections.abc import Callable, Iterable, Sequence

from trimtab.execution.job import Item, Job, Value, items_done
from trimtab.model import LanguageModel
from trimtab.progress import Progress


class LocalExecutor:
    """Runs one job after the other, their parts in order, with the model that is open. The first error ends it."""

    driver_device = ""
    width = 1

    def run(self, model: LanguageModel, jobs: Sequence[Job], progress: Progress) -> None:
        """Write every missing part; see :class:`trimtab.execution.Executor`."""
        for job in jobs:
            missing = job.missing()
            with progress(job.label, *items_done(job, missing)) as advance:
                job.run(model, missing, advance)

    def map(self, function: Callable[[Item], Value], items: Iterable[Item]) -> list[Value]:
        """One item after the other."""
        return [function(item) for item in items]


LOCAL = LocalExecutor()
"""Has no state, so one is enough."""
