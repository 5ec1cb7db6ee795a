"""Logs of Inspect, ``.eval`` and JSON, read by inspect_ai itself."""

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.comparison.results import Results, ScoredResponse, TaskResults, by_document, chosen, digest
from trimtab.errors import ConfigError, InputError

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample

    from trimtab.store import AnyPath

FORMAT = "Inspect"
_RIGHT = {"C": True, "I": False, "N": False}
"""Inspect's letters: correct, incorrect, no answer. ``P``, partial, is neither right nor wrong."""


def read_inspect(source: str, files: "Sequence[AnyPath]", metric: str | None) -> Results:
    """Read logs, a task each; the samples of a document are its epochs.

    Args:
        source: as the user gave it.
        files: one or more.
        metric: the scorer, or ``SCORER/KEY`` of a scorer that gives several values; a single one needs no name.

    Raises:
        ConfigError: inspect_ai is not installed.
        InputError: a log is damaged, has no samples, or a score is neither right nor wrong, or two logs are of one task.
    """
    tasks: dict[str, TaskResults] = {}
    models: dict[str, None] = {}
    homes: dict[str, str] = {}
    for file in files:
        log = _read(file)
        name = log.eval.task
        if name in tasks:
            raise InputError(f"{source} holds two logs of {name}: {homes[name]} and {file.name}; give the file of one of them")
        tasks[name] = _task(file, log, metric)
        homes[name] = file.name
        models[log.eval.model] = None
    return Results(source, FORMAT, ", ".join(models), tasks)


def _read(file: "AnyPath") -> "EvalLog":
    try:
        from inspect_ai.log import read_eval_log
    except ImportError as cause:
        raise ConfigError(
            f"{file} is a log of Inspect, which inspect_ai reads; run: pip install 'trimtab[inspect]'", code="no-inspect"
        ) from cause
    try:
        _refuse_bomb(file)
        return read_eval_log(str(file), resolve_attachments=True)
    except NotImplementedError as cause:  # how zipfile says that it does not know a compression, such as the zstd of newer logs
        raise InputError(
            f"{file} is compressed in a way that inspect_ai {version('inspect_ai')} does not read, so a newer one wrote it; run: "
            "pip install -U inspect_ai"
        ) from cause
    # what a damaged archive or log comes to inside inspect_ai
    except _DAMAGED as cause:
        reason = (str(cause).splitlines() or [""])[0]
        raise InputError(f"{file} is no log that inspect_ai can read ({type(cause).__name__}: {reason})") from cause


_DAMAGED = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    RecursionError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
MOST_UNPACKED, MOST_RATIO = 2**30, 100
"""Bytes to which a log may unpack, or else how many times its own size: real logs shrink to a tenth."""


def _refuse_bomb(file: "AnyPath") -> None:
    """Raise InputError for an archive that would fill the memory, by the sizes that it tells and that unpacking keeps to."""
    if not isinstance(file, Path) or not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        unpacked, packed = sum(each.file_size for each in archive.infolist()), file.stat().st_size
    if unpacked > MOST_UNPACKED and unpacked > MOST_RATIO * packed:
        raise InputError(
            f"{file} has {packed:,} bytes and would unpack to {unpacked:,}, more than {MOST_RATIO} times as many; "
            "no log does that: get it again from where it was written"
        )


def _task(file: "AnyPath", log: "EvalLog", metric: str | None) -> TaskResults:
    if not log.samples:
        raise InputError(f"{file} holds no samples (its status is {log.status!r}); evaluate again with log_samples")
    names = [name for sample in log.samples for name in _values(sample)]
    if not names:
        raise InputError(f"{file} holds no scores; score it first: inspect score {file}")
    scorer = chosen(str(file), "metric", names, metric)
    responses = by_document(str(file), (_response(file, sample, scorer) for sample in log.samples))
    settings = {"metric": scorer, "version": str(log.eval.task_version), "task-args": _json(log.eval.task_args)}
    listed = {
        "solver": _json([[step.solver, step.params] for step in log.plan.steps]),
        "generation": log.plan.config.model_dump_json(exclude_none=True),
        "inspect_ai": str(log.eval.packages.get("inspect_ai", "")),
        "status": log.status,
    }
    return TaskResults(responses, settings, listed)


def _values(sample: "EvalSample") -> dict[str, object]:
    """The scores of a sample by scorer, and ``SCORER/KEY`` where one gives several."""
    values: dict[str, object] = {}
    for name, score in (sample.scores or {}).items():
        if isinstance(score.value, Mapping):
            values |= {f"{name}/{key}": value for key, value in score.value.items()}
        else:
            values[name] = score.value
    return values


def _response(file: "AnyPath", sample: "EvalSample", scorer: str) -> ScoredResponse:
    document = str(sample.id)
    asked = [[message.role, message.text] for message in sample.messages]
    first = next((i for i, (role, _) in enumerate(asked) if role == "assistant"), len(asked))
    question = sample.input if isinstance(sample.input, str) else _json([[one.role, one.text] for one in sample.input])
    target = sample.target if isinstance(sample.target, str) else _json(sample.target)
    return ScoredResponse(
        document=document,
        correct=_correct(file, document, scorer, _values(sample).get(scorer)),
        sample=str(sample.epoch),
        response=sample.output.completion,
        prompt="\n\n".join(f"{role}: {text}" for role, text in asked[:first]),
        target=target,
        document_hash=digest(question, target, *(sample.choices or [])),
        prompt_hash=digest(_json(asked[:first])) if asked[:first] else "",
        question="\n".join([question, *(sample.choices or [])]),
    )


def _correct(file: "AnyPath", document: str, scorer: str, value: object) -> bool | None:
    if value is None:
        return None
    if isinstance(value, str) and value in _RIGHT:
        return _RIGHT[value]
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    raise InputError(
        f"{file}, sample {document}: {scorer} is {value!r}; a paired verdict needs C or I, true or false, 1 or 0: choose another "
        "scorer with --metric NAME"
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
