"""From a path to results: which tool wrote it, and the readers of evalplus, simple tables and trimtab's own runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from trimtab.comparison import harness, inspect_logs
from trimtab.comparison.files import flat, read_csv, read_json_object, read_lines, read_parquet, read_text
from trimtab.comparison.results import Results, ScoredResponse, TaskResults, by_document, chosen, digest, own_texts
from trimtab.errors import InputError

if TYPE_CHECKING:
    from trimtab.store import AnyPath

ACCEPTED = (
    "samples_*.jsonl or a results folder of lm-evaluation-harness, .eval or .json of Inspect, eval_results.json of evalplus, "
    "JSON lines, CSV or Parquet with the columns id and correct, or a run of trimtab"
)
CONDITION = "gated"
MAY_DIFFER = (
    "model",
    "artifact",
    "traces",
    "contrast",
    "recording",
    "ranking",
    "gate",
    "tune",
    "task",
    "evaluation.controls",
    "evaluation.control_problems",
    "evaluation.batch_tokens",
    "evaluation.first_tokens",
    "evaluation.random_sets",
    "evaluation.baselines",
    "evaluation.rivals",
    "evaluation.sft",
    "evaluation.trained",
    "evaluation.seed",
    "keys",
)
"""Keys of ``run.toml`` that make a run what it is. All others say how it was measured and have to agree.

``task`` is free because the problems themselves are compared; so the same problems may come from two files.
"""
_WORDS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def read_results(
    path: "str | AnyPath", *, metric: str | None = None, filter_name: str | None = None, condition: str = CONDITION
) -> Results:
    """Read the result file or folder at a path.

    Args:
        path: a file or a folder.
        metric, filter_name: which of several is compared.
        condition: of a run of trimtab.

    Raises:
        ConfigError: inspect_ai is needed and not installed.
        InputError: nothing is there, no format fits, or the file is damaged.
    """
    file = _place(path)
    if not file.exists():
        raise InputError(f"{path} does not exist; give {ACCEPTED}")
    source = str(path)
    if file.is_dir():
        return _folder(source, file, metric, filter_name, condition)
    match file.suffix.lower():
        case ".eval":
            return inspect_logs.read_inspect(source, [file], metric)
        case ".json":
            return _json_file(source, file, metric, filter_name)
        case ".jsonl":
            rows = read_lines(file)
            if harness.is_sample(rows[0]):
                return harness.read_harness(source, [file], metric, filter_name)
            return _simple(source, "JSON lines", rows)
        case ".csv":
            return _simple(source, "CSV", read_csv(file))
        case ".parquet":
            rows = read_parquet(file)
            return _run_table(source, file, rows, condition) if "problem_id" in rows[0] else _simple(source, "Parquet", rows)
        case suffix:
            raise InputError(
                f"{path}: no reader for {suffix or 'a file without an ending'}; give {ACCEPTED}", code="unknown-results"
            )


def _place(path: "str | AnyPath") -> "AnyPath":
    from trimtab.store import any_path

    return any_path(path)


def _folder(source: str, folder: "AnyPath", metric: str | None, filter_name: str | None, condition: str) -> Results:
    table = folder / "outcomes.parquet"
    if table.exists():
        key = _keys(_run_settings(folder / "run.toml")).get("evaluate")
        return _run_table(source, table, read_parquet(table, None if key is None else str(key)), condition)
    if files := harness.folder_files(source, folder):
        return harness.read_harness(source, files, metric, filter_name)
    if logs := sorted(folder.glob("*.eval")):
        return inspect_logs.read_inspect(source, logs, metric)
    if (folder / "eval_results.json").exists():
        return _json_file(source, folder / "eval_results.json", metric, filter_name)
    raise InputError(f"{source} is a folder without results; give {ACCEPTED}")


def _json_file(source: str, file: "AnyPath", metric: str | None, filter_name: str | None) -> Results:
    content = read_json_object(file)
    evaluation = content.get("eval")
    if isinstance(evaluation, Mapping) and {"task", "model"} <= evaluation.keys():
        return inspect_logs.read_inspect(source, [file], metric)
    if isinstance(evaluation, Mapping):
        return _evalplus(source, file, content, evaluation, metric)
    if "results" in content and ("configs" in content or "versions" in content):
        return harness.read_harness(source, harness.samples_of_summary(file), metric, filter_name)
    raise InputError(f"{source} is JSON of no known tool; give {ACCEPTED}", code="unknown-results")


def _evalplus(
    source: str, file: "AnyPath", content: Mapping[str, object], evaluation: Mapping[str, object], metric: str | None
) -> Results:
    """evalplus: ``base`` are the tests of the benchmark, ``plus`` are these and the added ones; a timeout fails."""
    responses: list[ScoredResponse] = []
    names: dict[str, None] = {}
    solved: list[dict[str, bool]] = []
    for problem, samples in evaluation.items():
        for number, sample in enumerate(_evalplus_samples(file, problem, samples)):
            base, plus = sample.get("base_status"), sample.get("plus_status")
            if not isinstance(base, str):
                raise InputError(f"{file}, {problem}: sample {number} has no base_status; give the eval_results.json of evalplus")
            scores = {"base": base == "pass"} | ({"plus": base == plus == "pass"} if isinstance(plus, str) else {})
            names.update(dict.fromkeys(scores))
            solved.append(scores)
            text = str(sample.get("solution", ""))
            responses.append(ScoredResponse(problem, None, str(number), text))
    which = chosen(str(file), "metric", names, metric)
    scored = [
        ScoredResponse(one.document, scores.get(which), one.sample, one.response)
        for one, scores in zip(responses, solved, strict=True)
    ]
    task = TaskResults(by_document(str(file), scored), {"metric": which, "version": str(content.get("hash", ""))})
    return Results(source, "evalplus", "", {"": task})


def _evalplus_samples(file: "AnyPath", problem: str, samples: object) -> list[Mapping[str, object]]:
    """A list of samples, or the older ``{"nfiles": N, "base": [[STATUS, DETAILS]], "plus": ...}``."""
    if isinstance(samples, list) and all(isinstance(one, Mapping) for one in samples):
        return samples
    if isinstance(samples, Mapping) and isinstance(samples.get("base"), list):
        base, plus = samples["base"], samples.get("plus") or [None] * len(samples["base"])
        status = [[one[0] if isinstance(one, list) and one else None for one in side] for side in (base, plus)]
        if len(status[0]) == len(status[1]):
            return [{"base_status": one, "plus_status": other} for one, other in zip(*status, strict=True)]
    raise InputError(f"{file}, {problem}: no samples of evalplus; give its eval_results.json")


def _simple(source: str, format_name: str, rows: Sequence[Mapping[str, object]]) -> Results:
    """``id`` and ``correct``; ``task``, ``sample``, ``response``, ``prompt`` and ``question`` where they are given."""
    by_task: dict[str, list[ScoredResponse]] = {}
    for number, row in enumerate(rows, 1):
        missing = [name for name in ("id", "correct") if name not in row]
        if missing:
            raise InputError(f"{source}, row {number}: no {' and no '.join(missing)}; give {ACCEPTED}")
        prompt, question = _text(row.get("prompt")), _text(row.get("question"))
        response = ScoredResponse(
            document=_name(source, number, "id", row["id"]),
            correct=_correct(source, number, row["correct"]),
            sample=_name(source, number, "sample", 0 if row.get("sample") is None else row["sample"]),
            response=_text(row.get("response")),
            prompt=prompt,
            document_hash=digest(question) if question else "",
            prompt_hash=digest(prompt) if prompt else "",
            question=question,
        )
        by_task.setdefault(_text(row.get("task")), []).append(response)
    tasks = {
        name: TaskResults(by_document(f"{source}{f', task {name}' if name else ''}", _with_questions(responses)))
        for name, responses in by_task.items()
    }
    return Results(source, format_name, "", tasks)


def _with_questions(responses: list[ScoredResponse]) -> list[ScoredResponse]:
    """Where a task has prompts and no questions, a question is what is a prompt's own."""
    if any(one.question for one in responses):
        return responses
    return [
        replace(one, question=text) for one, text in zip(responses, own_texts([one.prompt for one in responses]), strict=True)
    ]


def _name(source: str, number: int, column: str, value: object) -> str:
    """An id as text; 3 and 3.0 are one, since a missing value elsewhere makes a column of integers one of decimals."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise InputError(f"{source}, row {number}: {column} is {value!r}, which names nothing; give a number or a text")
    return str(value)


def _correct(source: str, number: int, value: object) -> bool | None:
    if value is None:
        return None
    known = _WORDS.get(str(value).strip().lower())
    if known is None:
        raise InputError(f"{source}, row {number}: correct is {value!r}; give true, false, 1, 0, or nothing where it is unscored")
    return known


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _run_table(source: str, table: "AnyPath", rows: Sequence[Mapping[str, object]], condition: str) -> Results:
    """Outcomes of trimtab, a task each domain, with the problems and settings that lie beside them.

    The only function that knows what a run looks like on disk.
    """
    column, score = ("condition" if "condition" in rows[0] else "arm"), ("score" if "score" in rows[0] else "verdict")
    absent = [name for name in (column, score, "seed", "sample", "domain", "response") if name not in rows[0]]
    if absent:
        raise InputError(f"{table} has no column {', '.join(absent)}; give the outcomes.parquet of a run")
    conditions = list(dict.fromkeys(str(row[column]) for row in rows))
    if condition not in conditions:
        raise InputError(f"{source} has no condition {condition!r}; it has {', '.join(conditions)}; choose with --condition NAME")
    config = _run_settings(table.parent / "run.toml")
    problems = _problems(table.parent, config)
    by_task: dict[str, list[ScoredResponse]] = {}
    for row in (row for row in rows if row[column] == condition):
        problem, document = str(row["problem_id"]), problems.get(str(row["problem_id"]), {})
        scored = ScoredResponse(
            document=problem,
            correct={"correct": True, "incorrect": False}.get(str(row[score])),
            sample=f"{row['seed']}.{row['sample']}",
            response=_text(row["response"]),
            prompt=_text(document.get("question")),
            target=_text(document.get("answer")),
            question=_text(document.get("question")),
            document_hash=digest(json.dumps(document, sort_keys=True, default=str)) if document else "",
        )
        by_task.setdefault(str(row["domain"]), []).append(scored)
    settings = {
        key: value
        for key, value in flat(config).items()
        if not any(key == free or key.startswith(f"{free}.") for free in MAY_DIFFER)
    }
    model = config.get("model")
    name = str(model.get("source", "")) if isinstance(model, Mapping) else ""
    return Results(
        source,
        f"trimtab, {condition}",
        name,
        {task: TaskResults(by_document(source, responses), settings) for task, responses in by_task.items()},
        _clusters(table.parent, config),
    )


def _problems(run: "AnyPath", config: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """By id: the problems under the key that ``run.toml`` names, or those of an old run, which lie in its folder."""
    file = run / str(_keys(config).get("problems", "")) / "problems.parquet"
    return {str(row["id"]): row for row in read_parquet(file)} if file.exists() else {}


def _clusters(run: "AnyPath", config: Mapping[str, object]) -> dict[str, str] | None:
    """By id, the first of the near-duplicates of each problem that has any, as the run found them; None of an old run.

    The testbed's problems have none: they are unique, though all of one form.
    """
    from trimtab.store import read_json

    file = run / str(_keys(config).get("problems", "")) / "problems.json"
    if not file.exists():
        return None
    facts = read_json(file)
    splits = facts.get("splits", {}) if isinstance(facts, Mapping) else {}
    within: Mapping[str, Sequence[str]] = splits.get("near_duplicates", {}).get("within", {})
    return {str(problem): str(first) for first, ids in within.items() for problem in ids}


def _keys(config: Mapping[str, object]) -> Mapping[str, object]:
    """The key that each stage came to; none in an old run."""
    keys = config.get("keys", {})
    return keys if isinstance(keys, Mapping) else {}


def _run_settings(file: "AnyPath") -> dict[str, object]:
    """The settings that a run left beside its outcomes. Raises InputError where they were changed since."""
    from trimtab.store import parse_toml, unsealed
    from trimtab.store.seal import SEAL

    if not file.exists():
        return {}
    try:
        config = parse_toml(read_text(file))
    except ValueError as cause:
        raise InputError(f"{file} is no TOML: {cause}") from cause
    return unsealed(config, file) if SEAL in config else config  # type: ignore[return-value]  # a table, as it was
