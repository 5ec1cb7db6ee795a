"""Rows of a benchmark's repositories, through ``datasets``, and where they came from.

They come from the hub, or from a copy on this machine.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NoReturn

from trimtab.errors import InputError
from trimtab.store import at_home
from trimtab.tasks.benchmark import ALL, Benchmark, Part
from trimtab.tasks.files import Row, read_rows
from trimtab.traces import Problem, Split

if TYPE_CHECKING:
    from datasets import DatasetBuilder


@dataclass(frozen=True, slots=True)
class Origin:
    """One file, or one split of one repository: ``revision`` is the commit that was read, empty for what is on this machine."""

    where: str
    config: str = ""
    split: str = ""
    revision: str = ""
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the problems of a task came from.

    Args:
        task: ``task.source``.
        origins: what was read.
        digest: of all problems that were read, see :func:`digest_of_problems`; ``task.digest`` pins it.
        left_out: rows that became no problem, by reason.
    """

    task: str
    origins: tuple[Origin, ...]
    digest: str
    left_out: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "task": self.task,
            "origins": [asdict(origin) for origin in self.origins],
            "digest": self.digest,
            "left_out": dict(sorted(self.left_out.items())),
        }


def digest_of_problems(problems: Iterable[Problem]) -> str:
    """SHA-256 over the problems as they are read, in any order: ids, questions, answers, choices, tests and splits."""
    lines = sorted(json.dumps(asdict(problem), sort_keys=True) for problem in problems)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


COMMIT = re.compile(r"[0-9a-f]{7,40}")


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one origin: where they go, which are left out, and the name of a row that has none."""

    origin: Origin
    rows: list[Row]
    to: tuple[Split, ...]
    leaves_out: Callable[[Row], str]
    label: str


def pieces_of(benchmark: Benchmark, data: str = "", revision: str = "", wanted: tuple[Split, ...] = ALL) -> list[Piece]:
    """Every row of a benchmark.

    Args:
        benchmark: what to read.
        data: empty for the hub; else a .jsonl or .parquet file, whose rows are divided by a hash of the question unless they
            name one of our splits in ``split``; or a folder with a copy of the repository, for several repositories with one
            folder ``owner/name`` for each. A folder can also just hold ``train.jsonl``, ``test.jsonl`` and so on.
        revision: in place of the part's own; a commit is checked against what was read.
        wanted: our splits that are asked for; a copy may lack the parts that fill none of them.

    Raises:
        InputError: the hub cannot be reached and nothing is cached, another commit is cached than the one asked for, or the copy
            lacks a repository, a configuration or a split.
    """
    path = at_home(data)
    if data and not path.is_dir():
        rows = list(read_rows(path))
        return [Piece(Origin(str(path), rows=len(rows)), rows, ALL, benchmark.leaves_out, "row")]
    if revision and len(benchmark.hub_ids) > 1:
        raise InputError(
            f"{benchmark.name} is made of {len(benchmark.hub_ids)} repositories ({', '.join(benchmark.hub_ids)}), so one "
            "task.revision cannot name a commit of each; pin the problems with task.digest, which `trimtab tasks check` prints"
        )
    with TemporaryDirectory(prefix="trimtab-") as scratch:
        source = _Copy(benchmark, path, Path(scratch), wanted) if data else _Hub(benchmark, revision)
        return [piece for part in benchmark.parts for piece in source.pieces(part)]


class _Hub:
    """The hub, or what ``datasets`` has cached of it."""

    def __init__(self, benchmark: Benchmark, revision: str) -> None:
        self.benchmark = benchmark
        self.revision = revision
        self.builders: dict[tuple[str, str], DatasetBuilder] = {}

    def pieces(self, part: Part) -> Iterator[Piece]:
        for config in part.configs or ("",):
            builder = self._builder(part, config)
            try:
                rows = _rows(builder, part.split)
            except ValueError as error:
                self._fail(part, error)
            yield _piece(part, Origin(part.hub_id, config, part.split, str(builder.hash), len(rows)), rows)

    def _builder(self, part: Part, config: str) -> "DatasetBuilder":
        from datasets import load_dataset_builder
        from datasets.exceptions import DatasetsError

        key = (part.hub_id, config)
        if key not in self.builders:
            asked = self.revision or part.revision
            try:
                builder = load_dataset_builder(part.hub_id, config or None, revision=asked)
                builder.download_and_prepare()
            except (OSError, ValueError, RuntimeError, DatasetsError) as error:
                self._fail(part, error)
            # without the hub `datasets` takes the newest version it has cached, whatever commit was asked for
            if COMMIT.fullmatch(asked) and not str(builder.hash).startswith(asked):
                raise InputError(
                    f"commit {asked} of {part.hub_id} was asked for, but the cache holds {builder.hash} and the hub cannot be "
                    "reached; connect once to download it, or set task.revision to the commit that is there"
                )
            self.builders[key] = builder
        return self.builders[key]

    def _fail(self, part: Part, error: Exception) -> NoReturn:
        name = self.benchmark.name
        raise InputError(
            f"the data set {part.hub_id} of task {name!r} cannot be loaded: {_first_line(error)}. Connect once to "
            f"fill the cache; or copy it here (`hf download {part.hub_id} --repo-type dataset --local-dir FOLDER`) and give the "
            'folder as task.data (--data); or give any file with questions and answers as task.source = "local:PATH"',
            code="dataset-unavailable",
        ) from error


class _Copy:
    """A folder on this machine, through a cache of its own: the shared one does not notice that a file of a copy changed."""

    def __init__(self, benchmark: Benchmark, folder: Path, scratch: Path, wanted: tuple[Split, ...]) -> None:
        self.benchmark = benchmark
        self.folder = folder
        self.scratch = scratch
        self.wanted = wanted

    def pieces(self, part: Part) -> Iterator[Piece]:
        from datasets import get_dataset_config_names, load_dataset_builder
        from datasets.exceptions import DatasetsError

        folder = self._folder(part)
        if folder is None:
            return
        try:
            path = str(folder.absolute())  # a relative one could be the name of a builder of `datasets`, such as "json"
            plain = get_dataset_config_names(path) == ["default"]
            for config in ("",) if plain else part.configs or ("",):
                builder = load_dataset_builder(path, config or None, cache_dir=str(self.scratch))
                builder.download_and_prepare()
                if part.split not in (builder.info.splits or {}) and not set(part.to) & set(self.wanted):
                    continue
                rows = _rows(builder, part.split)
                yield _piece(part, Origin(str(folder), config, part.split, rows=len(rows)), rows)
        except (OSError, ValueError, RuntimeError, DatasetsError) as error:
            raise InputError(
                f"the split {part.split!r} of {part.hub_id} cannot be read from {folder}: {_first_line(error)}; the folder "
                f"must be a copy of the repository, or hold a file {part.split}.jsonl or {part.split}.parquet"
            ) from error

    def _folder(self, part: Part) -> Path | None:
        own = self.folder / part.hub_id
        if own.is_dir():
            return own
        if len(self.benchmark.hub_ids) == 1:
            return self.folder
        if not set(part.to) & set(self.wanted):
            return None
        raise InputError(
            f"task {self.benchmark.name!r} reads {' and '.join(self.benchmark.hub_ids)}, and {self.folder} has no folder "
            f"{part.hub_id}; copy the repository there, or set task.{' = 0 and task.'.join(part.to)} = 0"
        )


def _rows(builder: "DatasetBuilder", split: str) -> list[Row]:
    rows: Iterable[Row] = builder.as_dataset(split)  # type: ignore[assignment]
    return [dict(row) for row in rows]


def _piece(part: Part, origin: Origin, rows: list[Row]) -> Piece:
    label = f"{origin.config}-{part.split}" if len(part.configs) > 1 and origin.config else part.split
    return Piece(origin, rows, part.to, part.leaves_out, label)


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return next(iter(str(cause).strip().splitlines()), type(cause).__name__).rstrip(".")
