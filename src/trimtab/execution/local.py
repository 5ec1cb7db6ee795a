"""The default executor: this process."""

from collections.abc import Sequence

from trimtab.execution.job import Job, items_done
from trimtab.model import OpenModel
from trimtab.progress import Progress


class LocalExecutor:
    """Runs one job after the other, their parts in order, with the model that is open. The first error ends it."""

    driver_device = ""

    def run(self, opened: OpenModel, jobs: Sequence[Job], progress: Progress) -> None:
        """Write every missing part; see :class:`trimtab.execution.Executor`."""
        for job in jobs:
            missing = job.missing()
            with progress(job.label, *items_done(job, missing)) as advance:
                job.run(opened, missing, advance)


LOCAL = LocalExecutor()
"""Has no state, so one is enough."""
