"""The artifact: a folder with a steering that others can load, check against their model and read about on its model card."""

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from trimtab.directions import layers_in_words
from trimtab.errors import InputError, StoreError
from trimtab.neurons import NEURON_DEFINITION, ModelIdentity
from trimtab.steering import PositionScope, Steering
from trimtab.store.atomic import digest_of, read_json, replace_folder, unreadable, write_json, write_text, writing
from trimtab.store.export_files import EXPORT, check_files
from trimtab.store.hub import download, upload
from trimtab.store.records import Record, read_record
from trimtab.store.remote import AnyPath, any_path, as_os_errors, is_partial
from trimtab.store.values import (
    GateRecord,
    gate_of,
    load_arrays,
    load_columns,
    plain_facts,
    save_arrays,
    save_columns,
    sha256_of,
)

CONFIG, NEURONS, GATE, CARD = "config.json", "neurons.safetensors", "gate.safetensors", "README.md"
DIRECTIONS = "directions.safetensors"
STEERING_COLUMNS = ("layer", "index", "gain", "shift")
NEURONS_ONLY, WITH_MORE = 2, 3
"""Versions of the format: a steering without directions and running gate is written as it was before there were any."""

_FILES = (CONFIG, NEURONS, GATE, DIRECTIONS, CARD)
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_FRESH = "fetch an unchanged copy or save it again"
_PACKAGES = ("trimtab", "torch", "transformers", "numpy", "safetensors")


class ArtifactConfig(Record):
    """config.json of an artifact.

    Args:
        versions: of the packages that were installed when it was written.
        n_directions: of the residual stream; a file of version 2 has no such key.
        sha256: of every other file that is read, by its name, and under ``config.json`` the digest of all other keys of this one.
    """

    format_version: Literal[2, 3]
    neuron_definition: Literal["down_proj_input"]
    n_neurons: int
    scope: PositionScope
    strength: float
    gate: GateRecord
    model: ModelIdentity
    facts: dict[str, object]
    versions: dict[str, str]
    sha256: dict[str, str]
    n_directions: int = 0

    def stored(self) -> dict[str, object]:
        """All keys of the file but ``sha256``."""
        return self.model_dump(exclude={"sha256"} | ({"n_directions"} if not self.n_directions else set()))

    @property
    def digest(self) -> str:
        """Of all keys but ``sha256``."""
        return digest_of(self.stored())


def save_steering(steering: Steering, folder: str | os.PathLike[str] | AnyPath, force: bool = False) -> AnyPath:
    """Write config.json, neurons.safetensors, gate.safetensors (for a gate with features), directions.safetensors (for a
    steering with directions) and the model card, all or nothing.

    Args:
        steering: what to write; facts may hold ``metrics`` and ``license``, see :func:`trimtab.store.artifact.render_card`.
        folder: made if missing; as text also a URL.
        force: replace an artifact that is there. A folder with anything but an artifact in it is never replaced.

    Returns:
        The folder.

    Raises:
        StoreError: the folder is not empty, or cannot be written.
        InputError: facts that JSON cannot hold, or metrics of another form.
    """
    folder = any_path(folder)
    _refuse_occupied(folder, force)
    with replace_folder(folder, last=CONFIG) as temporary:
        _write_files(steering, temporary, source=folder.name)
    return folder


def load_steering(source: str | os.PathLike[str] | AnyPath, revision: str | None = None) -> Steering:
    """Read an artifact, exactly as it was saved (tuples in facts come back as lists).

    Args:
        source: a folder, or as text its URL or the id of a hub repository, ``owner/name``; an existing folder of that name comes
            first.
        revision: branch, tag or commit of the repository; not allowed with a folder.

    Raises:
        StoreError: nothing there, no network, a truncated file, an unknown key in config.json, or another neuron definition.
    """
    folder = any_path(source)
    if not isinstance(folder, Path) or folder.exists():
        if revision is not None:
            raise StoreError(
                f"{folder} is a folder and has no revision {revision!r}; leave the revision out, or give a hub repository"
            )
    elif isinstance(source, str) and _HUB_ID.fullmatch(source):
        folder = download(source, revision, _FILES)
    else:
        raise StoreError(
            f"{source} does not exist; give the folder of an artifact or the id of a hub repository, owner/name",
            code="no-artifact",
        )
    _refuse_run(folder)
    config = read_record(folder / CONFIG, ArtifactConfig)
    for name in (NEURONS, *([GATE] if config.gate.n_features else []), *([DIRECTIONS] if config.n_directions else [])):
        _check_sha256(folder / name, config.sha256)
    layer, index, gain, shift = load_columns(folder / NEURONS, STEERING_COLUMNS, config.n_neurons)
    gate = gate_of(config.gate, folder / GATE if config.gate.n_features else None)
    try:
        steering = Steering(layer, index, gain, shift, config.strength, config.scope, gate, config.model, config.facts)
        if config.n_directions:
            steering = replace(steering, **_load_directions(folder / DIRECTIONS, config))
    except InputError as cause:
        raise StoreError(f"the files in {folder} make no steering: {cause}; {_FRESH}") from cause
    if config.digest != config.sha256.get(CONFIG):
        raise StoreError(f"{folder / CONFIG} was changed after it was written; {_FRESH}")
    return steering


def push_steering(
    steering: Steering, repo: str, private: bool = True, token: str | None = None, exports: Sequence[str | os.PathLike[str]] = ()
) -> str:
    """Upload the artifact to a hub repository, which is made if missing.

    Args:
        steering: what to upload.
        repo: ``owner/name``.
        private: make a private repository. One that exists and is public is refused rather than made private.
        token: access token; None uses the one of ``hf auth login``.
        exports: folders that :func:`trimtab.export.exporting.export_steering` wrote of this steering, each uploaded as the
            subfolder of its own name.

    Returns:
        The commit's URL.

    Raises:
        StoreError: no network, no permission, a public repository where a private one was asked for, or a folder that is no
            export of this steering.
    """
    folders = {Path(export).resolve().name: Path(export) for export in exports}
    for path in folders.values():
        _check_export(path, steering)
    if len(folders) < len(exports):
        raise StoreError(f"two exports have the same folder name, {sorted(folders)}; rename one: it names the subfolder")
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "steering"
        folder.mkdir()
        _write_files(steering, folder, source=repo)
        for name, path in folders.items():
            (folder / name).mkdir()
            for file in path.iterdir():
                # weights are not copied; uploading follows links of files, not of folders
                (folder / name / file.name).symlink_to(file.resolve())
        return upload(folder, repo, private, token, (*_FILES, *(f"{name}/*" for name in folders)))


def _write_files(steering: Steering, folder: Path, source: str) -> None:
    config = ArtifactConfig(
        format_version=WITH_MORE if steering.has_directions or steering.gate.kind == "running" else NEURONS_ONLY,
        neuron_definition=NEURON_DEFINITION,
        n_neurons=len(steering.layer),
        n_directions=len(steering.direction_layer),
        scope=steering.scope,
        strength=float(steering.strength),
        gate=GateRecord.of(steering.gate),
        model=steering.model,
        facts=plain_facts(steering.facts),
        versions=_versions(),
        sha256={},
    )
    save_columns(folder / NEURONS, steering, STEERING_COLUMNS)
    if config.gate.n_features:
        save_arrays(folder / GATE, steering.gate.arrays)
    if steering.has_directions:
        save_columns(folder / DIRECTIONS, steering, _DIRECTION_COLUMNS)
    sha256 = {name: sha256_of(folder / name) for name in (NEURONS, GATE, DIRECTIONS) if (folder / name).exists()}
    write_json(folder / CONFIG, {**config.stored(), "sha256": {CONFIG: config.digest, **sha256}})
    write_text(folder / CARD, render_card(steering, source))


_DIRECTION_COLUMNS = ("direction_layer", "direction")


def _load_directions(path: AnyPath, config: ArtifactConfig) -> dict[str, NDArray[Any]]:
    n = config.n_directions
    return load_arrays(path, {"direction_layer": (n,), "direction": (n, config.model.d_model)})


def _refuse_occupied(folder: AnyPath, force: bool) -> None:
    with writing(folder), as_os_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise StoreError(f"{folder} is a file; give a folder")
        found = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    entries = {name for name in found if not is_partial(name)}
    foreign = sorted(entries - set(_FILES))
    half = any(is_partial(name, CONFIG) for name in found)  # a killed upload left it
    if foreign or (entries and CONFIG not in entries and not half):
        raise StoreError(
            f"{folder} holds something other than an artifact ({', '.join(foreign or sorted(entries))[:200]}); "
            "choose another folder"
        )
    if CONFIG in entries and not force:
        raise StoreError(
            f"{folder} already holds an artifact; pass force=True (--force) to replace it, or choose another folder",
            code="already-there",
        )


def _check_sha256(path: AnyPath, sha256: Mapping[str, str]) -> None:
    """Raise StoreError unless a file has the bytes that it was saved with."""
    try:
        found = sha256_of(path)
    except OSError as cause:
        raise unreadable(path, "safetensors", cause) from cause
    if found != sha256.get(path.name):
        raise StoreError(
            f"{path} is truncated, damaged or was changed: its SHA-256 is not the one in {CONFIG}; {_FRESH}", code="damaged"
        )


def _refuse_run(folder: AnyPath) -> None:
    """Raise StoreError for a run directory, which holds its artifact in a folder of its own."""
    inside = folder / "steering"
    with as_os_errors(folder):
        if not (folder / CONFIG).exists() and (inside / CONFIG).exists():
            raise StoreError(f"{folder} is a run, not an artifact; its artifact is {inside}: give that folder", code="run-given")


def _check_export(folder: Path, steering: Steering) -> None:
    """Raise StoreError unless the folder's export.json names this steering."""
    record = read_json(folder / EXPORT, "")
    if not isinstance(record, dict) or record.get("steering") != steering.digest or not isinstance(record.get("files"), dict):
        raise StoreError(f"{folder} is no export of this steering; export it again with trimtab export")
    check_files(folder, record["files"])


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            # run from a source tree, or without the optional engine: nothing to state
            continue
    return found


_METRIC_KEYS = {"value", "low", "high", "n"}
_LONGEST_CELL = 200


def render_card(steering: Steering, source: str) -> str:
    """Markdown with YAML front matter.

    Args:
        steering: ``facts["metrics"]``, if there, maps a name to ``{"value": x, "low": x, "high": x, "n": x}``, of which only
            ``value`` is needed and ``low`` to ``high`` is a 95 % interval; ``facts["license"]`` is the licence, ``unknown``
            without it; every other fact is a row of a table.
        source: what to pass to ``Steering.from_pretrained``.

    Raises:
        InputError: metrics of another form.
    """
    facts = {key: value for key, value in steering.facts.items() if key not in ("metrics", "license")}
    environment = Environment(
        loader=PackageLoader("trimtab.store"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(cell=_cell, pystring=repr)
    return environment.get_template("model_card.md.j2").render(
        steering=steering,
        model=steering.model,
        gate=steering.gate,
        source=source,
        licence=str(steering.facts.get("license", "unknown")),
        base_model=steering.model.name if _HUB_ID.fullmatch(steering.model.name) else None,
        n_layers_steered=len(set(steering.layer.tolist())),
        share=f"{100 * len(steering.layer) / steering.model.n_neurons:.3g} %",
        after=layers_in_words(steering.direction_layer),
        metrics=_metrics(steering.facts.get("metrics", {})),
        facts={**_flat(facts), **_flat({"gate": steering.gate.facts})},
    )


def _metrics(metrics: object) -> list[tuple[str, str, str, str]]:
    """(name, value, interval, n) as text."""
    form = (
        'facts["metrics"] must map a name to {"value": number, "low": number, "high": number, "n": count}; only "value" is needed'
    )
    if not isinstance(metrics, Mapping):
        raise InputError(f"{form}; got a {type(metrics).__name__}")
    rows = []
    for name, metric in metrics.items():
        if (
            not isinstance(metric, Mapping)
            or "value" not in metric
            or set(metric) - _METRIC_KEYS
            or ("low" in metric) != ("high" in metric)
        ):
            raise InputError(f"{form}, and low and high come together; got {name}: {metric!r}")
        interval = f"{_number(metric['low'])} to {_number(metric['high'])}" if "low" in metric else "not given"
        rows.append((str(name), _number(metric["value"]), interval, _number(metric.get("n", "not given"))))
    return rows


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _flat(facts: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    rows: dict[str, str] = {}
    for key, value in sorted(facts.items()):
        if isinstance(value, Mapping):
            rows.update(_flat(value, f"{prefix}{key}."))
        else:
            rows[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return rows


def _cell(value: object) -> str:
    """Text that cannot break out of a cell of a Markdown table."""
    text = " ".join(str(value).split())
    text = text if len(text) <= _LONGEST_CELL else f"{text[:_LONGEST_CELL]}…"
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("`", "'")
