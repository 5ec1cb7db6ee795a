"""Plain JSON: ``{"neurons": [{"layer", "index", "weight"}]}``, or addresses alone where one intervention makes all gains."""

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from trimtab.errors import InputError
from trimtab.export.checkpoint import Checkpoint
from trimtab.export.target import Engine, EngineOptions, Written
from trimtab.export.targets.neuron_lists import import_command, imported_engine
from trimtab.interventions import INTERVENTIONS
from trimtab.model import LanguageModel
from trimtab.neurons import NEURON_DEFINITION, NeuronList
from trimtab.steering import Steering
from trimtab.store import write_json

FILE = "neurons.json"
_WITH_FACTOR = ("ablate", "scale")


class PlainJson:
    """Every weight reads back as the same float32."""

    needs_fingerprint = True

    def check(self, steering: Steering, checkpoint: Checkpoint) -> None:  # noqa: ARG002
        """Refuse gains that no intervention of a list gives."""
        intervention_of(steering)

    def write(self, steering: Steering, checkpoint: Checkpoint, folder: Path) -> Written:
        """Write neurons.json."""
        intervention = intervention_of(steering)
        columns = zip(steering.layer.tolist(), steering.index.tolist(), steering.shift.tolist(), strict=True)
        rows = [
            {"layer": layer, "index": index, **({"weight": weight} if intervention == "add" else {})}
            for layer, index, weight in columns
        ]
        write_json(folder / FILE, {"neuron_definition": NEURON_DEFINITION, "neurons": rows})
        return import_command(steering, checkpoint, FILE, intervention)

    def open(self, folder: Path, model: LanguageModel, options: EngineOptions) -> AbstractContextManager[Engine]:
        """Import it again."""
        return imported_engine(folder / FILE, model, options)


def intervention_of(steering: Steering) -> str:
    """The intervention that makes this steering of neurons with at most a weight each.

    Raises:
        InputError: there is none.
    """
    if not steering.gain.any():
        return "add"
    listed = NeuronList(steering.layer, steering.index, "exported", steering.model)
    for name in _WITH_FACTOR:
        edit = INTERVENTIONS[name](listed)  # type: ignore[arg-type]  # both read addresses alone
        if np.array_equal(edit.gain, steering.gain) and np.array_equal(edit.shift, steering.shift):
            return name
    raise InputError(
        "json carries gains only where all are those of suppress or scale and there are no shifts, and these are others; "
        "targets that can: lora, ia3, merged (gains), or leave one side out with --drop gain or --drop shift"
    )
