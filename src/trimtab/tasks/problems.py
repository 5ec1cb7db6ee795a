"""Problems: the testbed's, or any JSON lines or Parquet file with questions and answers."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.tasks.files import Row, read_rows, text_field
from trimtab.testbed.problems import unique_problems
from trimtab.traces import Problem, Split

GOLD = ("gold_answer", "answer")
SHARES = {Split.FIND: 0.5, Split.TUNE: 0.2, Split.TEST: 0.3}


class TaskSettings(BaseModel):
    """``source`` is ``testbed`` or ``local:PATH``; the counts bound each split (0 leaves the split out)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = "testbed"
    find: int = Field(default=500, ge=0)
    tune: int = Field(default=300, ge=0)
    test: int = Field(default=1000, ge=0)
    seed: int = 0

    def count(self, split: Split) -> int:
        """How many problems of this split are wanted at most."""
        return {Split.FIND: self.find, Split.TUNE: self.tune, Split.TEST: self.test}[split]


def load_problems(settings: TaskSettings) -> list[Problem]:
    """All problems of a task, find first, then tune, then test.

    Raises:
        InputError: unknown source, a missing field, a duplicate id, or the same question twice.
    """
    if settings.source == "testbed":
        problems = [p for split in Split for p in _testbed(split, settings)]
    elif settings.source.startswith("local:"):
        problems = _local(Path(settings.source.removeprefix("local:")), settings)
    else:
        raise InputError(f"unknown task {settings.source!r}; accepted: testbed, local:PATH (a .jsonl or .parquet file)")
    if not problems:
        raise NotEnoughDataError(f"task {settings.source!r} gave no problem for the asked splits")
    check_disjoint(problems)
    return problems


def problems_of(rows: Iterable[Row], where: str, split: Split | None = None) -> list[Problem]:
    """Problems from rows with ``question`` and a gold answer (``gold_answer``, else ``answer``); repeated ids must agree.

    Raises:
        InputError: a missing field, an unknown split, or one id for two problems.
        NotEnoughDataError: no row.
    """
    found: dict[str, Problem] = {}
    for number, row in enumerate(rows, start=1):
        place = f"{where}, row {number}"
        question = text_field(row, ("question", "problem", "prompt"), place)
        problem = Problem(
            id=text_field({"number": number, **row}, ("id", "number"), place),
            question=question,
            answer=text_field(row, GOLD, place),
            split=split or _split_of(row, question),
            domain=str(row.get("domain") or ""),
            difficulty=_difficulty(row, place),
        )
        known = found.setdefault(problem.id, problem)
        for name in ("question", "answer", "split"):
            before, now = str(getattr(known, name)), str(getattr(problem, name))
            if before != now:
                raise InputError(
                    f"{place}: id {problem.id!r} was already used with another {name} ({before[:60]!r}, here {now[:60]!r}); "
                    "give each problem its own id, and its gold answer as gold_answer"
                )
    if not found:
        raise NotEnoughDataError(f"{where} holds no row; give a file with at least one")
    return list(found.values())


def check_disjoint(problems: Iterable[Problem]) -> None:
    """Raise InputError when a question stands twice: in two splits it would leak, in one it would count twice."""
    seen: dict[str, Problem] = {}
    for problem in problems:
        other = seen.setdefault(problem.question, problem)
        if other is not problem:
            where = (
                f"the splits {other.split} and {problem.split}" if other.split != problem.split else f"the split {problem.split}"
            )
            raise InputError(f"problems {other.id!r} and {problem.id!r} have the same question and stand in {where}; remove one")


def _testbed(split: Split, settings: TaskSettings) -> list[Problem]:
    return [
        Problem(f"{split}-{i:05d}", p.question, p.answer, split, p.instance.domain, p.instance.steps)
        for i, p in enumerate(unique_problems(split, settings.count(split), settings.seed))
    ]


def _local(path: Path, settings: TaskSettings) -> list[Problem]:
    taken: Counter[Split] = Counter()
    kept: dict[Split, list[Problem]] = {split: [] for split in Split}
    for problem in problems_of(read_rows(path), str(path)):
        if taken[problem.split] < settings.count(problem.split):
            taken[problem.split] += 1
            kept[problem.split].append(problem)
    return [problem for split in Split for problem in kept[split]]


def _difficulty(row: Row, place: str) -> int:
    value = row.get("difficulty")
    try:
        return 0 if value is None else int(str(value))
    except ValueError as error:
        raise InputError(f"{place}: difficulty {value!r} is no whole number; give a number of steps, or leave it out") from error


def _split_of(row: Row, question: str) -> Split:
    if row.get("split") is not None:
        names = [split.value for split in Split]
        if row["split"] not in names:
            raise InputError(f"unknown split {row['split']!r}; accepted: {', '.join(names)}")
        return Split(str(row["split"]))
    share = int.from_bytes(hashlib.blake2b(question.encode(), digest_size=8).digest(), "big") / 2**64
    for split, width in SHARES.items():
        if share < width:
            return split
        share -= width
    return Split.TEST
