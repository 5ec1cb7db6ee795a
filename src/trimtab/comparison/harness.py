"""Results of lm-evaluation-harness: ``samples_TASK_DATE.jsonl``, as ``--log_samples`` writes them, or a folder of them."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from trimtab.comparison.files import read_json_object, read_lines
from trimtab.comparison.results import Results, ScoredResponse, TaskResults, by_document, chosen, digest, listed
from trimtab.errors import InputError

if TYPE_CHECKING:
    from trimtab.store import AnyPath

FORMAT = "lm-evaluation-harness"
_NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d\-.:]+)")
_NO_METRIC = frozenset(
    (
        "doc_id",
        "doc",
        "target",
        "arguments",
        "resps",
        "filtered_resps",
        "filter",
        "metrics",
        "doc_hash",
        "prompt_hash",
        "target_hash",
        "system_instruction",
    )
)
_LISTED = ("chat_template_sha", "system_instruction_sha", "fewshot_as_multiturn", "lm_eval_version", "git_hash")


def is_sample(row: Mapping[str, object]) -> bool:
    """Whether a line of JSON is one of the harness's."""
    return "doc_id" in row and ("resps" in row or "filtered_resps" in row)


def sample_files(folder: "AnyPath") -> "list[AnyPath]":
    """All files of samples in a folder and below."""
    return sorted(folder.rglob("samples_*.jsonl"))


def read_harness(source: str, files: "Sequence[AnyPath]", metric: str | None, filter_name: str | None) -> Results:
    """Read the samples of one evaluation, a file a task.

    Args:
        source: as the user gave it.
        files: one or more.
        metric, filter_name: which of several is compared; one that a task has alone needs no name.

    Raises:
        InputError: a file is damaged or holds no such metric or filter, a score is neither right nor wrong, or two files are of
            one task.
    """
    tasks: dict[str, TaskResults] = {}
    models: set[str] = set()
    homes: dict[str, str] = {}
    for file in files:
        found = _NAME.fullmatch(file.stem)
        task = found["task"] if found else file.stem
        if task in tasks:
            raise InputError(
                f"{source} holds two evaluations of {task}: {homes[task]} and {file.name}; give the file of one of them"
            )
        summary = _summary(file, found["date"]) if found else {}
        tasks[task] = _task(file, task, summary, metric, filter_name)
        homes[task] = file.name
        models.update({str(summary["model_name"])} if summary.get("model_name") else set())
    return Results(source, FORMAT, ", ".join(sorted(models)), tasks)


def _task(file: "AnyPath", task: str, summary: Mapping[str, object], metric: str | None, filter_name: str | None) -> TaskResults:
    rows = read_lines(file)
    for number, row in enumerate(rows, 1):
        if not is_sample(row):
            raise InputError(
                f"{file}, line {number}: no sample of {FORMAT}, which has doc_id and resps; give its samples_*.jsonl"
            )
    one_filter = chosen(str(file), "filter", (str(row.get("filter", "none")) for row in rows), _if_several(rows, filter_name))
    rows = [row for row in rows if str(row.get("filter", "none")) == one_filter]
    one_metric = chosen(str(file), "metric", _metrics(rows), metric)
    responses = [_response(file, row, one_metric) for row in rows]
    settings = {"metric": one_metric, "filter": one_filter} | _settings(task, summary)
    return TaskResults(by_document(str(file), responses), settings, _listed_settings(task, summary))


def _if_several(rows: Sequence[Mapping[str, object]], filter_name: str | None) -> str | None:
    """A filter is named for the tasks that have several; in a folder others have one of their own."""
    return filter_name if len({str(row.get("filter", "none")) for row in rows}) > 1 else None


def _metrics(rows: Iterable[Mapping[str, object]]) -> list[str]:
    names: dict[str, None] = {}
    for row in rows:
        own = row.get("metrics")
        every = own if isinstance(own, list) else [key for key in row if key not in _NO_METRIC]
        names.update(dict.fromkeys(str(name) for name in every))
    return list(names)


def _response(file: "AnyPath", row: Mapping[str, object], metric: str) -> ScoredResponse:
    document = str(row["doc_id"])
    value = row.get(metric)
    if isinstance(value, bool) or value in (0, 1):
        correct = bool(value)
    elif value is None:
        correct = None
    else:
        raise InputError(
            f"{file}, document {document}: {metric} is {value!r}, neither 0 nor 1; a paired verdict needs a metric that is right "
            "or wrong, choose one with --metric NAME"
        )
    prompt = _prompt(row.get("arguments"))
    target = str(row.get("target", ""))
    return ScoredResponse(
        document=document,
        correct=correct,
        response=_text(row),
        prompt=prompt,
        target=target,
        document_hash=_document_hash(row, target),
        question="\n".join(_texts(row.get("doc"))),
        prompt_hash=str(row.get("prompt_hash", "")) or (_hash(prompt) if prompt else ""),
    )


_NAMES = re.compile(r"(?:.*_)?(?:id|idx|ind|index|key|uuid|hash)|.*Id", re.DOTALL)


def _texts(value: object) -> Iterator[str]:
    """The texts and numbers of a document, but those by which it is only named."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not _NAMES.fullmatch(str(key)):
                yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _document_hash(row: Mapping[str, object], target: str) -> str:
    """Of document and target, by the hashes of the file; older files have none, and theirs are made as the harness makes them."""
    own = row.get("doc_hash")
    if own is None and row.get("doc") is None:
        return ""
    document = own or _hash(json.dumps(row["doc"], indent=2, ensure_ascii=False))
    return digest(str(document), str(row.get("target_hash") or _hash(target)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _text(row: Mapping[str, object]) -> str:
    """The response as it was generated; of a choice by likelihood what the filter left of it."""
    responses = row.get("resps")
    if isinstance(responses, list) and responses and isinstance(responses[0], list):
        first = responses[0]
        if first and all(isinstance(one, str) for one in first):
            return "\n".join(first)
    return _json(row.get("filtered_resps", responses))


def _prompt(arguments: object) -> str:
    """The prompt of the first request: ``gen_args_0.arg_0``, in older files the first of the first list."""
    if isinstance(arguments, Mapping):
        first = arguments.get("gen_args_0")
        return str(first.get("arg_0", "")) if isinstance(first, Mapping) else ""
    if isinstance(arguments, list) and arguments and isinstance(arguments[0], list) and arguments[0]:
        return str(arguments[0][0])
    return ""


def _summary(file: "AnyPath", date: str) -> Mapping[str, object]:
    """The ``results_DATE.json`` of the same evaluation, {} where it is not there."""
    beside = file.parent / f"results_{date}.json"
    return read_json_object(beside) if beside.exists() else {}


def _settings(task: str, summary: Mapping[str, object]) -> dict[str, str]:
    found: dict[str, object] = {}
    for name, key in (("version", "versions"), ("few-shots", "n-shot")):
        table = summary.get(key)
        if isinstance(table, Mapping) and table.get(task) is not None:
            found[name] = table[task]
    return {name: str(value) for name, value in found.items()}


def _listed_settings(task: str, summary: Mapping[str, object]) -> dict[str, str]:
    found = {key: summary[key] for key in _LISTED if summary.get(key) is not None}
    configs = summary.get("configs")
    own = configs.get(task) if isinstance(configs, Mapping) else None
    if isinstance(own, Mapping):
        found |= {key: own[key] for key in ("generation_kwargs", "repeats") if own.get(key) is not None}
    return {key: value if isinstance(value, str) else _json(value) for key, value in found.items()}


def samples_of_summary(file: "AnyPath") -> "list[AnyPath]":
    """The sample files that belong to a ``results_DATE.json``.

    Raises:
        InputError: there are none.
    """
    files = sorted(file.parent.glob(f"samples_*_{file.stem.removeprefix('results_')}.jsonl"))
    if not files:
        raise InputError(
            f"{file} holds averages alone, and no samples_*.jsonl of its date lies beside it; evaluate again with --log_samples",
            code="averages-only",
        )
    return files


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def folder_files(source: str, folder: "AnyPath") -> "list[AnyPath]":
    """The sample files of a results folder, those of one evaluation of each task.

    Raises:
        InputError: a task was evaluated more than once.
    """
    files = sample_files(folder)
    tasks = [found["task"] if (found := _NAME.fullmatch(file.stem)) else file.stem for file in files]
    twice = [task for task in dict.fromkeys(tasks) if tasks.count(task) > 1]
    if twice:
        raise InputError(f"{source} holds several evaluations of {listed(twice)}; give the results_*.json of one evaluation")
    return files
