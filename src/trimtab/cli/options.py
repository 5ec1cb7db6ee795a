"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import click

from trimtab.traces import AnswerKind

if TYPE_CHECKING:
    from trimtab.store import AnyPath


class RunPath(click.Path):
    """A run directory, or a file in one, on this machine or at a URL (:func:`trimtab.store.any_path`)."""

    def __init__(self, *, file_okay: bool = False, exists: bool = False) -> None:
        super().__init__(path_type=Path, file_okay=file_okay, dir_okay=not file_okay, exists=exists)

    def convert(  # pyright: ignore[reportIncompatibleMethodOverride] -- a URL is no os.PathLike
        self, value: "str | AnyPath", param: click.Parameter | None, ctx: click.Context | None
    ) -> "AnyPath":
        """The path. Local paths are checked here, URLs when they are read."""
        if isinstance(value, str) and "://" in value:
            from trimtab.store import any_path

            value = any_path(value)
        return cast(Path, super().convert(value, param, ctx)) if isinstance(value, str | Path) else value


Command = TypeVar("Command", bound=Callable[..., object])


def output_options(command: Command) -> Command:
    """``--json`` and ``--quiet``."""
    command = click.option("--quiet", is_flag=True, help="Show no progress and no notes.")(command)
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")(command)


def executor_option(command: Command) -> Command:
    """``--executor``."""
    text = "The executor: local, processes or ray, and keys of [executor] after commas, such as ray,actors=8,num_gpus=1."
    return click.option("--executor", "executor", metavar="KIND[,KEY=VALUE...]", help=text)(command)


def _allow_unsafe(context: click.Context, parameter: click.Parameter, given: bool) -> None:  # noqa: ARG001
    if given:
        from trimtab.tasks.sandbox import allow_unsafe

        allow_unsafe()


def sandbox_option(command: Command) -> Command:
    """``--unsafe-sandbox``, of every command that grades; it sets what :func:`trimtab.tasks.sandbox.allow_unsafe` says."""
    text = "Grade code where neither bubblewrap nor namespaces run, with the weaker isolation that the verdict then names."
    return click.option("--unsafe-sandbox", is_flag=True, expose_value=False, callback=_allow_unsafe, help=text)(command)


def engine_option(command: Command) -> Command:
    """``--engine``."""
    text = (
        "The engine: transformers, or vllm with any keys of [vllm], such as vllm,gpu_memory=0.6. Reading activations "
        "outside of generation (record, gate) stays with transformers."
    )
    return click.option("--engine", "engine", metavar="NAME[,KEY=VALUE...]", help=text)(command)


def model_options(command: Command) -> Command:
    """``--dtype``, ``--device``, ``--revision``, ``--trust-remote-code``."""
    command = click.option("--trust-remote-code", is_flag=True, help="Run code that the model's repository brings.")(command)
    command = click.option("--revision", help="Branch, tag or commit on the hub.")(command)
    command = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, or balanced over all.")(
        command
    )
    return click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16.")(command)


def task_options(command: Command) -> Command:
    """``--data``, ``--answer``: where a task's problems come from, beside its name."""
    kinds = click.Choice([kind.value for kind in AnswerKind if kind is not AnswerKind.GYM])
    command = click.option("--answer", type=kinds, default="exact", show_default=True, help="Kind of answer of a local: file.")(
        command
    )
    return click.option(
        "--data", default="", help="A benchmark's rows on this machine, in place of the hub: a file or a folder."
    )(command)


def response_options(command: Command) -> Command:
    """``--temperature``, ``--force-model``: how responses are made, and under which model's weights."""
    fine_tune = "Accept other weights of the same architecture, a fine-tune for example."
    command = click.option("--force-model", is_flag=True, help=fine_tune)(command)
    temperature = click.FloatRange(min=0.0)
    return click.option("--temperature", type=temperature, default=0.0, show_default=True, help="0 is greedy.")(command)
