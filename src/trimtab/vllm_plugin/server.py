"""``trimtab serve``: vLLM's own OpenAI server with the plugin."""

import os
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from trimtab.errors import ConfigError, InputError
from trimtab.vllm_plugin.config import NONE, PluginConfig, engine_arguments

ENTRY_POINT = "trimtab"
"""Name of the plugin in vLLM's groups."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ONE = {
    "api_server_count": (None, 1),
    "data_parallel_size": (1,),
    "data_parallel_rank": (None,),
    "data_parallel_external_lb": (False,),
    "data_parallel_hybrid_lb": (False,),
    "data_parallel_multi_port_external_lb": (False,),
    "headless": (False,),
    "grpc": (False,),
}
"""Arguments of ``vllm serve`` and their values where one process answers HTTP and one engine runs."""


def named_paths(arguments: Sequence[str]) -> dict[str, str]:
    """Parse ``[NAME=]PATH`` into artifacts by name; the name defaults to the folder's.

    Raises:
        InputError: two have the same name, or a name that a request could not write.

    Example:
        >>> named_paths(["maths=runs/a/steering", "some-owner/steering"])
        {'maths': 'runs/a/steering', 'steering': 'some-owner/steering'}
    """
    named: dict[str, str] = {}
    for argument in arguments:
        before, equals, after = argument.partition("=")
        name, path = (before, after) if equals else (Path(argument).resolve().name, argument)
        if not _NAME.fullmatch(name) or name == NONE or not path:
            raise InputError(
                f"--steering {argument!r} gives the name {name!r}; accepted: [NAME=]PATH with a name of letters, digits, "
                "'.', '_' and '-' other than none"
            )
        if name in named:
            raise InputError(
                f"two steerings are named {name!r}: {named[name]} and {path}; name one of them: --steering NAME={path}"
            )
        named[name] = path
    return named


def with_plugin(allowed: str) -> str:
    """Add this plugin to a value of ``VLLM_PLUGINS``.

    Example:
        >>> with_plugin("lora_resolver")
        'lora_resolver,trimtab'
    """
    return ",".join(dict.fromkeys([*filter(None, allowed.split(",")), ENTRY_POINT]))


def check_single(arguments: Namespace, environment: Mapping[str, str]) -> None:
    """Require one process that answers HTTP, and one engine behind it.

    A steering loaded at run time is known to the process that loaded it, and the scores to the engine that computed them: with
    several, a request could be refused by one and steered by another.

    Raises:
        ConfigError: naming the argument that asks for more.
    """
    for name, accepted in _ONE.items():
        value = getattr(arguments, name)
        if value not in accepted:
            flag = "--" + name.replace("_", "-")
            raise ConfigError(
                f"{flag} {value}: the trimtab plugin needs one API server and one engine, so that every request meets the same "
                f"steerings; leave {flag} out and start one server a replica behind a load balancer"
            )
    if environment.get("VLLM_USE_RUST_FRONTEND", "0") not in ("", "0"):
        raise ConfigError("VLLM_USE_RUST_FRONTEND is set, and the Rust front end runs no Python plugin; unset it")
    if "PROMETHEUS_MULTIPROC_DIR" in environment:
        raise ConfigError(
            "PROMETHEUS_MULTIPROC_DIR is set, and then /metrics shows nothing of ours; one process needs none: unset it"
        )


def serve(model: str, config: PluginConfig, vllm_options: Sequence[str]) -> None:
    """Run the server until it is stopped.

    Args:
        model: a hub id or a folder.
        config: what the plugin loads, the steering of requests that name none, and the folder that clients may load from.
        vllm_options: options of ``vllm serve``, handed on unchanged.

    Raises:
        ConfigError: options that conflict with the plugin's, or ask for more than one API server or engine.
        ModelError: vLLM is not installed, or its version was not tested.
    """
    ours = engine_arguments(config)
    if "VLLM_PLUGINS" in os.environ:
        os.environ["VLLM_PLUGINS"] = with_plugin(os.environ["VLLM_PLUGINS"])
    from vllm.entrypoints.cli.serve import ServeSubcommand  # pyright: ignore[reportMissingImports]
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup  # pyright: ignore[reportMissingImports]
    from vllm.logger import configure_logging_from_args  # pyright: ignore[reportMissingImports]
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # pyright: ignore[reportMissingImports]

    cli_env_setup()
    command = ServeSubcommand()
    parser = FlexibleArgumentParser(prog="trimtab")
    command.subparser_init(parser.add_subparsers(dest="subparser"))
    arguments = parser.parse_args(["serve", model, *vllm_options])
    configure_logging_from_args(arguments)
    command.validate(arguments)
    check_single(arguments, os.environ)
    add_plugin(arguments, ours)
    command.cmd(arguments)


def add_plugin(arguments: Namespace, ours: Mapping[str, object]) -> None:
    """Set the plugin's engine arguments beside those that were given.

    Raises:
        ConfigError: one of them was given, too.
    """
    for name, value in ours.items():
        given = getattr(arguments, name)
        if isinstance(value, dict) and isinstance(given, dict) and not value.keys() & given.keys():
            value = given | value
        elif given:
            raise ConfigError(f"--{name.replace('_', '-')} {given}: trimtab serve sets this itself, to {value}; leave it out")
        setattr(arguments, name, value)
