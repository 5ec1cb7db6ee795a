"""Gates on disk: arrays as safetensors, everything else as JSON that a person can read."""

from typing import Literal

from trimtab.errors import InputError, StoreError
from trimtab.gate import AnyGate, AttentionGate, Gate, GateKind, GateMode, Pooling
from trimtab.store.atomic import write_json
from trimtab.store.neuron_files import check_pair, load_arrays, plain_facts, save_columns, sha256_of
from trimtab.store.records import Record, read_record
from trimtab.store.remote import AnyPath


class GateRecord(Record):
    """A gate without its arrays, as in the config.json of an artifact. ``units`` and ``query_bias`` are of an attention gate."""

    kind: GateKind | Literal["attention"]
    mode: GateMode
    bias: float
    threshold: float | None
    n_features: int
    facts: dict[str, object]
    pooling: Pooling = "last"
    units: int = 0
    query_bias: float = 0.0

    @classmethod
    def of(cls, gate: AnyGate) -> "GateRecord":
        """The record of a gate."""
        own = {"units": len(gate.offset), "query_bias": float(gate.query_bias)} if isinstance(gate, AttentionGate) else {}
        return cls(
            kind=gate.kind,
            mode=gate.mode,
            bias=float(gate.bias),
            threshold=None if gate.threshold is None else float(gate.threshold),
            n_features=len(gate.layer),
            facts=plain_facts(gate.facts),
            pooling=gate.pooling if isinstance(gate, Gate) else "last",
            **own,
        )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays that belong to it."""
        row, unit = (self.n_features,), (self.units,)
        if self.kind == "attention":
            wide = (self.units, self.n_features)
            return {"layer": row, "index": row, "query": row, "hidden": wide, "offset": unit, "output": unit}
        return {"layer": row, "index": row, "weight": row}


class GateFile(GateRecord):
    """gate.json of a run."""

    tensors_sha256: str


def save_gate(gate: AnyGate, folder: AnyPath) -> None:
    """Write gate.safetensors (with no rows for a gate that reads nothing), then gate.json.

    Raises:
        InputError: facts that JSON cannot hold.
        StoreError: the folder cannot be written.
    """
    record = GateRecord.of(gate)
    tensors = folder / "gate.safetensors"
    save_columns(tensors, gate, tuple(gate.arrays))
    write_json(folder / "gate.json", {**record.model_dump(), "tensors_sha256": sha256_of(tensors)})


def load_gate(folder: AnyPath) -> AnyGate:
    """Read what :func:`save_gate` wrote, exactly.

    Raises:
        StoreError: a file is missing, truncated or edited, or the two do not belong together.
    """
    record = read_record(folder / "gate.json", GateFile)
    path = folder / "gate.safetensors"
    check_pair(path, record.tensors_sha256)
    return gate_of(record, path)


def gate_of(record: GateRecord, path: AnyPath | None) -> AnyGate:
    """The gate of a record and its tensors; ``path`` is None for a gate without features. Raises StoreError."""
    arrays = {} if path is None else load_arrays(path, record.shapes)
    common = {"mode": record.mode, "bias": record.bias, "threshold": record.threshold, "facts": record.facts, **arrays}
    try:
        if record.kind == "attention":
            if not arrays:
                raise InputError("an attention gate without features")
            return AttentionGate(query_bias=record.query_bias, **common)
        return Gate(record.kind, pooling=record.pooling, **common)
    except InputError as cause:
        raise StoreError(f"the gate's record and {path or 'its missing tensors'} make no gate: {cause}; save it again") from cause
