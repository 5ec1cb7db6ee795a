"""The CSV lists of AdaRAS: ``overall_neuron_index = layer * d_ff + index`` and ``weight``, the shift at unit strength."""

from contextlib import AbstractContextManager
from pathlib import Path

from trimtab.export.checkpoint import Checkpoint
from trimtab.export.target import Engine, EngineOptions, Written
from trimtab.export.targets.neuron_lists import import_command, imported_engine
from trimtab.model import LanguageModel
from trimtab.steering import Steering
from trimtab.store import write_text

FILE = "neurons.csv"


class AdarasCsv:
    """One row a neuron; every weight reads back as the same float32."""

    needs_fingerprint = True

    def check(self, steering: Steering, checkpoint: Checkpoint) -> None:
        """Every shift is a weight."""

    def write(self, steering: Steering, checkpoint: Checkpoint, folder: Path) -> Written:
        """Write neurons.csv."""
        flat = (steering.layer * checkpoint.d_ff + steering.index).tolist()
        rows = [f"{number},{weight!r}\n" for number, weight in zip(flat, steering.shift.tolist(), strict=True)]
        write_text(folder / FILE, "".join(["overall_neuron_index,weight\n", *rows]))
        return import_command(steering, checkpoint, FILE, "add")

    def open(self, folder: Path, model: LanguageModel, options: EngineOptions) -> AbstractContextManager[Engine]:
        """Import it again."""
        return imported_engine(folder / FILE, model, options)
