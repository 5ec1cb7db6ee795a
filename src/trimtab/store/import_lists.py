"""Lists of neurons from elsewhere: AdaRAS's CSV, LAPE's files, those of H-Neurons and plain JSON, checked row by row."""

import csv
import io
import json
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, get_args

import numpy as np
from pydantic import ValidationError

from trimtab.errors import InputError
from trimtab.neurons import NEURON_DEFINITION, ModelIdentity, NeuronList, Neurons
from trimtab.store.export_files import check_listed
from trimtab.store.import_h_neurons import read_classifier, read_hprobes
from trimtab.store.list_file import MOST_BYTES, Address, ListFile
from trimtab.store.records import Record
from trimtab.store.values import load_neurons

if TYPE_CHECKING:
    from torch import Tensor

Format = Literal["adaras-csv", "lape", "json", "hprobes", "h-neurons"]
FORMATS: tuple[Format, ...] = get_args(Format)
_ENDINGS: dict[str, Format] = {".csv": "adaras-csv", ".pth": "lape", ".pt": "lape", ".json": "json", ".npy": "h-neurons"}
_UNORDERED = ("lape", "hprobes")
_PICKLES = (".pkl", ".pickle", ".joblib")


def read_neurons(
    path: str | os.PathLike[str],
    model: ModelIdentity,
    form: Format | None = None,
    part: int | None = None,
    k: int | None = None,
) -> Neurons | NeuronList:
    """Read a list of neurons: a file from elsewhere, or the folder of a run's own ranking.

    Args:
        path: the file; or a folder ``neurons/CRITERION``, whose set belongs to the model that it names itself.
        model: the model that the list was made for, as :func:`trimtab.open_model` identifies it.
        form: None goes by the file's ending.
        part: which of the lists of a LAPE file.
        k: the first k neurons only.

    Raises:
        InputError: a file that cannot be used, with the row, or an argument that the format has no use for.
        StoreError: a folder that :func:`trimtab.store.save_neurons` did not write, or a file of an export that was changed since.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.json"
        >>> _ = path.write_text("[[1, 7, 0.5], [0, 3, -0.25]]")
        >>> model = ModelIdentity("m", None, "qwen3", "f", n_layers=2, d_model=4, d_ff=8, vocab_size=9)
        >>> read_neurons(path, model).mean_difference.tolist()
        [0.5, -0.25]
    """
    path = Path(path)
    if path.is_dir():
        found = load_neurons(path)
        return found if k is None else found.top(k)
    check_listed(path)
    form = form or _form_of(path)
    if form not in FORMATS:
        raise InputError(f"cannot tell the format of {path} from its ending; name it, --format: {', '.join(FORMATS)}")
    if form != "lape" and part is not None:
        raise InputError(f"a file of the format {form} holds one list, so there is no part {part} to choose; leave --part out")
    if form in _UNORDERED and k is not None:
        name = "a LAPE" if form == "lape" else "an hprobes"
        raise InputError(f"{name} list is in no order, so it has no first neurons; leave --k out")
    if form == "lape":
        return read_lape(path, model, part)
    read = {"adaras-csv": read_adaras_csv, "json": read_plain_json, "hprobes": read_hprobes, "h-neurons": read_classifier}[form]
    neurons = read(path, model)
    return neurons if k is None else neurons.top(k)


def _form_of(path: Path) -> Format | None:
    """By the ending; a JSON file of hprobes by what is in it. Raises InputError for a pickle."""
    if path.suffix in _PICKLES:
        raise InputError(
            f"{path} is a pickle, which runs code when it is opened, so it is not; the classifier of H-Neurons is one: save its "
            "weights with numpy.save('coef.npy', classifier.coef_) and import that file"
        )
    form = _ENDINGS.get(path.suffix)
    return "hprobes" if form == "json" and b'"h_neurons"' in ListFile.read(path).content else form


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
    facts = file.facts("adaras-csv", NEURON_DEFINITION, neurons=len(addresses))
    return NeuronList(layer, index, "imported-adaras-csv", model, file.numbers(addresses, weights, "weight"), facts)


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


_CELLS = ("layer", "index", "weight")
_FORM = (
    '{"neurons": [{"layer": 0, "index": 7, "weight": 0.5}, ...]}, with "correct_mean" and "incorrect_mean" for "weight" where '
    'the class means are known, or neither, and with "expert" in a mixture of experts; or a list of [layer, index] or '
    "[layer, index, weight]"
)


class _Row(Record):
    """One neuron: its address, where ``index`` counts within the expert if there is one, and ``weight`` (the difference
    correct_mean -
    incorrect_mean), both class means, or nothing.
    """

    layer: int
    index: int
    expert: int | None = None
    weight: float | None = None
    correct_mean: float | None = None
    incorrect_mean: float | None = None


class _Head(Record):
    neuron_definition: Literal["down_proj_input"] = NEURON_DEFINITION
    neurons: list[object]


def read_plain_json(path: Path, model: ModelIdentity) -> Neurons | NeuronList:
    """Read ``{"neurons": [{"layer", "index", "expert"?, "weight"?, "correct_mean"?, "incorrect_mean"?}]}`` or ``[[layer, index,
    weight?]]``.

    Best first, every row with the same keys. With ``correct_mean`` and ``incorrect_mean`` it is a :class:`Neurons`, whose score
    is the row's rank counted backwards, since the file says no other; else a :class:`NeuronList`. The object may say
    ``"neuron_definition"``, which has to be ``"down_proj_input"`` and is taken to be where it is not said.

    Raises:
        InputError: not JSON, an unknown or repeated key, a value of another type, rows that differ in their keys, a neuron
            outside the model or listed twice, each with its row, counted from 0.
    """
    file = ListFile.read(path)
    head = _parse(file)
    rows = [_row(file, number, row) for number, row in enumerate(head.neurons)]
    addresses = [_address(file, number, row, model) for number, row in enumerate(rows)]
    layer, index = file.columns(addresses, model)
    given = _given(file, rows)
    said = NEURON_DEFINITION if "neuron_definition" in head.model_fields_set else f"not said, taken as {NEURON_DEFINITION}"
    facts = file.facts("json", said, neurons=len(rows))
    values = {name: file.numbers(addresses, [getattr(row, name) for row in rows], name) for name in given}
    if "correct_mean" in given:
        score = np.arange(len(rows), 0, -1, dtype=np.float64)
        return Neurons(
            layer=layer,
            index=index,
            score=score,
            correct_mean=values["correct_mean"],
            incorrect_mean=values["incorrect_mean"],
            criterion="imported-json",
            model=model,
            facts=facts,
        )
    return NeuronList(layer, index, "imported-json", model, values.get("weight"), facts)


def _parse(file: ListFile) -> _Head:
    try:
        content = json.loads(file.text(), parse_constant=_refuse_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as cause:
        raise InputError(f"{file.path} is not JSON that can be used: {cause}; accepted: {_FORM}") from cause
    try:
        return _Head.model_validate(content if isinstance(content, dict) else {"neurons": content})
    except ValidationError as cause:
        raise InputError(f"{file.path}: {_problem(cause)}; accepted: {_FORM}") from cause


def _row(file: ListFile, number: int, row: object) -> _Row:
    if isinstance(row, list) and len(row) in (2, 3):
        row = dict(zip(_CELLS, row, strict=False))
    if not isinstance(row, dict):
        form = f"a list of {len(row)}" if isinstance(row, list) else f"a {type(row).__name__}"
        raise file.refuse(f"row {number}", f"{form} is no neuron; accepted: {_FORM}")
    try:
        return _Row.model_validate(row)
    except ValidationError as cause:
        raise file.refuse(f"row {number}", f"{_problem(cause)}; accepted: {_FORM}") from cause


def _address(file: ListFile, number: int, row: _Row, model: ModelIdentity) -> Address:
    where = f"row {number}"
    if (row.expert is not None) != (model.n_experts > 1):
        wanted = f"{model.n_experts} experts a layer: give expert, too" if model.n_experts > 1 else "no experts: leave expert out"
        raise file.refuse(where, f"expert is {row.expert}, and {model.name} has {wanted}")
    if row.expert is None:
        return Address(where, row.layer, row.index)
    if not (0 <= row.expert < model.n_experts and 0 <= row.index < model.d_expert):
        raise file.refuse(
            where,
            f"(expert {row.expert}, index {row.index}) is outside {model.name}, which has {model.n_experts} experts of "
            f"{model.d_expert} neurons a layer, both counted from 0",
        )
    return Address(where, row.layer, row.expert * model.d_expert + row.index)


def _given(file: ListFile, rows: Sequence[_Row]) -> tuple[str, ...]:
    """The values that every row has: nothing, ``weight``, or ``correct_mean`` and ``incorrect_mean``."""
    kinds = [
        tuple(name for name in ("weight", "correct_mean", "incorrect_mean") if getattr(row, name) is not None) for row in rows
    ]
    for number, kind in enumerate(kinds):
        if kind not in ((), ("weight",), ("correct_mean", "incorrect_mean")) or kind != kinds[0]:
            found, first = (" and ".join(names) or "an address only" for names in (kind, kinds[0]))
            raise file.refuse(
                f"row {number}",
                f"{found}, where row 0 has {first}; every row needs the same: an address only, weight, or correct_mean and "
                "incorrect_mean",
            )
    return kinds[0]


def _problem(cause: ValidationError) -> str:
    first = cause.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"unknown key {where!r}" if first["type"] == "extra_forbidden" else f"{where}: {first['msg']}".removeprefix(": ")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key stands twice among {', '.join(name for name, _ in pairs)[:200]}")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")


DEFINITION = "act(gate_proj(h)); in an ungated FFN act(fc1(h))"


def read_lape(path: Path, model: ModelIdentity, part: int | None = None) -> NeuronList:
    """Read one language's list, by layer and in the order of the file, which says nothing of rank.

    Nothing in the file is executed: torch's loader of weights builds tensors and plain containers only.

    Args:
        path: what ``torch.save`` wrote of ``list[list[LongTensor]]``, or of one language's ``list[LongTensor]``.
        model: has as many layers as the file.
        part: which language, from 0; LAPE's own files hold en, zh, fr, es, vi, id, ja. Not for a file of one language.

    Raises:
        InputError: anything but such lists, another number of layers, no such part, or a neuron outside the model.
    """
    file = ListFile.read(path)
    file.refuse_experts(model)
    layers = _chosen(file, _load(file), part)
    if len(layers) != model.n_layers:
        raise InputError(
            f"{path} has lists for {len(layers)} layers, and {model.name} has {model.n_layers}; "
            "give the model that the list was made for"
        )
    addresses = [
        Address(f"layer {layer}, entry {entry}", layer, index)
        for layer, tensor in enumerate(layers)
        for entry, index in enumerate(_indices(file, layer, tensor, model))
    ]
    layer, index = file.columns(addresses, model)
    facts = file.facts("lape", DEFINITION, neurons=len(addresses), **({} if part is None else {"part": part}))
    return NeuronList(layer, index, "imported-lape", model, None, facts)


def _load(file: ListFile) -> object:
    import torch

    _check_archive(file)
    try:
        # not the pickle module: an interpreter of the few opcodes and constructors that tensors and containers need
        return torch.load(io.BytesIO(file.content), map_location="cpu", weights_only=True)
    except Exception as cause:
        # hostile bytes make it raise almost anything; its own message is not passed on, for it advises to unpickle
        raise InputError(
            f"{file.path} holds something other than plain lists of tensors ({type(cause).__name__}), so it was refused and "
            "nothing in it was executed; save it as a list of lists of LongTensor, or write the neurons as JSON"
        ) from cause


def _check_archive(file: ListFile) -> None:
    """Raise InputError unless the file is a zip archive, as torch.save writes it, that stays small when it is unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as cause:
        raise InputError(f"{file.path} is no archive of torch.save ({cause}); save it again with torch 1.6 or newer") from cause
    if unpacked > MOST_BYTES:
        raise InputError(f"{file.path} unpacks to {unpacked:,} bytes, and a list of neurons to at most {MOST_BYTES:,}")


def _chosen(file: ListFile, content: object, part: int | None) -> "list[Tensor]":
    """One language's tensors, one a layer."""
    if not isinstance(content, list) or not content:
        raise InputError(
            f"{file.path} holds no list, but a {type(content).__name__}; "
            "LAPE's files hold a list of languages, each a list of layers"
        )
    if not isinstance(content[0], list):
        if part is not None:
            raise InputError(f"{file.path} holds one list of neurons, so there is no part {part} to choose; leave --part out")
        return content
    if part is None or not 0 <= part < len(content):
        asked = "none was chosen" if part is None else f"there is no part {part}"
        raise InputError(f"{file.path} holds {len(content)} lists of neurons, and {asked}; give --part 0 to {len(content) - 1}")
    if not isinstance(content[part], list):
        raise file.refuse(f"part {part}", f"expected a list of layers, got a {type(content[part]).__name__}")
    return content[part]


def _indices(file: ListFile, layer: int, tensor: object, model: ModelIdentity) -> list[int]:
    import torch

    where = f"layer {layer}"
    if not isinstance(tensor, torch.Tensor):
        raise file.refuse(where, f"expected a tensor of indices, got a {type(tensor).__name__}")
    if tensor.dtype != torch.int64 or tensor.dim() != 1 or tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise file.refuse(where, f"expected a flat int64 tensor of indices, got {tensor.dtype} of shape {list(tensor.shape)}")
    # before tolist: a view with stride 0 has any length at no cost in the file
    if len(tensor) > model.d_ff:
        raise file.refuse(where, f"{len(tensor)} indices, and {model.name} has {model.d_ff} neurons a layer")
    return tensor.tolist()
