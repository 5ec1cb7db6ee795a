"""``trimtab verify``: an export in its own engine against the transformers hooks."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trimtab.cli.options import model_options, output_options
from trimtab.cli.output import Output
from trimtab.export.parts import ENGINE_NAMES, EngineName
from trimtab.steering import Steering

if TYPE_CHECKING:
    from trimtab.export.record import Verification

ENGINE_HELP = "own is the target's own loader; vllm loads a lora or merged export in vLLM, which must be installed here."


@click.command("verify")
@click.argument("export", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--model", "source", required=True, help="The base model: a hub id, a folder, or testbed:NAME.")
@click.option("--steering", required=True, help="The artifact that was exported: a folder or a hub repository.")
@click.option("--prompts", type=click.Path(path_type=Path, dir_okay=False), help="Compare on these questions, one a line.")
@click.option(
    "--task", help="Compare on problems of this task's validation split, and measure the accuracy that dropped parts cost."
)
@click.option("--data", default="", help="The task's rows on this machine, in place of the hub: a file or a folder.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most this many problems.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--engine", type=click.Choice(ENGINE_NAMES), default="own", show_default=True, help=ENGINE_HELP)
@click.option("--base-gguf", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="The base model for llama.cpp.")
@click.option(
    "--lora-target-modules", metavar="NAME,...", default="", help="The --lora-target-modules of the vLLM server to be checked."
)
@click.option("--allow-pickle", is_flag=True, help="Open an export to lm-eval, a pickle.")
@model_options
@output_options
def verify_command(
    export: Path,
    source: str,
    steering: str,
    prompts: Path | None,
    task: str | None,
    data: str,
    limit: int,
    max_new_tokens: int,
    engine: EngineName,
    base_gguf: Path | None,
    lora_target_modules: str,
    allow_pickle: bool,
    dtype: str,
    device: str,
    revision: str | None,
    trust_remote_code: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Load EXPORT with its target's own loader and compare it with the hooks.

    It compares effects, steered minus unsteered logits, on prompts with their responses. The result goes into the export's card.
    Without --prompts and --task, eight built-in questions are asked. The exit code is 1 when the two differ.
    """
    if prompts is not None and task is not None:
        raise click.UsageError("--prompts and --task both say what to compare on; give one")
    from trimtab.export.verify import QUESTIONS, questions_of, verify_export
    from trimtab.model import open_model
    from trimtab.tasks.loading import load_problems, task_prompt
    from trimtab.tasks.settings import TaskSettings

    output = Output(as_json, quiet)
    model = open_model(source, revision=revision, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    settings = TaskSettings(source=task or "testbed", data=data, train=0, validation=limit, test=0)
    problems = load_problems(settings) if task else []
    questions = [problem.question for problem in problems] or (questions_of(prompts) if prompts else list(QUESTIONS))
    record = verify_export(
        export,
        model,
        Steering.from_pretrained(steering),
        questions,
        problems=problems,
        prompt=task_prompt(settings),
        max_new_tokens=max_new_tokens,
        engine=engine,
        base_gguf=base_gguf,
        allow_pickle=allow_pickle,
        lora_modules=tuple(filter(None, lora_target_modules.split(","))),
        progress=output.progress,
    )
    seen = record.verification if engine == "own" else record.elsewhere[engine]
    assert seen is not None
    output.data({"export": str(export), "ok": seen.ok, **record.model_dump()}, _text(seen))
    if not seen.ok:
        raise SystemExit(1)


def _text(seen: "Verification") -> str:
    lines = [
        f"{'ok' if seen.ok else 'DIFFERS'}: {seen.engine}, {seen.dtype}, {seen.prompts} prompts, {seen.positions} positions",
        f"difference of the effects {seen.effect:.3g}, accepted up to {seen.tolerance}",
        f"size of the effect {seen.size:.3g} of the logits",
        f"greedy tokens that differ: {seen.tokens_differing} of {seen.tokens}, and {seen.near_ties} at near ties",
    ]
    if not seen.size:
        lines.append(f"{seen.engine} answers as the base model: it ignores the export, whose keys or modules this model has not")
    if seen.cost is not None:
        distance = "not defined" if seen.cost.distance is None else f"{seen.cost.distance:.3g}"
        lines.append(f"what was dropped changes the effect by {distance} of the full steering's")
        if seen.cost.accuracy_full is not None:
            lines.append(
                f"accuracy on {seen.cost.problems} problems: {seen.cost.accuracy_full:.3f} in full, "
                f"{seen.cost.accuracy_reduced:.3f} as exported"
            )
    return "\n".join(lines)
