"""Problems of a benchmark from its rows: checked, named, assigned to splits, and what was left out counted."""

from collections import Counter

from trimtab.errors import InputError
from trimtab.tasks.benchmark import Benchmark, Entry
from trimtab.tasks.checks import checked
from trimtab.tasks.files import Row
from trimtab.tasks.repositories import Piece, pieces_of
from trimtab.tasks.settings import TaskSettings
from trimtab.tasks.splits import named_split, split_by_hash
from trimtab.traces import Problem, Split

REPEATED = "the same question stands earlier in the same split"
REPEATED_OTHERWISE = "the same question stands earlier in the same split with another answer"


def read_benchmark(benchmark: Benchmark, settings: TaskSettings) -> tuple[list[Problem], list[Piece], Counter[str]]:
    """All problems of a benchmark in the order of its rows, the pieces they came from, and the rows left out by reason.

    A question that stands twice in one split counts once. One that stands in two splits, as official splits do, is kept in both
    and found by :func:`trimtab.tasks.near_duplicates.leaks`.

    Raises:
        InputError: the data cannot be read, a row does not fit the benchmark, or two problems have one id.
    """
    wanted = tuple(split for split in Split if settings.count(split))
    pieces = pieces_of(benchmark, settings.data, settings.revision, wanted)
    by_id: dict[str, Problem] = {}
    by_question: dict[tuple[Split, str], Problem] = {}
    left_out: Counter[str] = Counter()
    for piece in pieces:
        for number, row in enumerate(piece.rows, start=1):
            place = " ".join(filter(None, (piece.origin.where, piece.origin.config, piece.origin.split))) + f", row {number}"
            problem = _read(benchmark, piece, row, number, place)
            if isinstance(problem, str):
                left_out[f"the row {problem}"] += 1
                continue
            before = by_question.setdefault((problem.split, problem.question), problem)
            if before is not problem:
                left_out[REPEATED if before.answer == problem.answer else REPEATED_OTHERWISE] += 1
                continue
            if by_id.setdefault(problem.id, problem) is not problem:
                raise InputError(
                    f"{place}: id {problem.id!r} was already used for another question; give each problem its own id"
                )
    return list(by_id.values()), pieces, left_out


def _read(benchmark: Benchmark, piece: Piece, row: Row, number: int, place: str) -> Problem | str:
    """The problem of a row, or the reason why it is none."""
    try:
        reason = piece.leaves_out(row)
        return reason or checked(_problem(benchmark, piece, benchmark.entry(row), row, number))
    except InputError as error:
        raise InputError(f"{place}: {error} (is this the data of {benchmark.name}?)") from error


def _problem(benchmark: Benchmark, piece: Piece, entry: Entry, row: Row, number: int) -> Problem:
    if benchmark.domains and entry.domain not in benchmark.domains:
        raise InputError(f"unknown domain {entry.domain!r}; accepted: {', '.join(benchmark.domains)}")
    in_file = not piece.origin.split and row.get("split") is not None
    return Problem(
        id=entry.id or f"{piece.label}-{number:05d}",
        question=entry.question,
        answer=entry.answer,
        split=named_split(row["split"]) if in_file else split_by_hash(entry.question, piece.to),
        domain=entry.domain,
        difficulty=entry.difficulty,
        kind=benchmark.kind,
        choices=entry.choices,
        tests=entry.tests,
    )
