"""From a task to a contrast: load problems, sample or import traces, grade them, choose those that are compared."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.evaluation.control_rows import Recurrence
from trimtab.recording import StreamedParts
from trimtab.sampling import SamplingSettings, import_traces, read_labels, read_traces, sample_job
from trimtab.store import (
    AnyPath,
    Entry,
    digest_of,
    key_facts,
    read_json,
    read_table,
    write_json,
    write_table,
    write_text,
)
from trimtab.store.cache import KEY_FILE
from trimtab.store.remote import at_home, check_regular
from trimtab.study import recur
from trimtab.study.values import Problems, Traces
from trimtab.tasks import grade_traces
from trimtab.tasks.contrast import ContrastRow, choose_contrast
from trimtab.tasks.files import read_rows
from trimtab.tasks.grading import KindGrader
from trimtab.tasks.grading.grade import Change, regraded
from trimtab.tasks.gym import gym_version
from trimtab.tasks.loading import load_task, problems_of
from trimtab.tasks.settings import GYM, LOCAL, TESTBED
from trimtab.tasks.splits import split_facts
from trimtab.traces import AnswerKind, Problem, ScoredTrace, Split, Trace

if TYPE_CHECKING:
    from trimtab.study.study import Study

VERSIONS: Mapping[str, int] = {"problems": 2, "sample": 2, "import": 1, "grade": 1, "contrast": 1, "recur": 2}
"""Of each verb; it rises when its result changes for the same inputs, so that no old result is taken for a new one."""
PROBLEMS, FACTS, GRADES, CONTRAST = "problems.parquet", "problems.json", "grades.parquet", "contrast.parquet"
EARLY = 64
"""After this many traces the user is told what would starve the contrast."""
STARVED = 0.25
"""Below this share of problems with both correct and incorrect traces the user is told what starves the contrast."""


def load_problems(study: "Study") -> Problems:
    """The problems of the task; of a file, as long as its content is the same."""
    settings = study.settings
    if settings.traces.path:
        path = Path(settings.traces.path)
        facts: dict[str, object] = {"traces": file_digest(path)}
    else:
        task = settings.task
        local = task.source.startswith(LOCAL)
        content = file_digest(at_home(task.source.removeprefix(LOCAL))) if local else ""
        content = gym_version() if task.source.startswith(GYM) else content
        facts = {"task": {**task.model_dump(mode="json"), **({"source": LOCAL} if local else {})}, "content": content}
    entry = study.entry("problems", facts)

    def work(folder: AnyPath) -> None:
        if settings.traces.path:
            found, said = problems_of(read_rows(Path(settings.traces.path)), settings.traces.path, Split.TRAIN), {}
        else:
            found, provenance = load_task(settings.task)
            said = {"provenance": provenance.to_json()}
            if settings.task.source != TESTBED:  # whose questions are all alike and known to be unique
                said["splits"] = split_facts(found).to_json()
        write_json(folder / FACTS, said)
        write_table(folder / PROBLEMS, found)

    def read(folder: AnyPath) -> Problems:
        found = tuple(read_table(folder / PROBLEMS, Problem))
        digests = {split: problems_digest([p for p in found if p.split is split]) for split in Split}
        return Problems(found, digests, read_json(folder / FACTS))  # type: ignore[arg-type]

    found = study.compute("problems", entry, work, read)
    tell_clusters(study, found)
    return found


def tell_clusters(study: "Study", problems: Problems) -> None:
    """Say once, before anything is sampled, which problems of a split are no independent evidence."""
    found = problems.clusters
    for split in (Split.VALIDATION, Split.TEST):
        alike = [problem.id for problem in problems.split(split) if problem.id in found]
        if alike and study.tell_once(f"clusters of {split}"):
            study.note(
                f"{len(alike)} {split} problems are near-duplicates of each other, in {len({found[name] for name in alike})} "
                f"clusters (such as {alike[0]!r} and {alike[1]!r}): each cluster counts once in the paired test; `trimtab tasks "
                "check` lists them, and only new problems add evidence"
            )


def problems_digest(problems: Sequence[Problem]) -> str:
    """Digest of ids, questions, gold answers and tests, in order; a part of cache keys."""
    return _digest(tuple(problems))


@lru_cache(maxsize=32)  # a key asks for it, of the same problems over and over
def _digest(problems: tuple[Problem, ...]) -> str:
    return digest_of([asdict(problem) for problem in problems])


def sampled_entry(study: "Study", split: Split, sampling: SamplingSettings, problems: Sequence[Problem] | None = None) -> Entry:
    """The entry of the traces of a split, or of some of its problems."""
    digest = study.problems().digests[split] if problems is None else problems_digest(problems)
    facts = {
        "problems": digest,
        "sampling": sampling.model_dump(mode="json"),
        "prompt": study.settings.prompt.model_dump(mode="json"),
        "tokenizer": study.model.tokenizer_fingerprint,
    }
    if while_sampling(study, split, sampling):
        facts["recorded"] = study.settings.recording.settings.model_dump(mode="json")
    return study.entry("sample", {**facts, **study.engine_facts()})


def check_grading(study: "Study", problems: Sequence[Problem]) -> None:
    """Refuse what could not be graded here, before anything is sampled for it; a machine of a cluster sees for itself."""
    if isinstance(study.grader, KindGrader):
        study.grader.check({problem.kind for problem in problems})


def while_sampling(study: "Study", split: Split, sampling: SamplingSettings) -> bool:
    """Whether these traces are recorded in the forwards that sample them."""
    return study.settings.recording.while_sampling and split is Split.TRAIN and sampling == study.settings.sampling


def sample(study: "Study", wanted: Sequence[tuple[Split, SamplingSettings]]) -> None:
    """Sample what is missing of these sets of traces, all of it as one piece of work."""
    entries = {sampled_entry(study, split, sampling).name: (split, sampling) for split, sampling in wanted}
    named = {name: sampled_entry(study, *entries[name]) for name in entries}
    with study.cache.claim_all(list(named.values())) as missing:
        jobs = []
        for entry in missing:
            split, sampling = entries[entry.name]
            problems, moments = study.problems().split(split), None
            check_grading(study, problems)
            if not problems:
                raise NotEnoughDataError(
                    f"the {split} split holds no problem; ask for some with {split}=N, or name the split of each row of your "
                    "file in a column split",
                    code="empty-split",
                )
            if while_sampling(study, split, sampling):
                moments = StreamedParts(study.model, study.settings.recording.settings, streamed_entry(study, entry).folder)
            label = "sample" if sampling.temperature else f"greedy {split}"
            job = sample_job(
                study.model,
                problems,
                sampling,
                entry.folder,
                prompt=study.settings.prompt,
                moments=moments,
                generator=study.generator,
                label=label,
                watch=_early_hint(study) if sampling.temperature and study.settings.executor.kind == "local" else None,
            )
            jobs.append(job)
        study.run(jobs)


def _early_hint(study: "Study") -> Callable[[Sequence[Trace]], None]:
    """Looks at the first traces, and says what would starve the contrast while the rest is still to be sampled."""
    problems = {problem.id: problem for problem in study.problems()}
    seen: list[Trace] = []

    def watch(found: Sequence[Trace]) -> None:
        if len(seen) >= EARLY:
            return
        seen.extend(found)
        if len(seen) < EARLY or any(problems[trace.problem_id].kind is AnswerKind.CODE for trace in seen):
            return
        grades = grade_traces(seen, problems, study.grader)
        if hint := starved(Traces(tuple(seen), tuple(grades), problems, "", "")):
            study.note(f"of the first {len(seen)} traces: {hint}")

    return watch


def streamed_entry(study: "Study", traces_entry: Entry) -> Entry:
    """The entry of moments that are summed up in the forwards that sample."""
    settings = study.settings.recording.settings.model_dump(mode="json")
    return study.entry("record", {"traces": traces_entry.name, "while_sampling": True, "settings": settings})


def imported_entry(study: "Study") -> Entry:
    """The entry of the traces of a file, tokenised for this model."""
    settings = study.settings
    facts = {
        "file": file_digest(Path(settings.traces.path)),
        "max_tokens": settings.traces.max_tokens,
        "prompt": settings.prompt.model_dump(mode="json"),
        "tokenizer": study.model.tokenizer_fingerprint,
    }
    return study.entry("import", facts)


def traces(study: "Study", split: Split = Split.TRAIN, *, greedy: bool = False) -> Traces:
    """The traces of a split with their grades: sampled ones as the settings say, greedy ones, or those of a file."""
    if study.settings.traces.path:
        entry = imported_entry(study)
        found = study.compute(
            "sample", entry, lambda folder: _import(study, folder), lambda f: read_table(f / "traces.parquet", Trace)
        )
    else:
        sampling = study.settings.sampling.greedy() if greedy else study.settings.sampling
        entry = sampled_entry(study, split, sampling)
        sample(study, [(split, sampling)])
        study.note_key(f"greedy-{split}" if greedy else "sample", entry)
        order = [f"{problem.id}/{i}" for problem in study.problems().split(split) for i in range(sampling.n)]
        found = study.remember(entry, lambda: read_traces(entry.folder, order))
    grades, grades_entry = _grades(study, entry, found, f"grade-greedy-{split}" if greedy else "grade")
    problems = {problem.id: problem for problem in study.problems()}
    return Traces(tuple(found), tuple(grades), problems, entry.name, grades_entry.name)


def _import(study: "Study", folder: AnyPath) -> None:
    settings = study.settings
    limit = settings.traces.max_tokens or None
    _, found = import_traces(Path(settings.traces.path), study.model, prompt=settings.prompt, max_tokens=limit)
    write_table(folder / "traces.parquet", found, Trace)


def _grades(study: "Study", traces_entry: Entry, found: Sequence[Trace], stage: str) -> tuple[list[ScoredTrace], Entry]:
    columns_ = study.settings.traces
    # imported grades come from columns of the file, whose digest the key of the traces holds
    facts = {"traces": traces_entry.name, "verdict_column": columns_.verdict_column, "quality_column": columns_.quality_column}
    entry = study.entry("grade", {**facts, "problems": digest_of(dict(study.problems().digests)), **study.grader_facts})

    def work(folder: AnyPath) -> None:
        path = Path(columns_.path) if columns_.path else None
        labels = read_labels(path, columns_.verdict_column) if path and columns_.verdict_column else None
        quality = read_labels(path, columns_.quality_column) if path and columns_.quality_column else None
        problems = {problem.id: problem for problem in study.problems()}
        grades = grade_traces(found, problems, study.grader, labels, study.checker, quality)
        write_table(folder / GRADES, grades, ScoredTrace)

    return study.compute(stage, entry, work, lambda folder: read_table(folder / GRADES, ScoredTrace)), entry


def regraded_since(study: "Study") -> list[Change]:
    """The traces whose score differs from that of the last other grading of them in the cache, such as an older grader's."""
    found = traces(study)
    folder = study.cache.root / "grade"
    others = []
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        if f"grade/{entry.name}" != found.grades_key and (entry / KEY_FILE).exists():
            facts = key_facts(entry)
            if facts.get("traces") == found.key:
                others.append((str(facts.get("grader")), entry))
    if not others:
        return []
    _, last = max(others, key=lambda other: (other[0], other[1].name))
    return regraded(read_table(last / GRADES, ScoredTrace), found.grades)


def contrast(study: "Study") -> tuple[list[ContrastRow], dict[str, object], Entry]:
    """The traces that are compared, the counts of those left out, and their entry."""
    found, settings = study.traces(), study.settings.contrast
    if not settings.recurrence.keep:
        return _contrast(study, found.grades, {})
    every, _, whole = _contrast(study, found.grades, {}, "contrast-whole")
    continued, recurred = recur.continued(study, every, found, whole)
    kept = recur.kept(continued, settings.recurrence.keep)
    facts = {"recurred": recurred.name, "keep": settings.recurrence.keep}
    rows, counts, entry = _contrast(study, [grade for grade in found.grades if grade.trace_id in kept], facts)
    return rows, {**counts, "recurrence_left_out": len(every) - len(kept)}, entry


def recurrence(study: "Study") -> Recurrence | None:
    """Whether the class of the contrast's traces comes back; None where the settings continue none."""
    settings, found = study.settings.contrast.recurrence, study.traces()
    if not settings.traces:
        return None
    rows, _, whole = _contrast(study, found.grades, {}, "contrast-whole" if settings.keep else "contrast")
    return recur.summarised(recur.continued(study, rows, found, whole)[0], settings)


def _contrast(
    study: "Study", grades: Sequence[ScoredTrace], filtered: Mapping[str, object], stage: str = "contrast"
) -> tuple[list[ContrastRow], dict[str, object], Entry]:
    """The contrast of some grades; ``filtered`` says of which, and is empty for all of them."""
    found = study.traces()
    settings = study.settings.contrast.model_dump(mode="json", exclude={"recurrence"})
    entry = study.entry("contrast", {"traces": found.key, "grades": found.grades_key, "settings": settings, **filtered})

    def work(folder: AnyPath) -> None:
        rows, counts = choose_contrast(found.traces, grades, study.settings.contrast)
        write_json(folder / "contrast.json", counts.to_json())
        write_table(folder / CONTRAST, rows)

    def read(folder: AnyPath) -> tuple[list[ContrastRow], dict[str, object]]:
        return read_table(folder / CONTRAST, ContrastRow), dict(read_json(folder / "contrast.json"))  # type: ignore[call-overload]

    rows, counts = study.compute(stage, entry, work, read)
    return rows, counts, entry


def starved(found: Traces) -> str | None:
    """A sentence on why few problems can be contrasted; None where enough can."""
    problems = len({trace.problem_id for trace in found.traces})
    if not problems or found.mixed >= STARVED * problems:
        return None
    causes = []
    if found.truncated > 0.2 * len(found):
        causes.append(f"{found.truncated:,} of {len(found):,} traces were cut at the token limit: raise sampling.max_new_tokens")
    if found.accuracy > 0.85:
        causes.append(f"{found.accuracy:.0%} of the traces are correct: give harder problems")
    elif found.accuracy < 0.15:
        causes.append(
            f"only {found.accuracy:.0%} of the traces are correct: give easier problems, or look at what the grader reads"
        )
    if not causes:
        causes.append("raise sampling.n or sampling.temperature")
    return f"only {found.mixed} of {problems} problems have both correct and incorrect traces; {'; '.join(causes)}"


def file_digest(path: Path) -> str:
    """SHA-256 of a file of the user's. Raises InputError where there is none."""
    try:
        check_regular(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"cannot read {path}: {said}; give the path of a .jsonl or .parquet file") from error


def write_rows(path: AnyPath, rows: Sequence[Mapping[str, object]]) -> None:
    """Problems that were given in memory, as JSON lines."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, default=_plain_value) + "\n" for row in rows))


def _plain_value(value: object) -> object:
    """A value of a data frame or data set as JSON has it. Raises InputError for one that is none."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise InputError(f"a problem holds a {type(value).__name__}; give text, numbers and lists of them")


def memory_problems(rows: Sequence[object]) -> list[dict[str, object]]:
    """Problems given in memory as mappings. Raises InputError for none, and for one that is no mapping."""
    if not rows:
        raise InputError("task is an empty list; give at least one mapping with a question and an answer")
    found = []
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(f"task[{i}] is a {type(row).__name__}; every problem is a mapping with a question and an answer")
        found.append({str(key): value for key, value in row.items()})
    return found
