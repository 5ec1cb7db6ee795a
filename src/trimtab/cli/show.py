"""``trimtab show``."""

from dataclasses import asdict

import click
import numpy as np

from trimtab.cli.options import output_options
from trimtab.cli.output import Output
from trimtab.steering import Steering


@click.command("show")
@click.argument("steering")
@output_options
def show(steering: str, as_json: bool, quiet: bool) -> None:
    """Print an artifact: STEERING is a folder or a hub repository."""
    loaded = Steering.from_pretrained(steering)
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
        "scope": steering.scope,
        "gate": f"{gate.label}, {len(gate.layer)} features, fires at p(fail) >= {gate.cutoff:.3f}" if gate.reads else gate.label,
        "facts": {**steering.facts, "model": asdict(steering.model)},
    }


def _columns(steering: Steering) -> tuple[np.ndarray, ...]:
    return steering.layer, steering.index, steering.gain, steering.shift
