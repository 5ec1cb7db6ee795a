"""The batch plan: computed once, stored beside its parts, and the unit of resume.

Batching what a killed run left over would change the batches and with them the last bits of the numbers, so a resumed run goes on
with the stored batches and ends with the same bytes as an uninterrupted one.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from numpy.typing import NDArray

from trimtab.errors import ConfigError, InputError, StoreError
from trimtab.store.atomic import digest_of, plain, remove_leftovers, write_json
from trimtab.store.records import Record, read_record
from trimtab.store.remote import AnyPath
from trimtab.store.tables import Row, write_table
from trimtab.store.tensors import save_tensors

logger = logging.getLogger(__name__)

PLAN = "plan.json"


@dataclass(frozen=True)
class Plan:
    """Batches of work.

    Args:
        parts: ids of the work items, part by part.
        settings: JSON values that decide the content of the parts, with the budget and a digest of the items' sizes.
    """

    parts: tuple[tuple[str, ...], ...]
    settings: Mapping[str, object]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of parts and settings: two plans with one digest give the same files."""
        return digest_of({"parts": self.parts, "settings": self.settings})


class PlanRecord(Record):
    """plan.json."""

    parts: list[list[str]]
    settings: dict[str, object]
    digest: str


def make_plan(ids: Sequence[str], sizes: Sequence[int], budget: int, settings: Mapping[str, object]) -> Plan:
    """Length-sorted batches, longest first, that hold at most ``budget`` tokens with padding.

    A batch of n items costs ``n * max(size)``. Longest first, so that a batch that does not fit into memory fails at once. The
    order of ``ids`` does not matter. An item larger than the budget is a batch of its own, with a warning in the log: no smaller
    batch exists.

    Args:
        ids: names of the work items, each once.
        sizes: tokens per item.
        budget: tokens per batch, padding included.
        settings: JSON values that decide the content of the parts; a resume with others is refused.

    Raises:
        InputError: an id twice, lengths that differ, a size or budget below 1, or a setting that JSON cannot hold.

    Example:
        >>> make_plan(["a", "b", "c"], [2, 9, 3], 10, {}).parts
        (('b',), ('c', 'a'))
    """
    _check_items(ids, sizes, budget)
    parts: list[list[str]] = []
    longest = 0
    for size, name in sorted(zip(sizes, ids, strict=True), key=lambda item: (-item[0], item[1])):
        if parts and (len(parts[-1]) + 1) * longest <= budget:
            parts[-1].append(name)
        else:
            parts.append([name])
            longest = size
    oversized = sum(size > budget for size in sizes)
    if oversized:
        logger.warning("%d items are longer than the budget of %d tokens and run alone", oversized, budget)
    items = digest_of(sorted((name, int(size)) for name, size in zip(ids, sizes, strict=True)))
    kept = {str(key): plain(value, f"settings.{key}") for key, value in settings.items()}
    return Plan(tuple(map(tuple, parts)), {**kept, "budget": int(budget), "items": items})


class Parts:
    """The parts of one plan: ``part-00000.parquet`` and so on beside ``plan.json``.

    Reading needs no more than the folder. A writer calls :meth:`ensure_plan` first; one writer per folder at a time (the lock of
    the run directory sees to it).

    Args:
        folder: where the plan and the parts lie.
        suffix: the format of the parts, ``.parquet`` for :meth:`write_table` and ``.safetensors`` for :meth:`write_tensors`.
    """

    def __init__(self, folder: AnyPath, suffix: Literal[".parquet", ".safetensors"] = ".parquet") -> None:
        self.folder = folder
        self.suffix = suffix

    @cached_property
    def plan(self) -> Plan:
        """The stored plan. Raises StoreError when there is none, or when it was edited."""
        path = self.folder / PLAN
        record = read_record(path, PlanRecord)
        plan = Plan(tuple(map(tuple, record.parts)), record.settings)
        if plan.digest != record.digest:
            raise StoreError(
                f"{path} was edited: its digest is not that of its content; delete {self.folder} and run the same command again"
            )
        return plan

    def ensure_plan(self, plan: Plan) -> None:
        """Store the plan, or check that the stored one is the same, and delete what a killed writer left half written.

        Raises:
            ConfigError: the folder holds another plan; each setting that differs is listed with its old and new value.
            StoreError: the folder holds parts without a plan, or cannot be written.
        """
        path = self.folder / PLAN
        remove_leftovers(self.folder)
        if path.exists():
            if self.plan.digest != plan.digest:
                raise ConfigError(
                    f"{self.folder} holds the parts of another plan: {_difference(self.plan, plan)}; "
                    "run with the old settings, or give another folder",
                    code="other-plan",
                )
            return
        orphans = sorted(self.folder.glob("part-*"))
        if orphans:
            raise StoreError(
                f"{self.folder} holds {len(orphans)} parts but no {PLAN}; delete the folder and run the same command again"
            )
        write_json(path, {"parts": plan.parts, "settings": plan.settings, "digest": plan.digest})
        self.__dict__["plan"] = plan

    def path(self, part: int) -> AnyPath:
        """Where a part lies, written or not."""
        return self.folder / f"part-{part:05d}{self.suffix}"

    def missing(self) -> list[int]:
        """Numbers of the parts that are not written yet."""
        n = len(self.plan.parts)
        # one listing: a remote store takes long to say of thousands of files, one by one, whether they are there
        present = {path.name for path in self.folder.iterdir()} if n else set()
        return [part for part in range(n) if self.path(part).name not in present]

    @property
    def begun(self) -> bool:
        """Whether a plan is stored."""
        return (self.folder / PLAN).exists()

    @property
    def complete(self) -> bool:
        """Whether every part of a stored plan is written."""
        return self.begun and not self.missing()

    def write_table(self, part: int, rows: Sequence[Row], row: type[Row] | None = None) -> None:
        """Write a part of dataclass rows; see :func:`trimtab.store.tables.write_table`."""
        write_table(self._writable(part, ".parquet"), rows, row)

    def write_tensors(self, part: int, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
        """Write a part of arrays; see :func:`trimtab.store.tensors.save_tensors`."""
        save_tensors(self._writable(part, ".safetensors"), tensors, metadata)

    def _writable(self, part: int, suffix: str) -> AnyPath:
        if suffix != self.suffix:
            raise InputError(
                f"{self.folder} was opened for {self.suffix} parts; open it with Parts(folder, {suffix!r}) to write {suffix}"
            )
        if not 0 <= part < len(self.plan.parts):
            raise InputError(f"part {part} is not in the plan of {self.folder}, which has {len(self.plan.parts)} parts")
        return self.path(part)


def _check_items(ids: Sequence[str], sizes: Sequence[int], budget: int) -> None:
    if len(ids) != len(sizes):
        raise InputError(f"a plan got {len(ids)} ids and {len(sizes)} sizes; give one size per id")
    twice = sorted(name for name, count in Counter(ids).items() if count > 1)
    if twice:
        raise InputError(f"{len(twice)} ids of a plan appear twice, first {twice[0]!r}; every work item needs an id of its own")
    if budget < 1 or any(size < 1 for size in sizes):
        raise InputError(
            f"a plan needs a budget and sizes of at least 1 token, got budget {budget} and smallest size {min(sizes, default=1)}"
        )


def _difference(old: Plan, new: Plan) -> str:
    """What differs, settings before digests: ``sampling.n 1 -> 2``."""
    before, after = _flat(old.settings), _flat(new.settings)
    keys = sorted((key for key in {*before, *after} if before.get(key) != after.get(key)), key=lambda key: (key in _DIGESTS, key))
    changes = [f"{key} {before.get(key, '(not set)')!s} -> {after.get(key, '(not set)')!s}" for key in keys]
    old_ids, new_ids = ({name for part in plan.parts for name in part} for plan in (old, new))
    if old_ids != new_ids:
        changes.insert(0, f"{len(old_ids - new_ids)} work items are gone and {len(new_ids - old_ids)} are new")
    return ", ".join(changes) or "the batches differ"


_DIGESTS = frozenset(("items", "model", "tokenizer", "steering"))
"""Settings that tell a reader nothing; named last."""


def _flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Dotted key to value."""
    flat: dict[str, object] = {}
    for key, value in settings.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat
