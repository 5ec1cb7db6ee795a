"""The common form of all inputs: scored responses by task, and how they were measured."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from trimtab.errors import InputError
from trimtab.stats.likeness import cluster_labels

LISTED = 5


@dataclass(frozen=True, slots=True)
class ScoredResponse:
    """One response to one document, with its score.

    Args:
        document: the id by which documents are paired.
        correct: None where the grader could not score it.
        sample: tells apart the responses to one document; equal ones of two inputs are pairs.
        response, prompt, target: as text, "" where the file holds none.
        document_hash: of question and target; "" where the file does not say.
        prompt_hash: of the whole prompt as the model saw it; "" where the file does not say.
        question: the document's own text, by which near-duplicates are found; "" where the file holds none.
    """

    document: str
    correct: bool | None
    sample: str = "0"
    response: str = ""
    prompt: str = ""
    target: str = ""
    document_hash: str = ""
    prompt_hash: str = ""
    question: str = ""


@dataclass(frozen=True, slots=True)
class TaskResults:
    """The responses of one task.

    Args:
        responses: by document and sample.
        settings: how the task was measured; two inputs must agree on each, unless the difference is allowed by its key.
        listed: what may differ between two inputs, and is listed when it does.
    """

    responses: Mapping[str, Mapping[str, ScoredResponse]]
    settings: Mapping[str, str] = field(default_factory=dict)
    listed: Mapping[str, str] = field(default_factory=dict)

    @property
    def samples(self) -> list[str]:
        """The samples that every document has, sorted."""
        return sorted(next(iter(self.responses.values())), key=lambda sample: (len(sample), sample))


@dataclass(frozen=True, slots=True)
class Results:
    """The content of one input.

    Args:
        source: the path as it was given.
        format: the tool that wrote it.
        model: its name, "" where the file does not say.
        tasks: by name; a file that names no task has one, ``""``.
        clusters: of near-duplicates, where the input tells them: by document, for those that are in one.
    """

    source: str
    format: str
    model: str
    tasks: Mapping[str, TaskResults]
    clusters: Mapping[str, str] | None = None

    def alike(self) -> dict[tuple[str, str], str] | None:
        """The cluster of near-duplicates of each document that has a text, by task and document; None where none has.

        They are what the input tells, else found as those of the problems of a run, over all tasks:
        :func:`trimtab.stats.likeness.cluster_labels`.
        """
        documents = [(task, document) for task, results in self.tasks.items() for document in results.responses]
        if self.clusters is not None:
            return {(task, document): self.clusters.get(document, document) for task, document in documents}
        texts = {
            (task, document): text
            for task, document in documents
            if (text := next(iter(self.tasks[task].responses[document].values())).question.strip())
        }
        labels = dict(zip(texts, map(str, cluster_labels(list(texts.values()))), strict=True))
        return labels or None


def by_document(source: str, responses: Iterable[ScoredResponse]) -> dict[str, dict[str, ScoredResponse]]:
    """The responses of a task by document and sample, documents in the order in which they first come.

    Raises:
        InputError: no response, one document and sample twice, or documents with other samples than the rest.
    """
    table: dict[str, dict[str, ScoredResponse]] = {}
    twice: list[str] = []
    for one in responses:
        samples = table.setdefault(one.document, {})
        if one.sample in samples:
            twice.append(one.document)
        samples[one.sample] = one
    if not table:
        raise InputError(f"{source} holds no response to compare; give a file with results")
    if twice:
        raise InputError(
            f"{source} holds {count(len(set(twice)), 'document')} twice: {listed(dict.fromkeys(twice))}; several responses to "
            "one document need a sample number each, and a file to which two evaluations were appended has to be written anew"
        )
    kinds = Counter(frozenset(samples) for samples in table.values())
    if len(kinds) > 1:
        usual = kinds.most_common(1)[0][0]
        odd = [document for document, samples in table.items() if frozenset(samples) != usual]
        others = f"{count(len(odd), 'document')} {'has' if len(odd) == 1 else 'have'} others: {listed(odd)}"
        raise InputError(
            f"{source}: every document needs the same samples; most have {len(usual)}, but {others}; finish the evaluation or "
            "leave these documents out of both inputs"
        )
    return table


def own_texts(prompts: Sequence[str]) -> list[str]:
    """What is left of prompts without the words that all of them begin or end with, such as an instruction or solved examples.

    Example:
        >>> own_texts(["Solve: 2 + 2. Answer:", "Solve: 3 + 3. Answer:"])
        ['2 + 2.', '3 + 3.']
    """
    texts = [prompt.split() for prompt in prompts]
    for _ in range(2):  # what they begin with, then, backwards, what they end with
        shared = sum(1 for _ in takewhile(lambda words: len(set(words)) == 1, zip(*texts, strict=False)))
        start = max(0, min([shared, *(len(words) - 1 for words in texts)]))  # at least a word is left of each
        texts = [words[start:][::-1] for words in texts]
    return [" ".join(words) for words in texts]


def digest(*parts: str) -> str:
    """A hash of texts, each with its length, so that no two lists of texts have the same."""
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


def listed(names: Iterable[str]) -> str:
    """The first names of many."""
    every = list(names)
    more = f" and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return ", ".join(every[:LISTED]) + more


def count(n: int, noun: str) -> str:
    """``1 document``, ``2 documents``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def chosen(source: str, option: str, names: Iterable[str], wanted: str | None) -> str:
    """The one of several metrics or filters that is compared.

    Raises:
        InputError: several and none was named, or the named one is not among them.
    """
    every = list(dict.fromkeys(names))
    if wanted is None and len(every) == 1:
        return every[0]
    if wanted is None:
        raise InputError(
            f"{source} holds several {option}s: {', '.join(every)}; choose one with --{option} NAME", code="several-results"
        )
    if wanted not in every:
        raise InputError(f"{source} has no {option} {wanted!r}; it has {', '.join(every) or 'none'}")
    return wanted
