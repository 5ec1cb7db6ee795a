"""``trimtab import``: a list of neurons as an artifact."""

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from trimtab.cli.options import model_options, output_options
from trimtab.cli.output import Output
from trimtab.interventions import INTERVENTIONS
from trimtab.neurons import NEURON_DEFINITION
from trimtab.steering import PositionScope, Steering
from trimtab.store.import_lists import FORMATS, Format, read_neurons

if TYPE_CHECKING:
    from trimtab.neurons import NeuronList, Neurons


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--model", "source", required=True, help="The model that the list was made for: a hub id, a folder, or testbed:NAME."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="The artifact.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Default: by the file's ending.")
@click.option("--part", type=click.IntRange(min=0), help="Which list of a LAPE file, from 0.")
@click.option("--k", type=click.IntRange(min=1), help="The first k neurons only.")
@click.option("--intervention", type=click.Choice(tuple(INTERVENTIONS)), default="add", show_default=True)
@click.option("--strength", type=float, required=True, help="AdaRAS steers with 0.3; scale and ablate are defined at 1.")
@click.option("--scope", type=click.Choice(get_args(PositionScope)), default="generated", show_default=True)
@click.option("--force", is_flag=True, help="Replace the artifact that is in the folder.")
@model_options
@output_options
def import_command(
    file: Path,
    source: str,
    out: Path,
    form: Format | None,
    part: int | None,
    k: int | None,
    intervention: str,
    strength: float,
    scope: PositionScope,
    force: bool,
    dtype: str,
    device: str,
    revision: str | None,
    trust_remote_code: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make an artifact, without a gate, of the list of neurons in FILE.

    FILE is a CSV of AdaRAS, a .pth of LAPE, a .json of hprobes, a .npy of H-Neurons' weights, JSON ({"neurons": [{"layer": 0,
    "index": 7, "weight": 0.5}]} or a list of [layer, index, weight]), or the folder neurons/CRITERION of a run. trimtab
    evaluate --model M --task T --steering DIR then measures whether steering them helps.
    """
    from trimtab.model import check_identity, open_model

    model = open_model(source, revision=revision, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    neurons = read_neurons(file, model.identity, form, part, k)
    check_identity(neurons.model, model.identity)
    steering = Steering.of(
        neurons, strength, scope, facts=_facts(neurons, intervention), intervention=INTERVENTIONS[intervention]
    )
    steering.save_pretrained(out, force=force)
    summary = {"artifact": str(out), "model": steering.model.name, "strength": strength, "scope": scope, **steering.facts}
    Output(as_json, quiet).data(summary, f"{_sentence(steering)}\n{out}")


def _sentence(steering: Steering) -> str:
    layers, imported = len(set(steering.layer.tolist())), steering.facts.get("imported", {})
    return (
        f"{len(steering)} neurons in {layers} of {steering.model.n_layers} layers of {steering.model.name}, "
        f"{steering.facts['intervention']} at {steering.strength}, scope {steering.scope}\n"
        f"neuron of the list: {imported.get('listed_neuron', NEURON_DEFINITION)}"  # type: ignore[union-attr]
    )


def _facts(neurons: "Neurons | NeuronList", intervention: str) -> dict[str, object]:
    share = len(neurons) / neurons.model.n_neurons
    return {"criterion": neurons.criterion, "intervention": intervention, "k": len(neurons), "share": share, **neurons.facts}
