"""Lists of neurons: AdaRAS's CSV, plain JSON and lm-eval's dictionary.

A list says which neurons and how much at unit strength. Strength, scope and intervention stand in the command that imports it.
"""

import pickle
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trimtab.errors import InputError, MismatchError, StoreError
from trimtab.export.checkpoint import Checkpoint
from trimtab.export.engines import TransformersEngine, hooks_engine
from trimtab.export.target import Engine, EngineOptions, Written, layer_edits, output_shift
from trimtab.interventions import INTERVENTIONS
from trimtab.model import LanguageModel
from trimtab.neurons import NEURON_DEFINITION, ModelIdentity, NeuronList
from trimtab.steering import Steering
from trimtab.store import replace_file, write_json, write_text
from trimtab.store.import_lists import read_neurons


def import_command(steering: Steering, name: str, file: str, intervention: str) -> Written:
    """The command that makes the same steering of the list again."""
    usage = (
        f"trimtab import PATH/{file} --model {name} --intervention {intervention} --strength {steering.strength!r} "
        f"--scope {steering.scope} --out STEERING"
    )
    return Written({"intervention": intervention}, usage)


@contextmanager
def imported_engine(file: Path, model: LanguageModel, options: EngineOptions) -> Iterator[Engine]:
    """The list imported and steered with the hooks.

    Raises:
        MismatchError: it does not give the steering that was exported, bit for bit.
    """
    wanted = options.steering
    found = read_neurons(file, wanted.model)
    again = Steering.of(found, wanted.strength, wanted.scope, intervention=INTERVENTIONS[str(options.facts["intervention"])])
    if again.digest != wanted.digest:
        raise MismatchError(f"{file} does not read back as the steering that was exported; was it edited? Export it again")
    yield hooks_engine(model, again)


CSV_FILE = "neurons.csv"


class AdarasCsv:
    """One row a neuron; every weight reads back as the same float32."""

    needs_fingerprint = True

    def check(self, steering: Steering, checkpoint: Checkpoint) -> None:
        """Every shift is a weight."""

    def write(self, steering: Steering, checkpoint: Checkpoint, folder: Path) -> Written:
        """Write neurons.csv."""
        return self.write_list(steering, checkpoint.name, folder)

    def write_list(self, steering: Steering, name: str, folder: Path) -> Written:
        """The same for the model of a name, of which nothing is read."""
        if steering.model.n_experts > 1:
            raise InputError(f"AdaRAS's CSV knows no experts, and {name} has {steering.model.n_experts} a layer; export to json")
        flat = (steering.layer * steering.model.d_ff + steering.index).tolist()
        rows = [f"{number},{weight!r}\n" for number, weight in zip(flat, steering.shift.tolist(), strict=True)]
        write_text(folder / CSV_FILE, "".join(["overall_neuron_index,weight\n", *rows]))
        return import_command(steering, name, CSV_FILE, "add")

    def open(self, folder: Path, model: LanguageModel, options: EngineOptions) -> AbstractContextManager[Engine]:
        """Import it again."""
        return imported_engine(folder / CSV_FILE, model, options)


JSON_FILE = "neurons.json"
_WITH_FACTOR = ("ablate", "scale")


class PlainJson:
    """Every weight reads back as the same float32."""

    needs_fingerprint = True

    def check(self, steering: Steering, checkpoint: Checkpoint) -> None:  # noqa: ARG002
        """Refuse gains that no intervention of a list gives."""
        intervention_of(steering)

    def write(self, steering: Steering, checkpoint: Checkpoint, folder: Path) -> Written:
        """Write neurons.json."""
        return self.write_list(steering, checkpoint.name, folder)

    def write_list(self, steering: Steering, name: str, folder: Path) -> Written:
        """The same for the model of a name, of which nothing is read."""
        intervention = intervention_of(steering)
        columns = zip(steering.layer.tolist(), steering.index.tolist(), steering.shift.tolist(), strict=True)
        rows = [
            {"layer": layer, **_place(steering.model, index), **({"weight": weight} if intervention == "add" else {})}
            for layer, index, weight in columns
        ]
        write_json(folder / JSON_FILE, {"neuron_definition": NEURON_DEFINITION, "neurons": rows})
        return import_command(steering, name, JSON_FILE, intervention)

    def open(self, folder: Path, model: LanguageModel, options: EngineOptions) -> AbstractContextManager[Engine]:
        """Import it again."""
        return imported_engine(folder / JSON_FILE, model, options)


def _place(model: ModelIdentity, index: int) -> dict[str, int]:
    """A neuron of a layer as :func:`trimtab.store.import_lists.read_neurons` reads it: with experts by expert and index there."""
    if model.n_experts == 1:
        return {"index": index}
    expert, within = divmod(index, model.d_expert)
    return {"expert": expert, "index": within}


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
        "json carries gains only where all are those of ablate or scale and there are no shifts, and these are others; "
        "targets that can: lora, ia3, merged (gains), or leave one side out with --drop gain or --drop shift"
    )


LM_EVAL_FILE = "steer.pt"


class LmEvalDict:
    """``W[:, S] @ shift`` added to the output of each down projection, at every position."""

    needs_fingerprint = True

    def check(self, steering: Steering, checkpoint: Checkpoint) -> None:
        """Every shift reaches the output."""

    def write(self, steering: Steering, checkpoint: Checkpoint, folder: Path) -> Written:
        """Write steer.pt, a pickle; the caller has asked for it by name."""
        # the harness looks for modules of model.base_model, whose paths lack the first piece
        entries = {
            checkpoint.down[edit.layer].module.partition(".")[2]: {
                "steering_vector": torch.from_numpy(output_shift(edit, checkpoint)),
                "steering_coefficient": 1.0,
                "action": "add",
                "bias": None,
                "head_index": None,
            }
            for edit in layer_edits(steering)
        }
        with replace_file(folder / LM_EVAL_FILE) as temporary:
            torch.save(entries, temporary)
        usage = f"lm_eval --model steered --model_args pretrained={checkpoint.name},steer_path=PATH/{LM_EVAL_FILE} --tasks gsm8k"
        return Written({"pickled": True}, usage)

    @contextmanager
    def open(self, folder: Path, model: LanguageModel, options: EngineOptions) -> Iterator[Engine]:
        """The harness's own way of steering, on the entries of the file."""
        if not options.allow_pickle:
            raise InputError(
                f"{folder / LM_EVAL_FILE} is a pickle, which the harness unpickles; to open it, say --allow-pickle",
                code="pickle-refused",
            )
        try:
            from lm_eval.models.hf_steered import SteeredModel, steer
        except ModuleNotFoundError as cause:
            raise InputError(
                f"this needs lm-evaluation-harness, and {cause.name} is not installed; run: pip install 'trimtab[lm-eval]'"
            ) from cause
        entries = _read(folder / LM_EVAL_FILE)
        vectors = {name: entry["steering_vector"].to(model.device, model.hf_model.dtype) for name, entry in entries.items()}

        add = SteeredModel.add  # type: ignore[attr-defined]  # the registry's decorator hides its type
        hooks = {name: partial(add, vector=vector, head_index=None) for name, vector in vectors.items()}
        yield TransformersEngine(f"lm_eval {version('lm_eval')}", model.hf_model, on=lambda _: steer(model.hf_model, hooks))


def _read(path: Path) -> dict[str, dict[str, Tensor]]:
    try:
        return torch.load(path, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as cause:
        raise StoreError(f"{path} is missing or not the file that was exported ({cause}); export it again") from cause
