"""The verb ``export``: a steering into the files of one target, all or nothing."""

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from trimtab.errors import InputError, StoreError
from trimtab.export.checkpoint import Checkpoint, checkpoint_of
from trimtab.export.engines import lora_in_vllm, merged_in_vllm
from trimtab.export.gguf import GgufVector
from trimtab.export.lists import AdarasCsv, LmEvalDict, PlainJson
from trimtab.export.merged import Merged
from trimtab.export.parts import EngineName, Part, TargetName, expressible, parts_of
from trimtab.export.peft import Ia3, Lora
from trimtab.export.record import RECORD, ExportRecord, package_versions, write_record
from trimtab.export.target import Opener, Target, Written, shares_of
from trimtab.model import check_identity
from trimtab.model.opening import GGUF
from trimtab.steering import Steering
from trimtab.store import replace_folder
from trimtab.store.export_files import digests_of

TARGETS: Mapping[TargetName, Target] = MappingProxyType(
    {
        "lora": Lora(),
        "ia3": Ia3(),
        "merged": Merged(),
        "gguf": GgufVector(),
        "adaras-csv": AdarasCsv(),
        "json": PlainJson(),
        "lm-eval": LmEvalDict(),
    }
)

_LISTS: Mapping[TargetName, AdarasCsv | PlainJson] = MappingProxyType({"adaras-csv": AdarasCsv(), "json": PlainJson()})
_OF_GGUF: tuple[TargetName, ...] = ("gguf", "adaras-csv", "json", "lm-eval")
_IN_VLLM: Mapping[TargetName, Opener] = MappingProxyType({"lora": lora_in_vllm, "merged": merged_in_vllm})


def opener_of(target: TargetName, engine: EngineName) -> Opener:
    """The loader of an export: the one that the target is made for, or another engine that takes its files.

    Raises:
        InputError: the engine does not take them.
    """
    if engine == "own":
        return TARGETS[target].open
    if target not in _IN_VLLM:
        raise InputError(f"vLLM does not load an export to {target}; it loads {', '.join(_IN_VLLM)}. Verify without --engine")
    return _IN_VLLM[target]


def export_steering(
    steering: Steering,
    target: TargetName,
    folder: str | os.PathLike[str],
    *,
    model: str | None = None,
    revision: str | None = None,
    drop: Collection[Part] = (),
    allow_pickle: bool = False,
    force: bool = False,
    trust_remote_code: bool = False,
) -> ExportRecord:
    """Write a steering for another program. The base model is read from its files, never opened as a whole.

    Args:
        folder: made if missing; gets the target's files, export.json and a card.
        model: the base model, a hub id, a folder, a GGUF file or ``testbed:NAME``; None for the one that the steering names.
        drop: parts to leave out, see :func:`trimtab.export.parts.expressible`.
        allow_pickle: write the one target that is a pickle.
        force: replace an export that is in the folder.

    Raises:
        InputError: a part that the target cannot carry, a pickle that was not asked for, or a target with a GGUF file as base.
        MismatchError: the weights are not those that the steering was made for.
        ModelError: a checkpoint that cannot be exported from.
        StoreError: the folder holds something, the disk is full, or the model cannot be fetched.

    Example:
        >>> record = export_steering(steering, "lora", Path("lora"), drop=["gate", "scope"])  # doctest: +SKIP
        >>> record.facts["max_lora_rank"]  # doctest: +SKIP
        8
    """
    folder = Path(folder)
    if target == "lm-eval" and not allow_pickle:
        raise InputError(
            "lm-eval's model 'steered' unpickles its file (torch.load with weights_only=False), and trimtab writes no pickle "
            "unasked; say --allow-pickle, or evaluate with python -m trimtab.lm_eval, which needs no such file",
            code="pickle-refused",
        )
    reduced = expressible(steering, target, drop)
    _refuse_occupied(folder, force)
    source = model or steering.model.name
    # a list holds nothing of a model's weights, so any family has one; what is lost with layer 0 is told from the weights
    if target in _LISTS and model is None and "layer-0" not in drop:
        return _export(steering, reduced, target, folder, drop, lambda to: _LISTS[target].write_list(reduced, source, to), None)
    if source.endswith(GGUF) and target not in _OF_GGUF:
        raise InputError(
            f"{source} is a GGUF file, of which an export to {target} makes no use: that needs a checkpoint of transformers. "
            f"Export to {', '.join(_OF_GGUF)}, or give the unquantised model with --model"
        )
    with checkpoint_of(source, revision or _revision(steering, model), trust_remote_code) as checkpoint:
        writer = TARGETS[target]
        check_identity(steering.model, checkpoint.identity_of_sizes(steering.model.fingerprint))
        writer.check(reduced, checkpoint)
        if writer.needs_fingerprint:
            check_identity(steering.model, checkpoint.identity)
        return _export(steering, reduced, target, folder, drop, lambda to: writer.write(reduced, checkpoint, to), checkpoint)


def _export(
    steering: Steering,
    reduced: Steering,
    target: TargetName,
    folder: Path,
    drop: Collection[Part],
    write: Callable[[Path], Written],
    checkpoint: Checkpoint | None,
) -> ExportRecord:
    """Write files and record.

    Args:
        checkpoint: of the base model, None for a list without one.
    """
    with replace_folder(folder, last=RECORD) as temporary:
        written = write(temporary)
        if written.samples is not None and checkpoint is not None:
            check_identity(steering.model, checkpoint.identity_with(written.samples))
        found = parts_of(steering)
        record = ExportRecord(
            target=target,
            steering=steering.digest,
            n_neurons=len(reduced),
            strength=reduced.strength,
            scope=reduced.scope,
            dropped={part: found[part] for part in found if part in drop},
            model=steering.model,
            license=str(steering.facts.get("license", "unknown")),
            facts={**written.facts, **shares_of(steering, drop, checkpoint)},
            usage=written.usage.replace("PATH", folder.name),
            files=digests_of(temporary),
            versions=package_versions(),
        )
        write_record(record, temporary)
    return record


def _revision(steering: Steering, model: str | None) -> str | None:
    return steering.model.revision if model is None else None


def _refuse_occupied(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; give a folder")
    entries = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    if entries and RECORD not in entries:
        raise StoreError(f"{folder} is not empty ({', '.join(entries)[:200]}) and holds no export; choose another folder")
    if entries and not force:
        raise StoreError(
            f"{folder} already holds an export; pass --force to replace it, or choose another folder", code="already-there"
        )
