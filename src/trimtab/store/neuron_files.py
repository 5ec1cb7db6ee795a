"""Neuron sets and gates on disk: arrays as safetensors, everything else as JSON that a person can read."""

import hashlib
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from trimtab.errors import InputError, StoreError
from trimtab.gate import Gate, GateKind, GateMode
from trimtab.neurons import NEURON_DEFINITION, NeuronSet
from trimtab.store.atomic import plain, unreadable, write_json
from trimtab.store.records import ModelRecord, Record, read_record
from trimtab.store.tensors import load_tensors, save_tensors

NEURON_COLUMNS = ("layer", "index", "score", "good", "bad")
GATE_COLUMNS = ("layer", "index", "weight")


class NeuronRecord(Record):
    """neurons.json. ``share`` is K over all neurons of the model; ``tensors_sha256`` ties it to its neurons.safetensors."""

    criterion: str
    neuron_definition: Literal["down_proj_input"]
    k: int
    share: float
    model: ModelRecord
    facts: dict[str, object]
    tensors_sha256: str


class GateRecord(Record):
    """A gate without its arrays, as in the config.json of an artifact."""

    kind: GateKind
    mode: GateMode
    bias: float
    threshold: float
    n_features: int
    facts: dict[str, object]

    @classmethod
    def of(cls, gate: Gate) -> "GateRecord":
        """The record of a gate."""
        return cls(
            kind=gate.kind,
            mode=gate.mode,
            bias=float(gate.bias),
            threshold=float(gate.threshold),
            n_features=len(gate.layer),
            facts=plain_facts(gate.facts),
        )


class GateFile(GateRecord):
    """gate.json of a run."""

    tensors_sha256: str


def save_neurons(neurons: NeuronSet, folder: Path) -> None:
    """Write neurons.safetensors, then neurons.json; facts come back equal, with tuples as lists.

    Raises:
        InputError: facts that JSON cannot hold.
        StoreError: the folder cannot be written.
    """
    facts = plain_facts(neurons.facts)
    tensors = folder / "neurons.safetensors"
    save_columns(tensors, neurons, NEURON_COLUMNS)
    record = NeuronRecord(
        criterion=neurons.criterion,
        neuron_definition=NEURON_DEFINITION,
        k=len(neurons),
        share=neurons.share,
        model=ModelRecord.of(neurons.model),
        facts=facts,
        tensors_sha256=_sha256(tensors),
    )
    write_json(folder / "neurons.json", record.model_dump())


def load_neurons(folder: Path) -> NeuronSet:
    """Read what :func:`save_neurons` wrote, exactly.

    Raises:
        StoreError: a file is missing, truncated or edited, or the two do not belong together.
    """
    record = read_record(folder / "neurons.json", NeuronRecord)
    path = folder / "neurons.safetensors"
    _check_pair(path, record.tensors_sha256)
    layer, index, score, good, bad = load_columns(path, NEURON_COLUMNS, record.k)
    try:
        return NeuronSet(layer, index, score, good, bad, record.criterion, record.model.identity(), record.facts)
    except InputError as cause:
        raise unreadable(path, "neuron", cause) from cause


def save_gate(gate: Gate, folder: Path) -> None:
    """Write gate.safetensors (with no rows for a gate that reads nothing), then gate.json.

    Raises:
        InputError: facts that JSON cannot hold.
        StoreError: the folder cannot be written.
    """
    record = GateRecord.of(gate)
    tensors = folder / "gate.safetensors"
    save_columns(tensors, gate, GATE_COLUMNS)
    write_json(folder / "gate.json", {**record.model_dump(), "tensors_sha256": _sha256(tensors)})


def load_gate(folder: Path) -> Gate:
    """Read what :func:`save_gate` wrote, exactly.

    Raises:
        StoreError: a file is missing, truncated or edited, or the two do not belong together.
    """
    record = read_record(folder / "gate.json", GateFile)
    path = folder / "gate.safetensors"
    _check_pair(path, record.tensors_sha256)
    return gate_of(record, path)


def gate_of(record: GateRecord, path: Path | None) -> Gate:
    """The gate of a record and its tensors; ``path`` is None for a gate without features. Raises StoreError."""
    columns = () if path is None else load_columns(path, GATE_COLUMNS, record.n_features)
    values = dict(zip(GATE_COLUMNS, columns, strict=False))
    try:
        return Gate(record.kind, record.mode, bias=record.bias, threshold=record.threshold, facts=record.facts, **values)
    except InputError as cause:
        raise StoreError(f"the gate's record and {path or 'its missing tensors'} make no gate: {cause}; save it again") from cause


def plain_facts(facts: dict[str, object]) -> dict[str, object]:
    """Facts as JSON holds them; raises InputError that names the fact that JSON cannot hold."""
    return {str(key): plain(value, f"facts.{key}") for key, value in facts.items()}


_DTYPES = {"layer": "int64", "index": "int64", "score": "float64"}


def save_columns(path: Path, values: object, names: tuple[str, ...]) -> None:
    """Write the named arrays of a value. Raises InputError for a dtype that :func:`load_columns` would refuse, and StoreError."""
    columns: dict[str, NDArray[Any]] = {name: getattr(values, name) for name in names}
    for name, array in columns.items():
        if array.dtype.name != _DTYPES.get(name, "float32"):
            raise InputError(
                f"column {name!r} for {path} is {array.dtype}; convert it with astype({_DTYPES.get(name, 'float32')!r}) first"
            )
    save_tensors(path, columns, {"neuron_definition": NEURON_DEFINITION})


def load_columns(path: Path, names: tuple[str, ...], length: int) -> list[NDArray[Any]]:
    """Named columns of one file, checked: exactly these names, ``[length]`` each, int64 addresses, float64 scores, else float32.

    Raises:
        StoreError: the file is missing or truncated, or holds something else.
    """
    tensors, _ = load_tensors(path)
    expected = {name: (_DTYPES.get(name, "float32"), (length,)) for name in names}
    found = {name: (array.dtype.name, array.shape) for name, array in tensors.items()}
    if found != expected:
        raise StoreError(
            f"{path} holds {found}, expected {expected} (dtype and shape); write it again or fetch an unchanged copy"
        )
    return [tensors[name] for name in names]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_pair(path: Path, sha256: str) -> None:
    """Raise StoreError unless the file is the one that its JSON was written for."""
    try:
        found = _sha256(path)
    except OSError as cause:
        raise unreadable(path, "safetensors", cause) from cause
    if found != sha256:
        raise StoreError(
            f"{path} and {path.with_suffix('.json').name} do not belong together: one was changed, truncated or left by a "
            "killed run; delete both and run the same command with --resume"
        )
