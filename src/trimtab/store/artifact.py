"""The artifact: a folder with a steering that others can load, check against their model and read about."""

import re
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from trimtab.errors import InputError, StoreError
from trimtab.neurons import NEURON_DEFINITION
from trimtab.steering import PositionScope, Steering
from trimtab.store.atomic import read_json, replace_folder, write_json, write_text, writing
from trimtab.store.gate_files import GateRecord, gate_of
from trimtab.store.hub import download, upload
from trimtab.store.model_card import render_card
from trimtab.store.neuron_files import load_columns, plain_facts, save_columns
from trimtab.store.partial import is_partial
from trimtab.store.records import ModelRecord, Record, read_record
from trimtab.store.remote import AnyPath, any_path, as_os_errors

CONFIG, NEURONS, GATE, CARD = "config.json", "neurons.safetensors", "gate.safetensors", "README.md"
EXPORT = "export.json"
"""What an export says about itself, see :mod:`trimtab.export.record`."""
STEERING_COLUMNS = ("layer", "index", "gain", "shift")

_FILES = (CONFIG, NEURONS, GATE, CARD)
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_PACKAGES = ("trimtab", "torch", "transformers", "numpy", "safetensors")


class ArtifactConfig(Record):
    """config.json of an artifact. ``versions`` are those of the packages that were installed when it was written."""

    format_version: Literal[1]
    neuron_definition: Literal["down_proj_input"]
    n_neurons: int
    scope: PositionScope
    strength: float
    gate: GateRecord
    model: ModelRecord
    facts: dict[str, object]
    versions: dict[str, str]


def save_steering(steering: Steering, folder: str | AnyPath, force: bool = False) -> AnyPath:
    """Write config.json, neurons.safetensors, gate.safetensors (for a gate with features) and the model card, all or nothing.

    Args:
        steering: what to write; facts may hold ``metrics`` and ``license``, see :func:`trimtab.store.model_card.render_card`.
        folder: made if missing; as text also a URL.
        force: replace an artifact that is there. A folder with anything but an artifact in it is never replaced.

    Returns:
        The folder.

    Raises:
        StoreError: the folder is not empty, or cannot be written.
        InputError: facts that JSON cannot hold, or metrics of another form.
    """
    folder = any_path(folder) if isinstance(folder, str) else folder
    _refuse_occupied(folder, force)
    with replace_folder(folder, last=CONFIG) as temporary:
        _write_files(steering, temporary, source=folder.name)
    return folder


def load_steering(source: str | AnyPath, revision: str | None = None) -> Steering:
    """Read an artifact, exactly as it was saved (tuples in facts come back as lists).

    Args:
        source: a folder, or as text its URL or the id of a hub repository, ``owner/name``; an existing folder of that name comes
            first.
        revision: branch, tag or commit of the repository; not allowed with a folder.

    Raises:
        StoreError: nothing there, no network, a truncated file, an unknown key in config.json, or another neuron definition.
    """
    folder = any_path(source) if isinstance(source, str) else source
    if not isinstance(folder, Path) or folder.exists():
        if revision is not None:
            raise StoreError(
                f"{folder} is a folder and has no revision {revision!r}; leave the revision out, or give a hub repository"
            )
    elif isinstance(source, str) and _HUB_ID.fullmatch(source):
        folder = download(source, revision, _FILES)
    else:
        raise StoreError(f"{source} does not exist; give the folder of an artifact or the id of a hub repository, owner/name")
    config = read_record(folder / CONFIG, ArtifactConfig)
    layer, index, gain, shift = load_columns(folder / NEURONS, STEERING_COLUMNS, config.n_neurons)
    gate = gate_of(config.gate, folder / GATE if config.gate.n_features else None)
    try:
        return Steering(layer, index, gain, shift, config.strength, config.scope, gate, config.model.identity(), config.facts)
    except InputError as cause:
        raise StoreError(f"the files in {folder} make no steering: {cause}; fetch an unchanged copy or save it again") from cause


def push_steering(
    steering: Steering, repo: str, private: bool = True, token: str | None = None, exports: Sequence[str | Path] = ()
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
        format_version=1,
        neuron_definition=NEURON_DEFINITION,
        n_neurons=len(steering),
        scope=steering.scope,
        strength=float(steering.strength),
        gate=GateRecord.of(steering.gate),
        model=ModelRecord.of(steering.model),
        facts=plain_facts(steering.facts),
        versions=_versions(),
    )
    write_json(folder / CONFIG, config.model_dump())
    save_columns(folder / NEURONS, steering, STEERING_COLUMNS)
    if config.gate.n_features:
        save_columns(folder / GATE, steering.gate, tuple(steering.gate.arrays))
    write_text(folder / CARD, render_card(steering, source))


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
        raise StoreError(f"{folder} already holds an artifact; pass force=True (--force) to replace it, or choose another folder")


def _check_export(folder: Path, steering: Steering) -> None:
    """Raise StoreError unless the folder's export.json names this steering."""
    record = read_json(folder / EXPORT)
    if not isinstance(record, dict) or record.get("steering") != steering.digest:
        raise StoreError(f"{folder} is no export of this steering; export it again with trimtab export")


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            # run from a source tree, or without the optional engine: nothing to state
            continue
    return found
