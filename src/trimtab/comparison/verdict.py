"""The paired verdict of inputs against the first: by task, over all documents and as a macro average."""

import html
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from trimtab.comparison.pairing import Difference, Flip, Paired, differences, pair
from trimtab.comparison.readers import CONDITION, read_results
from trimtab.comparison.results import Results
from trimtab.errors import InputError
from trimtab.stats.estimates import bootstrap_macro
from trimtab.stats.paired import compare as compare_arrays
from trimtab.stats.paired import smallest_gain
from trimtab.stats.significance import holm
from trimtab.stats.values import PairedComparison
from trimtab.stats.verdict import (
    POWER,
    UnscoredBounds,
    detectable,
    figures,
    finite,
    hangs_on_unscored,
    unscored_bounds,
    unscored_range,
    verdict_word,
)

if TYPE_CHECKING:
    import pandas as pd

    from trimtab.store import AnyPath

Word = Literal["better", "no evidence", "worse", "no verdict"]
_WORDS: dict[str, Word] = {"helps": "better", "hurts": "worse", "no evidence": "no evidence", "no verdict": "no verdict"}


@dataclass(frozen=True, slots=True)
class Input:
    """One side of a comparison: the path as given, the tool that wrote it, and the model that it names ("" for none)."""

    source: str
    format: str
    model: str


@dataclass(frozen=True, slots=True)
class TaskVerdict:
    """One task of an input against the same task of the base.

    Args:
        task: its name.
        word: by ``p_holm``.
        comparison: see :class:`trimtab.stats.values.PairedComparison`.
        p_holm: its p after Holm over all tasks of all inputs; equal to p where there is one.
        minimum_detectable_gain: found in 80 % of cases with these documents; None where no gain of any size could be shown.
        base_unscored, unscored: responses without a score.
    """

    task: str
    word: Word
    comparison: PairedComparison
    p_holm: float
    minimum_detectable_gain: float | None
    base_unscored: int
    unscored: int


@dataclass(frozen=True, slots=True)
class MacroAverage:
    """Accuracies and gain with every task weighing the same.

    The interval is bootstrapped over documents within the tasks, near-duplicates together; None where a task has a single
    document or cluster, or where within no task one document differs from another.
    """

    tasks: int
    base_accuracy: float
    accuracy: float
    gain: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Against:
    """One input against the base.

    Args:
        input: which.
        word, sentence: the verdict over all documents; of several inputs after Holm over them.
        overall: all documents of all tasks together; None where tasks have other numbers of samples than each other.
        p_holm: of ``overall``, after Holm over the inputs.
        tasks: one by one.
        macro: None where there is one task.
        differences: what differs and was not refused.
        flips: pairs of which one alone is correct.
    """

    input: Input
    word: Word
    sentence: str
    overall: PairedComparison | None
    p_holm: float | None
    tasks: tuple[TaskVerdict, ...]
    macro: MacroAverage | None
    differences: tuple[Difference, ...]
    flips: tuple[Flip, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """Inputs against the first, on the same documents.

    Args:
        base: the first input.
        against: the others in the order given.
        alpha: two-sided level.
    """

    base: Input
    against: tuple[Against, ...]
    alpha: float

    def __repr__(self) -> str:
        from trimtab.comparison.text import render

        return render(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"

    def to_json(self, *, flips: bool = False) -> dict[str, object]:
        """Plain values; with ``flips`` the responses of each."""
        data = asdict(self)
        if not flips:
            for one in data["against"]:
                del one["flips"]
        # round trip: tuples become lists, and what JSON cannot hold raises here
        return json.loads(json.dumps(data, allow_nan=False))

    def to_pandas(self) -> "pd.DataFrame":
        """A row an input and task: verdict, the figures of the comparison, p after Holm, unscored responses."""
        import pandas as pd

        rows = [
            {"base": self.base.source, "input": one.input.source, "task": row.task, "verdict": row.word}
            | asdict(row.comparison)
            | {name: getattr(row, name) for name in ("p_holm", "minimum_detectable_gain", "base_unscored", "unscored")}
            for one in self.against
            for row in one.tasks
        ]
        return pd.DataFrame(rows)


class _Judged(NamedTuple):
    """A comparison with what was unscored in it."""

    comparison: PairedComparison
    bounds: UnscoredBounds | None


def compare(
    base: "str | AnyPath",
    *others: "str | AnyPath",
    metric: str | None = None,
    filter_name: str | None = None,
    condition: str = CONDITION,
    allow: Collection[str] = (),
    alpha: float = 0.05,
) -> Comparison:
    """Judge result files against the first, paired by document.

    Reads lm-evaluation-harness, Inspect, evalplus, JSON lines, CSV or Parquet with ``id`` and ``correct``, and runs of trimtab.
    With one response a document the test is exact McNemar, else a sign-flip permutation test over documents; responses without
    a score count as wrong and are bounded, and above 1 % of them there is no verdict. Near-duplicate documents count once, as
    clusters, as they do in :meth:`trimtab.Study.evaluate`.

    Args:
        base: the first file or folder.
        others: one or more to judge against it.
        metric: which of several is compared: a metric of lm-evaluation-harness, a scorer of Inspect, base or plus of evalplus.
        filter_name: which of several filters of lm-evaluation-harness.
        condition: of runs of trimtab.
        allow: kinds of difference that are listed instead of refused, such as ``version``, ``few-shots`` or ``documents``.
        alpha: two-sided level of the verdict.

    Raises:
        ConfigError: the inputs were not measured in the same way, or inspect_ai is needed and not installed.
        InputError: an input is missing or damaged, or holds other documents under the same ids.

    Example:
        >>> compare("results/base", "results/steered", metric="exact_match")  # doctest: +SKIP
    """
    if not others:
        raise InputError(f"a comparison needs two inputs or more, got {base}")
    if not 0 < alpha < POWER:
        raise InputError(f"a level lies between 0 and {POWER}, got {alpha}")
    results = [read_results(path, metric=metric, filter_name=filter_name, condition=condition) for path in (base, *others)]
    return compare_results(results[0], results[1:], allow=allow, alpha=alpha)


def compare_results(base: Results, others: Sequence[Results], *, allow: Collection[str], alpha: float) -> Comparison:
    """Judge results in memory; see :func:`compare`."""
    told: list[tuple[Difference, ...]] = []
    tasks: list[dict[str, Paired]] = []
    alike = base.alike()
    for other in others:
        names, differing = differences(base, other, allow)
        told.append(tuple(differing))
        tasks.append(_paired(base, other, names, alike))
    judged = [{name: _judge([paired]) for name, paired in by_name.items()} for by_name in tasks]
    overall = [_overall(list(by_name.values())) for by_name in tasks]
    by_task = iter(holm([one.comparison.p for each in judged for one in each.values()]).tolist())
    by_input = iter(holm([one.comparison.p for one in overall if one]).tolist())
    against: list[Against] = []
    for other, each, whole, pairs, differing in zip(others, judged, overall, tasks, told, strict=True):
        rows = tuple(_task_verdict(name, one, next(by_task), alpha) for name, one in each.items())
        p = next(by_input) if whole else None
        word, sentence = _sentence(whole, p, rows, len(others), alpha)
        sentence = " ".join([sentence, *_without_text(list(pairs.values()))])
        against.append(
            Against(
                _input(other),
                word,
                sentence,
                whole.comparison if whole else None,
                p,
                rows,
                _macro(list(pairs.values())) if len(pairs) > 1 else None,
                differing,
                tuple(flip for paired in pairs.values() for flip in paired.flips),
            )
        )
    return Comparison(_input(base), tuple(against), alpha)


def _paired(
    base: Results, other: Results, names: Mapping[str, tuple[str, str]], alike: Mapping[tuple[str, str], str] | None
) -> dict[str, Paired]:
    """The tasks by the names under which they are shown; near-duplicates are the base's where it has the texts."""
    side, found = (0, alike) if alike is not None else (1, other.alike() or {})
    return {
        name: pair(
            name,
            base.tasks[own[0]],
            other.tasks[own[1]],
            {document: cluster for (task, document), cluster in found.items() if task == own[side]},
        )
        for name, own in names.items()
    }


def _without_text(tasks: Sequence[Paired]) -> list[str]:
    """A sentence where near-duplicates could not be looked for, else none."""
    missing, n = sum(task.without_text for task in tasks), sum(len(task.clusters) for task in tasks)
    if not missing:
        return []
    which = "the documents" if missing == n else f"{missing} of {n} documents"
    return [f"Near-duplicates among {which} would count as independent: no text of them is in the inputs."]


def _input(results: Results) -> Input:
    return Input(results.source, results.format, results.model)


def _judge(tasks: Sequence[Paired]) -> _Judged:
    base, other = (np.concatenate([task.sides[i] for task in tasks]) for i in range(2))
    base_unscored, other_unscored = (np.concatenate([task.unscored[i] for task in tasks]) for i in range(2))
    shared = min(task.shared for task in tasks)
    clusters = [name for task in tasks for name in task.clusters]
    comparison = compare_arrays(base, other, shared, clusters)
    return _Judged(comparison, unscored_bounds(base, other, base_unscored, other_unscored, shared, clusters))


def _overall(tasks: Sequence[Paired]) -> _Judged | None:
    shapes = {(*(side.shape[1] for side in task.sides), task.shared) for task in tasks}
    return _judge(tasks) if len(shapes) == 1 else None


def _task_verdict(name: str, judged: _Judged, p_holm: float, alpha: float) -> TaskVerdict:
    comparison, bounds = judged
    return TaskVerdict(
        name,
        _WORDS[verdict_word(comparison, p_holm, bounds, alpha)],
        comparison,
        p_holm,
        finite(smallest_gain(comparison, POWER, alpha)),
        bounds.base if bounds else 0,
        bounds.condition if bounds else 0,
    )


def _sentence(whole: _Judged | None, p: float | None, rows: Sequence[TaskVerdict], inputs: int, alpha: float) -> tuple[Word, str]:
    """The verdict over all documents; where tasks cannot be put together, there is none over all."""
    if whole is None or p is None:
        text = "No verdict over all tasks: they have different numbers of samples a document. See the tasks one by one."
        return "no verdict", text
    comparison, bounds = whole
    word = verdict_word(comparison, p, bounds, alpha)
    sentences = [f"{_WORDS[word].capitalize()}: {figures(comparison)}."]
    if inputs > 1:
        sentences.append(f"After Holm over {inputs} inputs p = {p:.2g}.")
    sentences.append(detectable(comparison, alpha))
    if bounds:
        sentences.append(unscored_range(comparison, bounds, ("A", "B")))
        sentences += hangs_on_unscored(comparison, bounds, alpha)
    if len(rows) > 1:
        counts = {name: sum(row.word == name for row in rows) for name in ("better", "worse", "no evidence", "no verdict")}
        told = ", ".join(f"{name} on {n}" for name, n in counts.items() if n)
        sentences.append(f"Of {len(rows)} tasks, after Holm: {told}.")
    return _WORDS[word], " ".join(sentences)


def _macro(tasks: Sequence[Paired]) -> MacroAverage:
    base, other = ([side.mean(axis=1) for side in sides] for sides in zip(*(task.sides for task in tasks), strict=True))
    gains = [after - before for before, after in zip(base, other, strict=True)]
    low = high = None
    if min(len(set(task.clusters)) for task in tasks) > 1 and any(np.ptp(one) > 0 for one in gains):
        strata = np.repeat(np.arange(len(gains)), [len(one) for one in gains])
        low, high = bootstrap_macro(np.concatenate(gains), strata, [name for task in tasks for name in task.clusters])
    means = [float(np.mean([one.mean() for one in sides])) for sides in (base, other)]
    return MacroAverage(len(tasks), means[0], means[1], means[1] - means[0], low, high)
