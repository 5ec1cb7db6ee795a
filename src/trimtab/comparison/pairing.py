"""Two inputs document by document: what differs between them, and which of their responses are pairs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.comparison.results import Results, ScoredResponse, TaskResults, count, listed
from trimtab.errors import ConfigError, InputError

FlipKind = Literal["fixed", "broken"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Something in which two inputs differ.

    Args:
        kind: its name, by which it can be allowed.
        text: what is different, A before B.
    """

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Flip:
    """A pair of responses of which one alone is correct: ``fixed`` means that only B's is."""

    task: str
    document: str
    sample: str
    kind: FlipKind
    base: ScoredResponse
    other: ScoredResponse


class Paired(NamedTuple):
    """One task of two inputs on the documents of both.

    Args:
        sides: correct of A and of B, bool ``[document, sample]``; of both the first ``shared`` samples are pairs.
        unscored: which responses of each have no score.
        shared: how many samples both have.
        flips: in the order of the documents.
        clusters: of each document, the name of its cluster of near-duplicates.
        without_text: documents without a text to find them by, each of which is its own cluster.
    """

    sides: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    unscored: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    shared: int
    flips: tuple[Flip, ...]
    clusters: tuple[str, ...]
    without_text: int


def differences(base: Results, other: Results, allowed: Collection[str]) -> tuple[dict[str, tuple[str, str]], list[Difference]]:
    """Which tasks are compared, and every difference that does not forbid it.

    Args:
        base, other: the inputs.
        allowed: kinds of difference that are listed instead of refused.

    Returns:
        The name of each task in both inputs by the name under which it is shown, and the differences to list.

    Raises:
        ConfigError: the inputs were not measured in the same way; every difference is named.
        InputError: no document in common, or one id with another document in each.
    """
    names = {name: (name, name) for name in base.tasks if name in other.tasks}
    if not names and len(base.tasks) == len(other.tasks) == 1:
        one, another = next(iter(base.tasks)), next(iter(other.tasks))
        names = {one or another: (one, another)} if not (one and another) else {}
    refused = _task_differences(base, other, names)
    told: list[Difference] = []
    for name, (one, another) in names.items():
        first, second = base.tasks[one], other.tasks[another]
        _same_documents(base, other, name, first, second)
        prefix = f"{name}: " if len(names) > 1 else ""
        refused += [Difference(item.kind, prefix + item.text) for item in _measured_differently(first, second)]
        told += [Difference(item.kind, prefix + item.text) for item in _listed_differences(first, second)]
    if not names:
        raise InputError(
            f"{base.source} and {other.source} share no task: {listed(base.tasks)} and {listed(other.tasks)}",
            code="nothing-in-common",
        )
    stopping = [item for item in refused if item.kind not in allowed]
    if stopping:
        kinds = " ".join(f"--allow {kind}" for kind in dict.fromkeys(item.kind for item in stopping))
        raise ConfigError(
            f"{base.source} and {other.source} were not measured in the same way, so a difference between them would prove "
            "nothing:\n" + "\n".join(f"  {item.text}" for item in stopping) + "\nevaluate both on the same documents in the same "
            f"way, or compare them nevertheless and have this listed: {kinds}",
            code="measured-differently",
        )
    return names, _merged([item for item in refused if item.kind in allowed] + told)


def pair(task: str, base: TaskResults, other: TaskResults, alike: Mapping[str, str] = MappingProxyType({})) -> Paired:
    """The responses of both inputs to the documents that both hold, in the order of the base.

    Args:
        task: the name under which it is shown.
        base, other: the same task of both inputs.
        alike: the cluster of near-duplicates by document, of each that has a text.
    """
    documents = [document for document in base.responses if document in other.responses]
    first, second = base.samples, other.samples
    if len(first) == len(second) == 1:
        shared = 1
    else:
        common = [sample for sample in first if sample in second]
        shared = len(common)
        first, second = ([*common, *(name for name in side if name not in common)] for side in (first, second))
    pairs = [
        (base.responses[document][one], other.responses[document][another])
        for document in documents
        for one, another in zip(first[:shared], second[:shared], strict=True)
    ]
    flips = tuple(
        Flip(task, before.document, before.sample, "fixed" if after.correct else "broken", before, after)
        for before, after in pairs
        if bool(before.correct) != bool(after.correct)
    )
    return Paired(
        (_matrix(base, documents, first, True), _matrix(other, documents, second, True)),
        (_matrix(base, documents, first, None), _matrix(other, documents, second, None)),
        shared,
        flips,
        tuple(alike.get(document, f"{task}/{document}") for document in documents),
        sum(document not in alike for document in documents),
    )


def _matrix(task: TaskResults, documents: Sequence[str], samples: Sequence[str], score: bool | None) -> NDArray[np.bool_]:
    """Which responses have this score."""
    cells = [[task.responses[document][sample].correct is score for sample in samples] for document in documents]
    return np.array(cells, np.bool_).reshape(len(documents), len(samples))


def _task_differences(base: Results, other: Results, names: Mapping[str, tuple[str, str]]) -> list[Difference]:
    paired = [{pair[side] for pair in names.values()} for side in (0, 1)]
    return [
        Difference("tasks", f"tasks: {count(len(alone), 'task')} only in {one.source}: {listed(alone)}")
        for one, known in zip((base, other), paired, strict=True)
        if names and (alone := [name or "(unnamed)" for name in one.tasks if name not in known])
    ]


def _same_documents(base: Results, other: Results, name: str, first: TaskResults, second: TaskResults) -> None:
    where = f" of {name}" if name else ""
    both = [document for document in first.responses if document in second.responses]
    if not both:
        raise InputError(
            f"{base.source} and {other.source} have no document{where} in common: {listed(first.responses)} and "
            f"{listed(second.responses)}",
            code="nothing-in-common",
        )
    changed = [document for document in both if _clash(first, second, document, "document_hash")]
    if changed:
        raise InputError(
            f"{base.source} and {other.source} hold other documents under the same ids{where}: {len(changed)} of {len(both)}, "
            f"{listed(changed)}; evaluate both on one version of the data",
            code="other-documents",
        )


def _clash(first: TaskResults, second: TaskResults, document: str, name: Literal["document_hash", "prompt_hash"]) -> bool:
    one, another = ({getattr(item, name) for item in side.responses[document].values()} - {""} for side in (first, second))
    return bool(one and another and one != another)


def _measured_differently(first: TaskResults, second: TaskResults) -> list[Difference]:
    found = [
        Difference("documents", f"documents: {len(alone)} only in {side}: {listed(alone)}")
        for side, one, another in (("A", first, second), ("B", second, first))
        if (alone := [document for document in one.responses if document not in another.responses])
    ]
    return found + _unequal(first.settings, second.settings, known=True)


def _listed_differences(first: TaskResults, second: TaskResults) -> list[Difference]:
    both = [document for document in first.responses if document in second.responses]
    changed = [document for document in both if _clash(first, second, document, "prompt_hash")]
    found = _unequal(first.listed, second.listed, known=True) + _unequal(first.settings, second.settings, known=False)
    if changed:
        text = f"prompts: {len(changed)} of {count(len(both), 'document')} were asked otherwise: {listed(changed)}"
        found.append(Difference("prompts", text))
    lacking = [
        side
        for side, one in (("A", first), ("B", second))
        if not all(item.document_hash for document in both for item in one.responses[document].values())
    ]
    if lacking:
        who = " and ".join(lacking) + (" have" if len(lacking) > 1 else " has")
        found.append(Difference("documents", f"documents: paired by id alone, since {who} no text of them"))
    return found


def _unequal(first: Mapping[str, str], second: Mapping[str, str], *, known: bool) -> list[Difference]:
    """Keys whose values differ: those that both know, or those that one side does not tell."""
    keys = [key for key in {**first, **second} if (key in first and key in second) == known]
    return [
        Difference(key, f"{key}: {first.get(key, '(not told)')} -> {second.get(key, '(not told)')}")
        for key in keys
        if first.get(key) != second.get(key)
    ]


def _merged(items: Sequence[Difference]) -> list[Difference]:
    return list(dict.fromkeys(items))
