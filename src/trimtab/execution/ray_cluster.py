"""Connecting to a Ray cluster, and how many actors of one size it can hold."""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import floor, inf
from types import ModuleType

from trimtab.errors import ConfigError, ExecutionError
from trimtab.execution.settings import ExecutorSettings

logger = logging.getLogger(__name__)

CONNECT_S = 10.0
JOIN_S = 30.0
RUNNING = ("StreamingExecutor-", "ray-data-")
"""Names of the threads that run a data set begin so."""
SLACK = 1e-6
"""Ray counts fractions of a CPU in ten-thousandths."""


@dataclass(frozen=True, slots=True)
class Pool:
    """So many actors, and what Ray sets aside for each of them."""

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
            "--executor local"
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
            "address (HOST:PORT of the head node, usually port 6379), or name no address and unset RAY_ADDRESS to start one here"
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
    """The pool that the settings ask for, what they leave open filled in.

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
