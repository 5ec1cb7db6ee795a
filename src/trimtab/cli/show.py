"""``trimtab show``."""

from dataclasses import asdict, replace
from pathlib import Path

import click
import numpy as np

from trimtab.cli.options import model_options, output_options
from trimtab.cli.output import Output
from trimtab.dose import FACT, Dose
from trimtab.steering import Steering


@click.command("show")
@click.argument("steering")
@click.option("--model", "source", help="Measure the dose on this model's responses: a hub id, a folder, or testbed:NAME.")
@click.option("--save", is_flag=True, help="Keep the measured dose in the artifact, where servers read it.")
@model_options
@output_options
def show(
    steering: str,
    source: str | None,
    save: bool,
    dtype: str,
    device: str,
    revision: str | None,
    trust_remote_code: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print an artifact: STEERING is a folder or a hub repository.

    Its dose is the size of the edit relative to the output of each layer's FFN, at the artifact's strength. A run measures it on
    its own traces; for any other artifact --model measures it on unsteered responses to eight questions.
    """
    if save and (source is None or not Path(steering).is_dir()):
        raise click.UsageError("--save keeps a dose that --model has measured in an artifact's folder; give both")
    loaded = Steering.from_pretrained(steering)
    if source is not None:
        loaded = _measured(loaded, source, dtype, device, revision, trust_remote_code)
    if save:
        loaded.save_pretrained(steering, force=True)
    facts = describe(loaded)
    top = [
        f"  {loaded.model.address(layer, index)}  gain {gain:+.4f}  shift {shift:+.4f}"
        for layer, index, gain, shift in zip(*(c[:20].tolist() for c in _columns(loaded)), strict=True)
    ]
    norms = np.linalg.norm(loaded.direction, axis=1).tolist()
    along = [
        f"  after layer {layer:>3}  norm {norm:.4f}" for layer, norm in zip(loaded.direction_layer.tolist(), norms, strict=True)
    ]
    lines = [f"{name:<16}{value}" for name, value in facts.items() if name != "facts"]
    lines += [f"first {len(top)} neurons (at unit strength):", *top] if top else []
    lines += ["directions of the residual stream (at unit strength):", *along] if along else []
    Output(as_json, quiet).data(facts, "\n".join(lines))


def _measured(
    steering: Steering, source: str, dtype: str, device: str, revision: str | None, trust_remote_code: bool
) -> Steering:
    from trimtab.analysis.dose import measure_doses
    from trimtab.export.verify import asked, default_questions
    from trimtab.model import check_identity, open_model
    from trimtab.sampling import SamplingSettings, generate_batch
    from trimtab.sampling.sample import as_trace

    model = open_model(source, revision=revision, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    check_identity(steering.model, model.identity)
    requests = asked(model, default_questions(source))
    generations = generate_batch(model, requests, SamplingSettings(n=1, temperature=0.0, max_new_tokens=128))
    traces = [as_trace(model, *pair) for pair in zip(requests, generations, strict=True)]
    (dose,) = measure_doses(model, [steering], traces)
    return replace(steering, facts={**steering.facts, FACT: dose.facts()})


def _dose(steering: Steering) -> str:
    """The dose at the artifact's strength, for a person."""
    dose = Dose.of(steering.facts)
    if dose is None:
        return "not measured; --model measures it"
    layers = ", ".join(f"{layer}: {abs(steering.strength) * unit:.3g}" for layer, unit in zip(dose.layer, dose.unit, strict=True))
    return f"{dose.at(steering.strength):.3g} at most, at strength {steering.strength:g}; by layer {layers}"


def describe(steering: Steering) -> dict[str, object]:
    """The content of an artifact, as plain values."""
    layers, counts = np.unique(steering.layer, return_counts=True)
    gate = steering.gate
    return {
        "model": steering.model.name,
        "architecture": steering.model.architecture,
        "fingerprint": steering.model.fingerprint,
        "neurons": len(steering.layer),
        "share": len(steering.layer) / steering.model.n_neurons,
        "layers": dict(zip(layers.tolist(), counts.tolist(), strict=True)),
        **({"directions": steering.direction_layer.tolist()} if steering.has_directions else {}),
        "criterion": steering.facts.get("criterion", "not recorded"),
        "intervention": steering.facts.get("intervention", "not recorded"),
        "strength": steering.strength,
        "dose": _dose(steering),
        "scope": steering.scope,
        "gate": f"{gate.label}, {len(gate.layer)} features, fires at p(fail) >= {gate.cutoff:.3f}" if gate.reads else gate.label,
        "facts": {**steering.facts, "model": asdict(steering.model)},
    }


def _columns(steering: Steering) -> tuple[np.ndarray, ...]:
    return steering.layer, steering.index, steering.gain, steering.shift
