"""``trimtab verify-serving``: a steering in vLLM against the transformers hooks."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trimtab.cli.options import model_options, output_options
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from trimtab.vllm_plugin.config import Side


@click.command("verify-serving")
@click.argument("source", metavar="MODEL")
@click.option("--steering", required=True, help="The artifact: a folder or a hub repository.")
@click.option("--prompts", type=click.Path(path_type=Path, dir_okay=False), help="Compare on these questions, one a line.")
@click.option(
    "--side",
    type=click.Choice(["input", "output"]),
    default="input",
    show_default=True,
    help="Which side of down_proj is edited.",
)
@click.option("--enforce-eager", is_flag=True, help="Compile nothing, which is quicker and proves nothing about graphs.")
@model_options
@output_options
def verify_serving_command(
    source: str,
    steering: str,
    prompts: Path | None,
    side: "Side",
    enforce_eager: bool,
    dtype: str,
    device: str,
    revision: str | None,
    trust_remote_code: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Prove that vLLM on this machine steers MODEL as the transformers hooks do, in about two minutes.

    One engine starts without the plugin and one with it, on the same new compile cache. Steered, unsteered and strength-0
    requests share a batch; tokens, log probabilities and the gate's p(fail) are compared with the hooks' and with those of the
    first engine. Decoding is timed at batch 1 and 32. The output is a block to paste into an issue. The exit code is 1
    when a check fails, and the last line names it.
    """
    from trimtab.export.serving import verify_serving
    from trimtab.export.verify import asked, default_questions, questions_of
    from trimtab.model import open_model
    from trimtab.steering import Steering

    output = Output(as_json, quiet)
    model = open_model(source, revision=revision, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    loaded = Steering.from_pretrained(steering)
    questions = questions_of(prompts) if prompts else default_questions(source)
    prompt_ids = [request.prompt_ids for request in asked(model, questions)]
    proof = verify_serving(model, steering, loaded, prompt_ids, side=side, enforce_eager=enforce_eager, progress=output.progress)
    output.data({**asdict(proof), "failed": proof.failed}, proof.text())
    if proof.failed:
        output.note(f"failed: {', '.join(proof.failed)}")
        raise SystemExit(1)
