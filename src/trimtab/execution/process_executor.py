"""The executor of this machine's cores: processes that each hold the model write the parts, this process only counts them."""

import json
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Self

import torch

from trimtab.display import counted
from trimtab.errors import ConfigError, ExecutionError
from trimtab.execution.job import ExecutorSettings, Item, Job, Key, Value, refuse_failed, work_label
from trimtab.execution.worker import Answer, Setting, Worker
from trimtab.model import LanguageModel
from trimtab.progress import Progress

ATTEMPTS = 3
"""So often a part may end its process before it is given up and reported."""
GRACE_S = 1.0
"""For a process whose pipe is closed to end by itself, so that its exit code is its own."""
NEVER_BEGAN = "a process ended with exit code {} before it had begun; its messages stand above"
BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from trimtab.execution.process_executor import serve
serve(int(sys.argv[2]))
"""
"""Not a process of multiprocessing, which would import the user's script once more, and cannot where that came from stdin."""


class ProcessExecutor:
    """Runs jobs in processes of this machine, each with a model of its own and its share of the cores.

    A small model leaves cores idle: its steps are too short to be worth dividing among threads. A part goes to the process that
    had the part of that number in the job before, so that it finds prompts it has read already; one that has nothing left takes
    from the others. A process that dies is replaced, and its part computed again.

    Example:
        >>> settings = ExecutorSettings(kind="processes", workers=4)
        >>> with ProcessExecutor(settings, partial(open_model, "Qwen/Qwen3-0.6B")) as executor:  # doctest: +SKIP
        ...     sample_traces(opened, problems, sampling, folder, executor=executor)
    """

    driver_device = ""

    def __init__(
        self,
        settings: ExecutorSettings,
        open_model: Callable[[], LanguageModel],
        *,
        note: Callable[[str], None] = lambda text: None,  # noqa: ARG005
    ) -> None:
        """No process is started yet.

        Args:
            settings: how many processes, and threads of each.
            open_model: opens the model in a process, so a function of a module.
            note: told once how many processes there are.
        """
        self._open_model, self._note = open_model, note
        self._threads, self._threads_before = settings.threads, torch.get_num_threads()
        self.workers = settings.workers or max(1, self._threads_before // settings.threads)
        self._processes: list[_Process] = []
        self._calls = 0

    def __enter__(self) -> Self:
        """Compute with as many threads as each of the processes from now on, so that this one writes the same bytes."""
        torch.set_num_threads(self._threads)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._processes:
            process.end()
        self._processes.clear()
        torch.set_num_threads(self._threads_before)

    width = 1
    """Of :meth:`map`, which stays in this process: what needs no model waits for the disk."""

    def map(self, function: Callable[[Item], Value], items: Iterable[Item]) -> list[Value]:
        """One item after the other."""
        return [function(item) for item in items]

    def run(self, model: LanguageModel, jobs: Sequence[Job], progress: Progress) -> None:
        """Write every missing part; see :class:`trimtab.execution.Executor`.

        Raises:
            ConfigError: the model is on a GPU.
            ExecutionError: a process cannot begin or write, or some parts failed; all others are written.
        """
        waiting = [(number, part) for number, job in enumerate(jobs) for part in job.missing()]
        if not waiting:
            return
        if model.device.type != "cpu":
            raise ConfigError(
                f"executor 'processes' divides the cores of this machine, and the model is on {model.device}; set model.device = "
                "'cpu', or use --executor ray, which gives each actor a GPU"
            )
        total = sum(len(job.plan.parts) for job in jobs)
        failed: dict[Key, str] = {}
        with progress(work_label(jobs), total, total - len(waiting)) as advance:
            for key, (fate, tokens, error) in self._answers(model, jobs, waiting):
                if fate == "stop":
                    raise ExecutionError(f"{error}\nThe run was stopped; what was written is kept")
                if fate == "failed":
                    failed[key] = error
                advance(1, tokens)
        refuse_failed(jobs, failed)

    def _answers(self, model: LanguageModel, jobs: Sequence[Job], keys: Sequence[Key]) -> Iterator[tuple[Key, Answer]]:
        """What became of each part, in the order in which they end."""
        self._calls += 1
        if not self._processes:
            self._note(f"processes: {self.workers}, with {counted(self._threads, 'thread')} each")
        self._processes += [self._begin(model) for _ in range(self.workers - len(self._processes))]
        queues = [deque(key for key in keys if key[1] % self.workers == place) for place in range(self.workers)]
        deaths = Counter[Key]()
        try:
            self._hand_out(queues, jobs)
            while busy := [process.connection for process in self._processes if process.key]:
                ready = wait(busy)
                for place, process in enumerate(self._processes):
                    if process.connection not in ready:
                        continue
                    key, answer = process.answer()
                    if answer is None:
                        ended = process.end(GRACE_S)
                        self._processes[place] = self._begin(model)
                        deaths[key] += 1
                        if ended > 0 and not process.answered:
                            answer = "stop", 0, NEVER_BEGAN.format(ended)
                        elif deaths[key] == ATTEMPTS:
                            answer = "failed", 0, f"its process ended {ATTEMPTS} times, the last time with exit code {ended}"
                        else:
                            queues[place].appendleft(key)
                    if answer is not None:
                        yield key, answer
                self._hand_out(queues, jobs)
        finally:
            # whoever still computes would answer the next call with what nobody waits for
            for process in [process for process in self._processes if process.key]:
                process.end()
                self._processes.remove(process)

    def _begin(self, model: LanguageModel) -> "_Process":
        return _Process(Setting.of(model), self._open_model)

    def _hand_out(self, queues: Sequence[deque[Key]], jobs: Sequence[Job]) -> None:
        """Give each process that waits the next part of its own, or the last one of whoever has most left."""
        for process, queue in zip(self._processes, queues, strict=True):
            if process.key is None:
                longest = max(queues, key=len)
                if queue or longest:
                    process.ask(self._calls, jobs, queue.popleft() if queue else longest.pop())


class _Process:
    """One process and its end of the pipe.

    Attributes:
        key: what it computes; None while it waits.
        answered: whether it ever has.
    """

    def __init__(self, setting: Setting, open_model: Callable[[], LanguageModel]) -> None:
        self.connection, theirs = Pipe()
        command = [sys.executable, "-c", BOOT, json.dumps(list(map(str, sys.path))), str(theirs.fileno())]
        # in a session of its own, since Ctrl-C goes to all processes of a terminal's; the driver ends this one
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True)
        theirs.close()
        self._send((setting, open_model))
        self.key: Key | None = None
        self.answered = False
        self._call = 0

    def ask(self, call: int, jobs: Sequence[Job], key: Key) -> None:
        """Send it a part, and the jobs of this call if it does not have them."""
        self._send((None if call == self._call else tuple(jobs), key))
        self._call, self.key = call, key

    def _send(self, what: object) -> None:
        with suppress(BrokenPipeError):  # it died: so its answers end, and there it is noticed
            self.connection.send(what)

    def answer(self) -> tuple[Key, Answer | None]:
        """What it computed, and the answer; None when the process is gone."""
        assert self.key is not None
        key, self.key = self.key, None
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            return key, None
        self.answered = True
        return key, answer

    def end(self, grace_s: float = 0.0) -> int:
        """Kill it, unless it ends by itself in time, and return how it ended: an exit code, or a signal's number below 0."""
        self.connection.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self._process.kill()
        return self._process.wait()


def serve(descriptor: int) -> None:
    """Write the parts that come through a pipe, until its other end is closed."""
    connection, jobs = Connection(descriptor), ()
    with suppress(EOFError, OSError):
        worker = Worker(*connection.recv())
        while True:
            new, (number, part) = connection.recv()
            jobs = jobs if new is None else new
            connection.send(worker.write(jobs, number, part))
