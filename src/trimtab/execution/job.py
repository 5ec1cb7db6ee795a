"""Jobs, each the parts of one folder, and their executors: its settings, and the default one, this process.

Facts of an executor say what must be the same where a part is computed, so that its bytes do not tell who computed it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Literal, Protocol, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trimtab.errors import ConfigError, ExecutionError, MismatchError
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
        """Name in progress messages, such as ``sample greedy-train``."""
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
            progress: shows how far the jobs are.
        """
        ...

    @property
    def width(self) -> int:
        """How many items of :meth:`map` are worked on at a time."""
        ...

    def map(self, function: Callable[[Item], Value], items: Iterable[Item]) -> list[Value]:
        """A function without a model applied to each item, in order; both can be sent to another process."""
        ...


Key = tuple[int, int]
"""Number of a job, number of a part."""


def work_label(jobs: Sequence[Job]) -> str:
    """Name of the work of several processes in progress messages; they tell of whole parts."""
    first = jobs[0].label
    return f"{first}, parts" if len(jobs) == 1 else f"{first.split()[0].rstrip(':')}, {len(jobs)} jobs, parts"


def refuse_failed(jobs: Sequence[Job], failed: Mapping[Key, str]) -> None:
    """Raise ExecutionError for parts that were given up, with the cause of each and the problems that it has."""
    if not failed:
        return
    lines = []
    for (number, part), error in sorted(failed.items()):
        ids = jobs[number].plan.parts[part]
        lines.append(f"  {jobs[number].label}, part {part}: {error}\n    problems: {', '.join(ids)}")
    raise ExecutionError(
        f"{len(failed)} parts could not be computed, all others are written:\n"
        + "\n".join(lines)
        + "\nFix the cause and run the same command again: it computes these parts alone",
        code="failed-parts",
    )


def items_done(job: Job, missing: Sequence[int]) -> tuple[int, int]:
    """How many work items a job has, and how many of them are in parts that are written."""
    total = sum(map(len, job.plan.parts))
    return total, total - sum(len(job.plan.parts[part]) for part in missing)


Facts = Mapping[str, str]

_PACKAGES = ("trimtab", "torch", "transformers", "tokenizers", "numpy", "pyarrow", "safetensors")


def package_facts() -> dict[str, str]:
    """Versions of the packages that a part's bytes depend on; read before anything of theirs is unpickled."""
    return {name: version(name) for name in _PACKAGES}


def model_facts(model: LanguageModel) -> dict[str, str]:
    """Identity of the model, and how it computes."""
    device = model.device.type
    return {
        "model fingerprint": model.identity.fingerprint,
        "tokenizer fingerprint": model.tokenizer_fingerprint,
        "dtype": str(model.hf_model.dtype),
        "attention": str(model.hf_model.config._attn_implementation),
        "device": f"cpu, {torch.backends.cpu.get_cpu_capability()}" if device == "cpu" else device,
        "threads": str(torch.get_num_threads()),
    }


def check_facts(expected: Facts, found: Facts, where: str) -> None:
    """Raise MismatchError where a worker's facts differ, naming each with its value there and here.

    Args:
        expected: the driver's.
        found: the worker's, with the same keys.
        where: of the worker, for the message.
    """
    different = [f"  {key}: here {expected[key]}, there {found[key]}" for key in expected if expected[key] != found[key]]
    if different:
        raise MismatchError(
            f"the worker on {where} would write other bytes than this process; they differ in\n"
            + "\n".join(different)
            + "\nFix: install the same packages and put the same model on every node; for another dtype or device name "
            "model.dtype and executor.num_gpus in run.toml"
        )


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


class ExecutorSettings(BaseModel):
    """Settings of the executor. They decide how fast parts are computed, never their content, so they are not in a run's digest.

    ``workers`` and ``threads`` are for ``processes``, the others for ``ray``.

    Args:
        kind: ``local`` is this process; ``processes`` several on the cores of this machine, and ``ray`` the actors of a Ray
            cluster, each with a model of its own.
        workers: how many processes; 0 for as many as this process would use threads, divided by ``threads``.
        threads: of each process, and of this one meanwhile.
        address: ``HOST:PORT`` of a cluster, ``auto`` for the one on this machine, ``local`` for a new one. Empty takes
            ``RAY_ADDRESS``, else the cluster on this machine, else a new one.
        actors: how many; 0 for as many as fit, one for each GPU that an actor asks for, else for each thread of the CPUs.
        num_gpus: GPUs of an actor. Below 0: one where the cluster has some and the model is not told to use the CPU, or with
            engine vllm as many as its ``tensor_parallel_size``.
        num_cpus: CPUs that Ray sets aside for an actor; 0 for one, or less where there are too few. It bounds no threads: an
            actor uses as many as this process.
        batch_size: parts that an actor is sent at a time. More than one where parts take less than a second.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["local", "processes", "ray"] = "local"
    workers: int = Field(default=0, ge=0)
    threads: int = Field(default=1, ge=1)
    address: str = ""
    actors: int = Field(default=0, ge=0)
    num_gpus: float = Field(default=-1.0, ge=-1.0)
    num_cpus: float = Field(default=0.0, ge=0.0)
    batch_size: int = Field(default=1, ge=1)


KEYS: Mapping[str, Sequence[str]] = {
    "local": (),
    "processes": ("workers", "threads"),
    "ray": ("address", "actors", "num_gpus", "num_cpus", "batch_size"),
}
"""Of the settings, those of each kind."""
ACCEPTED = (
    f"write local, processes with any of {' and '.join(KEYS['processes'])}, or ray with any of {', '.join(KEYS['ray'])}, such as "
    "processes,workers=4 or ray,actors=8,num_gpus=1"
)


def with_choice(settings: ExecutorSettings, choice: str) -> ExecutorSettings:
    """Settings with the choice of the command line applied: a kind, and keys after commas.

    Raises:
        ConfigError: an unknown kind or key, or a bad value.

    Example:
        >>> with_choice(ExecutorSettings(address="10.0.0.1:6379"), "ray,actors=8,num_gpus=1").actors
        8
    """
    kind, *pairs = choice.split(",")
    chosen = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
    try:
        if kind in KEYS and (strange := ", ".join(key for key in chosen if key not in KEYS[kind])):
            raise ConfigError(f"executor {choice!r} is not accepted: {kind} has no {strange}; {ACCEPTED}")
        return ExecutorSettings.model_validate({**settings.model_dump(), "kind": kind, **chosen})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, issue['loc']))}: {issue['msg']}" for issue in error.errors())
        raise ConfigError(f"executor {choice!r} is not accepted: {wrong}; {ACCEPTED}") from error
