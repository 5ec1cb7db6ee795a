"""The executor of many machines: a pool of Ray actors writes the parts, this process only counts them.

Connecting says how many actors of one size the cluster can hold.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, floor, inf
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self
from warnings import catch_warnings, simplefilter

import torch

from trimtab.errors import ConfigError, ExecutionError
from trimtab.execution.job import ExecutorSettings, Item, Job, Key, Value, refuse_failed, work_label
from trimtab.execution.worker import Setting
from trimtab.model import LanguageModel
from trimtab.progress import Progress

logger = logging.getLogger(__name__)

CONNECT_S = 10.0
JOIN_S = 30.0
RUNNING = ("StreamingExecutor-", "ray-data-")
"""Names of the threads that run a data set begin so."""
SLACK = 1e-6
"""Ray counts fractions of a CPU in ten-thousandths."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The number of actors, and the resources that Ray reserves for each."""

    actors: int
    num_cpus: float
    num_gpus: float


def import_ray() -> ModuleType:
    """``ray``, with Ray Data. Raises ConfigError where the extra is not installed."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(
            f"executor 'ray' needs the extra [ray], which is not installed ({error}); pip install 'trimtab[ray]', or use "
            "--executor local",
            code="no-ray",
        ) from error
    for handler in logging.getLogger("ray.data").handlers:
        if handler.name == "console":
            handler.setLevel(logging.CRITICAL)  # its plans and tracebacks stay in its log file
    return ray


@contextmanager
def connected(address: str) -> Iterator[str]:
    """Connect to a cluster, or start one here, and yield the address of its dashboard, empty where it has none.

    A program that is connected to Ray already stays connected, before and after.

    Raises:
        ConfigError: no Ray, or an address of Ray Client.
        ExecutionError: there is no cluster at that address.
    """
    ray = import_ray()
    if address.startswith("ray://"):
        raise ConfigError(
            f"executor.address {address!r} is one of Ray Client, through which Ray Data does not run well; start the command on "
            "the cluster instead: ray job submit --address http://HEAD:8265 -- trimtab run ..."
        )
    if ray.is_initialized():
        yield ""
        return
    asked = address or os.environ.get("RAY_ADDRESS", "")
    try:
        _refuse_silent(asked)
        context = ray.init(address=address or None, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises whatever it likes, a bare Exception among it
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ExecutionError(
            f"cannot connect to a Ray cluster at {asked or 'this machine'}: {first}\nFix: check `ray status` there and the "
            "address (HOST:PORT of the head node, usually port 6379), or name no address and unset RAY_ADDRESS to start one here",
            code="no-connection",
        ) from error
    try:
        yield context.dashboard_url or ""
    finally:
        ray.shutdown()


@contextmanager
def threads_joined() -> Iterator[None]:
    """Wait at the end for the threads begun since with which Ray Data runs a data set, :data:`JOIN_S` seconds in all.

    One of them that calls Ray after ``ray.shutdown()`` ends the whole process, with status 1 and without a word. Other threads of
    Ray never end, or belong to somebody else.
    """
    before = set(threading.enumerate())
    try:
        yield
    finally:
        end = time.monotonic() + JOIN_S
        for thread in set(threading.enumerate()) - before:
            if thread.name.startswith(RUNNING):
                thread.join(max(0.0, end - time.monotonic()))
                if thread.is_alive():
                    logger.warning("%s of Ray still runs %g s after its data were taken", thread.name, JOIN_S)


def _refuse_silent(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT; Ray would try for minutes, deaf to Ctrl-C."""
    host, colon, port = address.rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), CONNECT_S).close()


def fit_pool(settings: ExecutorSettings, nodes: list[Mapping[str, float]], threads: int, gpus: int) -> Pool:
    """The pool that the settings ask for, with defaults for open values.

    Args:
        settings: 0 actors stand for as many as fit, 0 CPUs for one or less.
        nodes: resources of each node that is alive, by Ray's names ``CPU`` and ``GPU``.
        threads: that each actor uses.
        gpus: that each actor uses, where the cluster has some and the settings say nothing of it.

    Raises:
        ConfigError: the actors do not fit, so that Ray would wait for ever.

    Example:
        >>> fit_pool(ExecutorSettings(kind="ray", actors=2), [{"CPU": 2.0}], threads=1, gpus=1)
        Pool(actors=2, num_cpus=0.5, num_gpus=0.0)
    """
    cpus, in_all = (sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU"))
    num_gpus = settings.num_gpus if settings.num_gpus >= 0 else float(gpus if in_all > 0 else 0)
    wanted = settings.actors or max(1, _holds(nodes, num_gpus, 0.0) if num_gpus else floor(cpus / threads))
    # one CPU stays free for Ray Data's own tasks, or half of them where there are few
    num_cpus = settings.num_cpus or (1.0 if cpus >= wanted + 1 else floor(5000 * cpus / wanted) / 10_000)
    pool = Pool(wanted, num_cpus, num_gpus)
    room = _holds(nodes, num_gpus, num_cpus)
    if wanted > room or wanted * num_cpus > cpus - SLACK:
        raise ConfigError(
            f"{wanted} actors with {num_gpus:g} GPUs and {num_cpus:g} CPUs each do not fit into this cluster of {len(nodes)} "
            f"nodes with {in_all:g} GPUs and {cpus:g} CPUs in all, which holds {room} of them; some of a CPU must stay free for "
            "Ray itself. Set fewer actors or smaller num_gpus and num_cpus in [executor], or start more nodes first"
        )
    return pool


def left_of(pool: Pool, nodes: list[Mapping[str, float]]) -> Pool:
    """The pool without the actors that the nodes no longer hold, since some have gone; one at least, which Ray waits for."""
    return replace(pool, actors=max(1, min(pool.actors, _holds(nodes, pool.num_gpus, pool.num_cpus))))


def live_nodes() -> list[Mapping[str, float]]:
    """Resources of each node of the connected cluster that is alive."""
    return [node["Resources"] for node in import_ray().nodes() if node["Alive"]]


def _holds(nodes: list[Mapping[str, float]], num_gpus: float, num_cpus: float) -> int:
    """How many actors the nodes hold, each of them on one node."""
    room = 0
    for node in nodes:
        fits = [floor(node.get(name, 0.0) / size + SLACK) for name, size in (("GPU", num_gpus), ("CPU", num_cpus)) if size]
        room += int(min(fits, default=inf)) if fits else 0
    return room


TASK_RETRIES = 2
"""So often Ray starts a part again whose actor died. Parts that wait at an actor that dies are counted, too."""
ROUNDS = 3
"""So often the parts that Ray gave up are handed out again, to a new pool on the nodes that are left."""
INIT_DEATHS = 10
"""How many actors in a row may die before they are ready."""
IN_FLIGHT = 2
"""Tasks that an actor holds, so that it need not wait for the next one."""


class RayExecutor:
    """Runs jobs by ``map_batches`` over their missing parts, in a pool of actors that each hold the model.

    An actor that dies is restarted by Ray, and its part is computed again. A part that raises, or loses its actor, too often is
    left out, the others go on, and the run ends with an error that lists its problems.

    Example:
        >>> settings = ExecutorSettings(kind="ray", actors=8, num_gpus=1)
        >>> with RayExecutor(settings, partial(open_model, "Qwen/Qwen3-8B")) as executor:  # doctest: +SKIP
        ...     sample_traces(opened, problems, sampling, folder, executor=executor)
    """

    def __init__(
        self,
        settings: ExecutorSettings,
        open_model: Callable[[], LanguageModel],
        *,
        on_cpu: bool = False,
        gpus: int = 1,
        note: Callable[[str], None] = lambda text: None,  # noqa: ARG005
    ) -> None:
        """Nothing is connected yet.

        Args:
            settings: where and how many.
            open_model: opens the model in an actor, so a function of a module.
            on_cpu: the model is told to use the CPU, so actors ask for no GPU by themselves.
            gpus: how many an actor asks for by itself where the cluster has some.
            note: told once where the dashboard is and what the pool is.
        """
        self._settings, self._open_model, self._on_cpu, self._gpus, self._note = settings, open_model, on_cpu, gpus, note
        self._connection = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.close()

    @cached_property
    def pool(self) -> Pool:
        """The actors, from the first call on connected to the cluster.

        Raises:
            ConfigError: no Ray, or actors that the cluster cannot hold.
            ExecutionError: no cluster.
        """
        dashboard = self._connection.enter_context(connected(self._settings.address))
        pool = fit_pool(self._settings, live_nodes(), torch.get_num_threads(), 0 if self._on_cpu else self._gpus)
        where = f", dashboard at http://{dashboard}" if dashboard else ""
        self._note(f"ray: {pool.actors} actors, {pool.num_gpus:g} GPUs and {pool.num_cpus:g} CPUs each{where}")
        return pool

    @property
    def driver_device(self) -> str:
        """The CPU where the actors have GPUs, whose memory this process leaves to them."""
        return "cpu" if self.pool.num_gpus else ""

    def run(self, model: LanguageModel, jobs: Sequence[Job], progress: Progress) -> None:
        """Write every missing part; see :class:`trimtab.execution.Executor`.

        Raises:
            ExecutionError: an actor cannot begin or write, or some parts failed; all others are written.
        """
        waiting = [(number, part) for number, job in enumerate(jobs) for part in job.missing()]
        if not waiting:
            return
        total = sum(len(job.plan.parts) for job in jobs)
        failed: dict[Key, str] = {}
        lost: dict[Key, str] = {}
        with progress(work_label(jobs), total, total - len(waiting)) as advance:
            for _ in range(ROUNDS):
                lost = dict.fromkeys(waiting, f"its actor died {ROUNDS * (TASK_RETRIES + 1)} times")
                with threads_joined(), closing(self._rows(model, jobs, waiting)) as rows:
                    for row in rows:
                        if row["fate"] == "stop":
                            raise ExecutionError(f"{row['error']}\nThe run was stopped; what was written is kept")
                        key = row["job"], row["part"]
                        del lost[key]
                        if row["fate"] == "failed":
                            failed[key] = row["error"]
                        advance(1, row["tokens"])
                waiting = list(lost)
                if not waiting:
                    break
        refuse_failed(jobs, failed | lost)
        _refuse_unseen(jobs)

    @property
    def width(self) -> int:
        """The CPUs of the cluster."""
        return max(1, int(import_ray().cluster_resources().get("CPU", 1.0))) if self.pool else 1

    def map(self, function: Callable[[Item], Value], items: Iterable[Item]) -> list[Value]:
        """Each item in a Ray task with one CPU, which Ray starts again when its process dies."""
        ray, _ = import_ray(), self.pool
        from trimtab.execution.ray_worker import apply

        task, shared = ray.remote(apply), ray.put(function)
        return ray.get([task.remote(shared, item, str(Path.cwd())) for item in items])

    def _rows(self, model: LanguageModel, jobs: Sequence[Job], keys: Sequence[Key]) -> Generator[dict[str, Any]]:
        """The answers of the actors, in the order in which they come.

        They are taken from the blocks and not from ``iter_rows``, whose threads outlive the iterator.
        """
        ray, pool = import_ray(), self.pool
        pool = left_of(pool, live_nodes())
        from trimtab.execution.ray_worker import PartWriter, Work

        setting = Setting.of(model, **({"device": "cuda"} if pool.num_gpus else {}))
        work = ray.put(Work(self._open_model, jobs))
        tasks = ceil(len(keys) / self._settings.batch_size)
        items = [{"job": job, "part": part} for job, part in keys]
        with catch_warnings():
            # to be given by a named argument from Ray 2.64 on, which 2.60 has not
            simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
            data = ray.data.from_items(items, override_num_blocks=tasks).map_batches(
                PartWriter,
                batch_size=None,
                fn_constructor_args=(setting, work),
                compute=ray.data.ActorPoolStrategy(size=min(pool.actors, tasks), max_tasks_in_flight_per_actor=IN_FLIGHT),
                num_cpus=pool.num_cpus,
                num_gpus=pool.num_gpus,
                max_task_retries=TASK_RETRIES,
            )
        data.context.enable_progress_bars = False
        data.context.max_errored_blocks = -1
        data.context.max_consecutive_actor_init_deaths = INIT_DEATHS
        try:
            for bundle in data.iter_internal_ref_bundles():
                for block in ray.get(list(bundle.block_refs)):
                    yield from block.to_pylist()
        except ray.exceptions.RayError as error:
            raise ExecutionError(
                f"Ray could not go on: {str(error).strip().splitlines()[-1]}\nFix: look at the actors' logs (`ray logs`); what "
                "was written is kept, run the same command again"
            ) from error


def _refuse_unseen(jobs: Sequence[Job]) -> None:
    """What an actor wrote must be seen from here: the run directory has to be one and the same for all nodes."""
    unseen = {job.label: missing for job in jobs if (missing := job.missing())}
    if unseen:
        counts = "; ".join(f"{label}: {len(parts)} parts" for label, parts in unseen.items())
        raise ExecutionError(
            f"actors wrote parts that this machine does not see ({counts}); "
            "put the run directory on a file system that all nodes share, or give a URL such as s3://BUCKET/runs/NAME",
            code="no-shared-folder",
        )
