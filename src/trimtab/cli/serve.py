"""``trimtab serve``."""

from pathlib import Path

import click


@click.command("serve", context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("model")
@click.argument("vllm_options", nargs=-1, type=click.UNPROCESSED)
@click.option("--steering", multiple=True, metavar="[NAME=]PATH", help="An artifact to load, and its name; repeat for several.")
@click.option("--default", metavar="NAME", help="The steering of requests that name none; without it they are unsteered.")
@click.option(
    "--max-steerings",
    type=click.IntRange(min=1),
    help="How many steerings the engine holds at once, as --max-loras for LoRA.  [default: 8]",
)
@click.option(
    "--neurons-per-layer", type=click.IntRange(min=0), help="Room for steerings loaded later; 0 for none.  [default: 64]"
)
@click.option("--side", type=click.Choice(["input", "output"]), help="Which side of down_proj is edited.  [default: input]")
@click.option("--monitor", is_flag=True, help="Keep a running score of the tokens as they are generated.")
@click.option("--watch", metavar="NAME", help="Read unsteered requests with the running gate of this steering, and warn.")
@click.option(
    "--max-dose",
    type=click.FloatRange(min=0.0, min_open=True),
    help="The largest dose of a request, see docs/vllm.md; without it there is no limit.",
)
@click.option(
    "--over-dose",
    type=click.Choice(["warn", "clamp", "reject"]),
    help="Above it: warn and steer, lower the strength, or refuse.  [default: warn]",
)
@click.option(
    "--load-from",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Let clients load artifacts of this folder while the server runs. Without it they cannot.",
)
def serve_command(
    model: str,
    vllm_options: tuple[str, ...],
    steering: tuple[str, ...],
    default: str | None,
    max_steerings: int | None,
    neurons_per_layer: int | None,
    side: str | None,
    monitor: bool,
    watch: str | None,
    max_dose: float | None,
    over_dose: str | None,
    load_from: Path | None,
) -> None:
    """Serve MODEL over vLLM's own OpenAI server, each request with the steering it names.

    Every other option, and all that follows --, goes to vLLM unchanged. A request chooses with vllm_xargs: steering, strength,
    gate, scope, first_token. See docs/vllm.md.
    """
    from trimtab.testbed.models import resolve
    from trimtab.vllm_plugin.config import parse_config
    from trimtab.vllm_plugin.server import named_paths, serve

    if model.startswith("-"):
        raise click.UsageError(f"MODEL comes first, before the options for vLLM; got {model}")
    given = {
        "default": default,
        "max_steerings": max_steerings,
        "neurons_per_layer": neurons_per_layer,
        "side": side,
        "monitor": monitor,
        "watch": watch,
        "max_dose": max_dose,
        "over_dose": over_dose,
        "load_from": None if load_from is None else str(load_from),
    }
    config = parse_config(
        {"steerings": named_paths(steering), **{key: value for key, value in given.items() if value is not None}}
    )
    serve(resolve(model), config, vllm_options)
