"""``trimtab generate``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from trimtab.cli.options import model_options, output_options, response_options
from trimtab.cli.output import Output

if TYPE_CHECKING:
    from trimtab.model import LanguageModel
    from trimtab.sampling import Request, SamplingSettings
    from trimtab.steering import Steering


@click.command("generate")
@click.argument("source", metavar="MODEL")
@click.argument("prompt")
@click.option("--steering", required=True, help="Artifact: a folder or a hub repository.")
@click.option("--side-by-side", is_flag=True, help="Show the unsteered response too.")
@click.option("--strength", type=float, help="Another strength than the artifact's.")
@click.option(
    "--gate", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True, help="Ask the gate, or force it."
)
@click.option("--sweep-strength", metavar="S,...", help="Answer at each strength, the gate held open, with the size of the edit.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=512, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@response_options
@model_options
@output_options
def generate(
    source: str,
    prompt: str,
    steering: str,
    side_by_side: bool,
    strength: float | None,
    gate: str,
    sweep_strength: str | None,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    force_model: bool,
    dtype: str,
    device: str,
    revision: str | None,
    trust_remote_code: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Answer PROMPT with MODEL under a steering, and print the gate's p(fail)."""
    from trimtab.model import open_model, rebind
    from trimtab.sampling import Request, SamplingSettings, generate_batch
    from trimtab.steering import Steering
    from trimtab.tasks import render_prompt

    strengths = None if sweep_strength is None else _strengths(sweep_strength)
    model = open_model(source, revision=revision, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    loaded = Steering.from_pretrained(steering)
    loaded = loaded if strength is None else loaded.with_strength(strength)
    loaded = rebind(loaded, model.identity) if force_model else loaded
    settings = SamplingSettings(n=1, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
    request = Request("prompt/0", render_prompt(model.tokenizer, prompt), seed)
    output = Output(as_json, quiet)
    if unknown := request.prompt_ids.count(model.tokenizer.unk_token_id):
        output.note(f"this model's tokenizer does not know {unknown} of {len(request.prompt_ids)} tokens of the prompt")
    if strengths is not None:
        rows = _sweep(model, loaded, request, settings, strengths)
        output.data({"sweep": rows}, "\n\n".join(_swept(row) for row in rows))
        return
    steered = generate_batch(model, [request], settings, loaded, gate)[0]  # type: ignore[arg-type]
    result: dict[str, object] = {
        "p_fail": steered.p_fail,
        "threshold": loaded.gate.threshold if loaded.gate.reads else None,
        "steered": model.tokenizer.decode(list(steered.response_ids), skip_special_tokens=True),
    }
    if side_by_side:
        bare = generate_batch(model, [request], settings)[0]
        result["unsteered"] = model.tokenizer.decode(list(bare.response_ids), skip_special_tokens=True)
    output.data(result, _text(result, gate))


def _strengths(given: str) -> list[float]:
    try:
        strengths = [float(part) for part in given.split(",")]
    except ValueError as error:
        raise click.UsageError(f"--sweep-strength takes numbers such as 0.5,1,2,4; got {given!r}") from error
    return list(dict.fromkeys(strengths))


def _sweep(
    model: "LanguageModel", steering: "Steering", request: "Request", settings: "SamplingSettings", strengths: "Sequence[float]"
) -> list[dict[str, object]]:
    """The response at each strength, its gate held open, and the mean dose of its steered tokens."""
    from trimtab.analysis.token_record import JudgedResponse, mean_doses
    from trimtab.sampling import generate_batch
    from trimtab.sampling.sample import as_trace

    traces = {}
    for strength in strengths:
        at = steering.with_strength(strength)
        traces[strength] = as_trace(model, request, generate_batch(model, [request], settings, at, "on")[0])
    responses = {str(strength): JudgedResponse(trace, strength) for strength, trace in traces.items()}
    doses = mean_doses(model, responses, steering)
    return [
        {"strength": strength, "dose": doses[str(strength)], "tokens": len(trace.response_ids), "response": trace.text}
        for strength, trace in traces.items()
    ]


def _swept(row: dict[str, object]) -> str:
    dose = "not steered" if row["dose"] is None else f"dose {row['dose']:.3f}"
    return f"strength {row['strength']:g}, {dose}, {row['tokens']} tokens:\n{row['response']}"


def _text(result: dict[str, object], gate: str) -> str:
    lines = []
    if result["p_fail"] is not None:
        p_fail, threshold = float(str(result["p_fail"])), float(str(result["threshold"]))
        fires = "fires" if p_fail >= threshold else "stays closed"
        lines.append(f"p(fail) {p_fail:.3f}, threshold {threshold:.3f}: the gate {fires}")
    elif gate != "auto":
        lines.append(f"gate forced {gate}")
    if "unsteered" in result:
        lines += ["", "unsteered:", str(result["unsteered"])]
    lines += ["", "steered:", str(result["steered"])]
    return "\n".join(lines)
