"""The CSV lists of the AdaRAS release (arXiv 2601.19847): ``overall_neuron_index = layer * d_ff + index``, ``weight = delta``."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from trimtab.errors import InputError
from trimtab.neurons import NEURON_DEFINITION, ModelIdentity, NeuronList
from trimtab.store.neuron_import.listed import Address, ListFile

NAME = "adaras-csv"
_NEEDED = ("overall_neuron_index", "weight")
# "useless" says in words which sign the weight has
_KNOWN = (*_NEEDED, "layer", "neuron_index_in_layer", "abs_weight", "useless")
_WHOLE = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

Row = Mapping[str, str]


def read_adaras_csv(path: Path, model: ModelIdentity) -> NeuronList:
    """Read a list as AdaRAS writes it, in its order.

    Columns: ``overall_neuron_index`` and ``weight``; where ``layer``, ``neuron_index_in_layer`` and ``abs_weight`` stand beside
    them they have to agree. Not guaranteed without the former two: that the list was made for layers of this model's width.

    Raises:
        InputError: another column, a value that is no number, a neuron outside the model or listed twice, each with its line.
    """
    file = ListFile.read(path)
    file.refuse_experts(model)
    addresses: list[Address] = []
    weights: list[float] = []
    for where, row in _rows(file):
        flat, weight = _whole(file, where, row, "overall_neuron_index"), _number(file, where, row, "weight")
        _check_width(file, where, row, flat, model)
        if "abs_weight" in row and _number(file, where, row, "abs_weight") != abs(weight):
            raise file.refuse(where, f"abs_weight {row['abs_weight']} is not the size of weight {row['weight']}")
        addresses.append(Address(where, *divmod(flat, model.d_ff)))
        weights.append(weight)
    layer, index = file.columns(addresses, model)
    facts = file.facts(NAME, NEURON_DEFINITION, neurons=len(addresses))
    return NeuronList(layer, index, f"imported-{NAME}", model, file.numbers(addresses, weights, "weight"), facts)


def _rows(file: ListFile) -> Sequence[tuple[str, Row]]:
    """The rows below the header, each with its line."""
    reader = csv.DictReader(io.StringIO(file.text(), newline=""), strict=True)
    try:
        names = list(reader.fieldnames or [])
        _check_header(file, names)
        rows = [(f"line {reader.line_num}", row) for row in reader]
    except csv.Error as cause:
        raise file.refuse(f"after line {reader.line_num}", f"{cause}; give a CSV file with commas between the fields") from cause
    for where, row in rows:
        if None in row or None in row.values():
            raise file.refuse(where, f"expected {len(names)} fields, one a column")
    return rows


def _check_header(file: ListFile, names: list[str]) -> None:
    """Raise InputError unless every needed column is there, each one is known and stands once."""
    unknown, missing = sorted({*names} - {*_KNOWN}), [name for name in _NEEDED if name not in names]
    half = ("layer" in names) != ("neuron_index_in_layer" in names)
    if unknown or missing or half or len(set(names)) < len(names):
        raise InputError(
            f"{file.path} has the columns {', '.join(map(repr, names))[:500] or 'none'}; needed: {', '.join(_NEEDED)}; accepted "
            f"beside them, each once: {', '.join(_KNOWN[2:])} (layer and neuron_index_in_layer together). "
            "Rename or remove the others"
        )


def _check_width(file: ListFile, where: str, row: Row, flat: int, model: ModelIdentity) -> None:
    """Raise InputError where the list's own layer and index say that its layers have another width than the model's."""
    if "layer" not in row:
        return
    layer, index = _whole(file, where, row, "layer"), _whole(file, where, row, "neuron_index_in_layer")
    if flat == layer * model.d_ff + index:
        return
    fits = f"; they fit layers of {(flat - index) // layer}" if layer and flat > index and not (flat - index) % layer else ""
    raise file.refuse(
        where,
        f"overall_neuron_index {flat}, layer {layer} and neuron_index_in_layer {index} do not fit {model.name}, whose layers "
        f"have {model.d_ff} neurons{fits}. Give the model that the list was made for",
    )


def _whole(file: ListFile, where: str, row: Row, name: str) -> int:
    if not _WHOLE.fullmatch(row[name]):
        raise file.refuse(where, f"{name} is {row[name][:50]!r}; it must be a whole number, 0 or more")
    return int(row[name])


def _number(file: ListFile, where: str, row: Row, name: str) -> float:
    if not _NUMBER.fullmatch(row[name]):
        raise file.refuse(where, f"{name} is {row[name][:50]!r}; it must be a finite number")
    return float(row[name])
