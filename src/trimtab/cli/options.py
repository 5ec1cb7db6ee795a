"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])


def output_options(command: Command) -> Command:
    """``--json`` and ``--quiet``."""
    command = click.option("--quiet", is_flag=True, help="Show no progress and no notes.")(command)
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")(command)


def run_options(command: Command) -> Command:
    """``--out``, ``--resume``, ``--force``."""
    command = click.option("--force", is_flag=True, help="Delete the run that is in the folder and start again.")(command)
    command = click.option("--resume", is_flag=True, help="Go on with the run that is in the folder.")(command)
    return click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="The run directory.")(
        command
    )


def model_options(command: Command) -> Command:
    """``--dtype``, ``--device``, ``--revision``, ``--trust-remote-code``."""
    command = click.option("--trust-remote-code", is_flag=True, help="Run code that the model's repository brings.")(command)
    command = click.option("--revision", help="Branch, tag or commit on the hub.")(command)
    command = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, or balanced over all.")(
        command
    )
    return click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16.")(command)
