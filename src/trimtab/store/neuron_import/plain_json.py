"""Plain JSON: what anybody can write who knows addresses, with or without a number each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
from pydantic import ValidationError

from trimtab.errors import InputError
from trimtab.neurons import NEURON_DEFINITION, ModelIdentity, NeuronList, Neurons
from trimtab.store.neuron_import.listed import Address, ListFile
from trimtab.store.records import Record

NAME = "json"
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
    facts = file.facts(NAME, said, neurons=len(rows))
    values = {name: file.numbers(addresses, [getattr(row, name) for row in rows], name) for name in given}
    if "correct_mean" in given:
        score = np.arange(len(rows), 0, -1, dtype=np.float64)
        return Neurons(
            layer=layer,
            index=index,
            score=score,
            correct_mean=values["correct_mean"],
            incorrect_mean=values["incorrect_mean"],
            criterion=f"imported-{NAME}",
            model=model,
            facts=facts,
        )
    return NeuronList(layer, index, f"imported-{NAME}", model, values.get("weight"), facts)


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
