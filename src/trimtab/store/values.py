"""Neuron sets and gates on disk: arrays as safetensors, everything else as JSON that a person can read."""

import hashlib
import os
from collections.abc import Mapping
from typing import Any, Literal

from numpy.typing import NDArray
from pydantic import SerializerFunctionWrapHandler, model_serializer

from trimtab.directions import Directions
from trimtab.errors import InputError, StoreError
from trimtab.gate import (
    AnyGate,
    AttentionGate,
    Gate,
    GateKind,
    GateMode,
    Join,
    Pooling,
    RandomOpening,
    RunningAction,
    RunningGate,
)
from trimtab.neurons import NEURON_DEFINITION, ModelIdentity, Neurons
from trimtab.store.atomic import plain, unreadable, write_json
from trimtab.store.records import Record, read_record
from trimtab.store.remote import AnyPath, any_path, read_bytes
from trimtab.store.tensors import load_tensors, save_tensors

NEURON_COLUMNS = ("layer", "index", "score", "correct_mean", "incorrect_mean")


class NeuronRecord(Record):
    """neurons.json. ``share`` is K over all neurons of the model; ``tensors_sha256`` ties it to its neurons.safetensors."""

    criterion: str
    neuron_definition: Literal["down_proj_input"]
    k: int
    share: float
    model: ModelIdentity
    facts: dict[str, object]
    tensors_sha256: str


def save_neurons(neurons: Neurons, folder: str | os.PathLike[str] | AnyPath, under: str = "") -> None:
    """Write neurons.safetensors, then neurons.json; facts come back equal, with tuples as lists.

    Args:
        neurons: what to write.
        folder: where.
        under: the key that they were made under, where the folder lies outside its result.

    Raises:
        InputError: facts that JSON cannot hold.
        StoreError: the folder cannot be written.
    """
    folder, facts = any_path(folder), plain_facts(neurons.facts)
    tensors = folder / "neurons.safetensors"
    save_columns(tensors, neurons, NEURON_COLUMNS)
    record = NeuronRecord(
        criterion=neurons.criterion,
        neuron_definition=NEURON_DEFINITION,
        k=len(neurons),
        share=neurons.share,
        model=neurons.model,
        facts=facts,
        tensors_sha256=sha256_of(tensors),
    )
    write_json(folder / "neurons.json", record.model_dump(), under)


def load_neurons(folder: str | os.PathLike[str] | AnyPath) -> Neurons:
    """Read what :func:`save_neurons` wrote, exactly.

    Raises:
        StoreError: a file is missing, truncated or edited, or the two do not belong together.
    """
    folder = any_path(folder)
    record = read_record(folder / "neurons.json", NeuronRecord, "")
    path = folder / "neurons.safetensors"
    check_pair(path, record.tensors_sha256)
    layer, index, score, correct_mean, incorrect_mean = load_columns(path, NEURON_COLUMNS, record.k)
    try:
        return Neurons(layer, index, score, correct_mean, incorrect_mean, record.criterion, record.model, record.facts)
    except InputError as cause:
        raise unreadable(path, "neuron", cause) from cause


DIRECTION_COLUMNS = ("layer", "vector")


class DirectionsRecord(Record):
    """directions.json; ``tensors_sha256`` ties it to its directions.safetensors."""

    criterion: str
    n: int
    model: ModelIdentity
    facts: dict[str, object]
    tensors_sha256: str


def save_directions(directions: Directions, folder: str | os.PathLike[str] | AnyPath) -> None:
    """Write directions.safetensors, then directions.json; errors as of :func:`save_neurons`."""
    folder, facts = any_path(folder), plain_facts(directions.facts)
    tensors = folder / "directions.safetensors"
    save_columns(tensors, directions, DIRECTION_COLUMNS)
    record = DirectionsRecord(
        criterion=directions.criterion,
        n=len(directions),
        model=directions.model,
        facts=facts,
        tensors_sha256=sha256_of(tensors),
    )
    write_json(folder / "directions.json", record.model_dump(), "")


def load_directions(folder: str | os.PathLike[str] | AnyPath) -> Directions:
    """Read what :func:`save_directions` wrote, exactly; errors as of :func:`load_neurons`."""
    folder = any_path(folder)
    record = read_record(folder / "directions.json", DirectionsRecord, "")
    path = folder / "directions.safetensors"
    check_pair(path, record.tensors_sha256)
    found = load_arrays(path, {"layer": (record.n,), "vector": (record.n, record.model.d_model)})
    try:
        return Directions(found["layer"], found["vector"], record.criterion, record.model, record.facts)
    except InputError as cause:
        raise unreadable(path, "direction", cause) from cause


def plain_facts(facts: dict[str, object]) -> dict[str, object]:
    """Facts as JSON holds them; raises InputError that names the fact that JSON cannot hold."""
    return {str(key): plain(value, f"facts.{key}") for key, value in facts.items()}


_DTYPES = {
    **dict.fromkeys(("layer", "index", "direction_layer", "question_layer", "question_index"), "int64"),
    "score": "float64",
}


def save_columns(path: AnyPath, values: object, names: tuple[str, ...]) -> None:
    """Write the named arrays of a value. Raises InputError for a dtype that :func:`load_arrays` would refuse, and StoreError."""
    save_arrays(path, {name: getattr(values, name) for name in names})


def save_arrays(path: AnyPath, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by their names. Raises as :func:`save_columns`."""
    for name, array in columns.items():
        if array.dtype.name != _DTYPES.get(name, "float32"):
            raise InputError(
                f"column {name!r} for {path} is {array.dtype}; convert it with astype({_DTYPES.get(name, 'float32')!r}) first"
            )
    save_tensors(path, dict(columns), {"neuron_definition": NEURON_DEFINITION})


def load_columns(path: AnyPath, names: tuple[str, ...], length: int) -> list[NDArray[Any]]:
    """Named columns of one file, ``[length]`` each; see :func:`load_arrays`."""
    arrays = load_arrays(path, dict.fromkeys(names, (length,)))
    return [arrays[name] for name in names]


def load_arrays(path: AnyPath, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
    """The arrays of one file, checked: exactly these names and shapes, int64 addresses, float64 scores of neurons, else float32.

    Raises:
        StoreError: the file is missing or truncated, or holds something else.
    """
    tensors, _ = load_tensors(path)
    expected = {name: (_DTYPES.get(name, "float32"), shape) for name, shape in shapes.items()}
    found = {name: (array.dtype.name, array.shape) for name, array in tensors.items()}
    if found != expected:
        raise StoreError(
            f"{path} holds {found}, expected {expected} (dtype and shape); write it again or fetch an unchanged copy"
        )
    return tensors


def sha256_of(path: AnyPath) -> str:
    """SHA-256 of a file, as hex."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def check_pair(path: AnyPath, sha256: str) -> None:
    """Raise StoreError unless the file is the one that its JSON was written for."""
    try:
        found = sha256_of(path)
    except OSError as cause:
        raise unreadable(path, "safetensors", cause) from cause
    if found != sha256:
        raise StoreError(
            f"{path} and {path.with_suffix('.json').name} do not belong together: one was changed, truncated or left by a "
            "killed run; delete both and run the same command again"
        )


QUESTION = "question_"
"""What the names of the question gate's arrays begin with."""


class RunningRecord(Record):
    """What a running gate has beside the keys of all gates; ``question`` is the record of the gate that is joined with it."""

    memory: int
    action: RunningAction
    release: float | None
    after: int
    join: Join
    question: "GateRecord | None"


class GateRecord(Record):
    """A gate without its arrays, as in the config.json of an artifact.

    ``units`` and ``query_bias`` are of an attention gate, ``running`` is of a running one and absent from every other record.
    """

    kind: GateKind | Literal["attention", "running"]
    mode: GateMode
    bias: float
    threshold: float | None
    n_features: int
    facts: dict[str, object]
    pooling: Pooling = "last"
    units: int = 0
    query_bias: float = 0.0
    running: RunningRecord | None = None

    @classmethod
    def of(cls, gate: AnyGate) -> "GateRecord":
        """The record of a gate. Raises InputError for the control of a running gate."""
        if isinstance(gate, RandomOpening):
            raise InputError("the control of a running gate is not kept on disk; save the running gate")
        own = {"units": len(gate.offset), "query_bias": float(gate.query_bias)} if isinstance(gate, AttentionGate) else {}
        return cls(
            kind=gate.kind,
            mode="hard" if isinstance(gate, RunningGate) else gate.mode,
            bias=float(gate.bias),
            threshold=_number(gate.threshold),
            n_features=len(gate.layer),
            facts=plain_facts(gate.facts),
            pooling=gate.pooling if isinstance(gate, Gate) else "last",
            running=_running_record(gate) if isinstance(gate, RunningGate) else None,
            **own,
        )

    @model_serializer(mode="wrap")
    def _without_absent(self, plain: SerializerFunctionWrapHandler) -> dict[str, object]:
        # the digests of artifacts that were made before there were running gates do not know the key
        return {key: value for key, value in plain(self).items() if key != "running" or value is not None}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays that belong to it."""
        row, unit = (self.n_features,), (self.units,)
        if self.kind == "attention":
            wide = (self.units, self.n_features)
            return {"layer": row, "index": row, "query": row, "hidden": wide, "offset": unit, "output": unit}
        own = {"layer": row, "index": row, "weight": row}
        if self.running is None or self.running.question is None:
            return own
        return own | {f"question_{name}": shape for name, shape in self.running.question.shapes.items()}


RunningRecord.model_rebuild()


def _running_record(gate: RunningGate) -> RunningRecord:
    return RunningRecord(
        memory=gate.memory,
        action=gate.action,
        release=_number(gate.release),
        after=gate.after,
        join=gate.join,
        question=None if gate.question is None else GateRecord.of(gate.question),
    )


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


class GateFile(GateRecord):
    """gate.json of a run."""

    tensors_sha256: str


def save_gate(gate: AnyGate, folder: str | os.PathLike[str] | AnyPath) -> None:
    """Write gate.safetensors (with no rows for a gate that reads nothing), then gate.json.

    Raises:
        InputError: facts that JSON cannot hold.
        StoreError: the folder cannot be written.
    """
    folder, record = any_path(folder), GateRecord.of(gate)
    tensors = folder / "gate.safetensors"
    save_arrays(tensors, gate.arrays)
    write_json(folder / "gate.json", {**record.model_dump(), "tensors_sha256": sha256_of(tensors)}, "")


def load_gate(folder: str | os.PathLike[str] | AnyPath) -> AnyGate:
    """Read what :func:`save_gate` wrote, exactly.

    Raises:
        StoreError: a file is missing, truncated or edited, or the two do not belong together.
    """
    folder = any_path(folder)
    record = read_record(folder / "gate.json", GateFile, "")
    path = folder / "gate.safetensors"
    check_pair(path, record.tensors_sha256)
    return gate_of(record, path)


def gate_of(record: GateRecord, path: AnyPath | None) -> AnyGate:
    """The gate of a record and its tensors; ``path`` is None for a gate without features. Raises StoreError."""
    arrays = {} if path is None else load_arrays(path, record.shapes)
    try:
        return _gate_of(record, arrays)
    except InputError as cause:
        raise StoreError(f"the gate's record and {path or 'its missing tensors'} make no gate: {cause}; save it again") from cause


def _gate_of(record: GateRecord, arrays: Mapping[str, NDArray[Any]]) -> AnyGate:
    own = {name: array for name, array in arrays.items() if not name.startswith(QUESTION)}
    common = {"bias": record.bias, "threshold": record.threshold, "facts": record.facts, **own}
    if (record.kind == "running") != (record.running is not None):
        raise InputError(f"a record of kind {record.kind!r} {'lacks' if record.running is None else 'has'} the key 'running'")
    if record.running is not None:
        if not own:
            raise InputError("a running gate without features")
        words = record.running.model_dump(exclude={"question"})
        return RunningGate(question=_question_of(record.running.question, arrays), **words, **common)
    if record.kind == "attention":
        if not own:
            raise InputError("an attention gate without features")
        return AttentionGate(mode=record.mode, query_bias=record.query_bias, **common)
    return Gate(record.kind, mode=record.mode, pooling=record.pooling, **common)  # type: ignore[arg-type]  # running went above


def _question_of(record: GateRecord | None, arrays: Mapping[str, NDArray[Any]]) -> Gate | None:
    if record is None:
        return None
    gate = _gate_of(record, {name.removeprefix(QUESTION): a for name, a in arrays.items() if name.startswith(QUESTION)})
    if not isinstance(gate, Gate):
        raise InputError(f"a running gate is joined with a linear gate, not with one of kind {gate.kind!r}")
    return gate
