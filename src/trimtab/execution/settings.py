"""Settings of the executor, as read from a configuration or the command line."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trimtab.errors import ConfigError


class ExecutorSettings(BaseModel):
    """Who computes the parts of a run. It decides how fast they come, never what they hold, so it is no part of a run's digest.

    Everything but ``kind`` is for ``ray``.

    Args:
        kind: ``local`` is this process; ``ray`` the actors of a Ray cluster, each with a model of its own.
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

    kind: Literal["local", "ray"] = "local"
    address: str = ""
    actors: int = Field(default=0, ge=0)
    num_gpus: float = Field(default=-1.0, ge=-1.0)
    num_cpus: float = Field(default=0.0, ge=0.0)
    batch_size: int = Field(default=1, ge=1)


def with_choice(settings: ExecutorSettings, choice: str) -> ExecutorSettings:
    """Settings with what the command line chose: a kind, and keys after commas.

    Raises:
        ConfigError: an unknown kind or key, or a bad value.

    Example:
        >>> with_choice(ExecutorSettings(address="10.0.0.1:6379"), "ray,actors=8,num_gpus=1").actors
        8
    """
    kind, *pairs = choice.split(",")
    chosen = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
    try:
        return ExecutorSettings.model_validate({**settings.model_dump(), "kind": kind, **chosen})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, issue['loc']))}: {issue['msg']}" for issue in error.errors())
        raise ConfigError(
            f"executor {choice!r} is not accepted: {wrong}; write local, ray, or ray with any of address, actors, num_gpus, "
            "num_cpus and batch_size, such as ray,actors=8,num_gpus=1"
        ) from error
