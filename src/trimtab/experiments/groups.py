"""Problems in groups, by domain or difficulty: what each group gives, and a matrix of gains, group by group."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trimtab.errors import NotEnoughDataError
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.verdict import Clusters, paired
from trimtab.experiments.comparisons import Row, best_strength, corrected
from trimtab.experiments.search import STATISTICS, Search
from trimtab.findings import Cell, Frame
from trimtab.gate import Gate
from trimtab.gating import RecordedRows, columns, fit_logistic, youden
from trimtab.gating.probe import check_classes
from trimtab.gating.reading import predict
from trimtab.neurons import Neurons
from trimtab.ranking import CRITERIA, ClassMoments
from trimtab.stats.estimates import bootstrap_macro, bootstrap_mean
from trimtab.steering import Steering
from trimtab.tasks import render_prompt
from trimtab.traces import Problem, Split

MIN_PROBLEMS = 5
"""A group of fewer problems in the contrast, or of fewer test problems, gets no set of its own and is not tested on."""
EASY, HARD = "easy", "hard"


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which group each problem belongs to, in every split.

    Args:
        of: the group by problem id; a problem outside every group is left out.
        names: the groups that are large enough, in the order in which they are shown.
        found_on: problems of each group in the contrast.
        left_out: groups that are too small, or beyond the number that the settings allow.
        clusters: of near-duplicate problems, each of which counts once in a comparison.
    """

    of: Mapping[str, str]
    names: tuple[str, ...]
    found_on: Mapping[str, int]
    left_out: tuple[str, ...] = ()
    clusters: Clusters = field(default_factory=dict)

    def among(self, problems: Sequence[Problem], name: str) -> list[Problem]:
        """The problems of one group."""
        return [problem for problem in problems if self.of.get(problem.id) == name]


def by_domain(search: Search) -> Grouping:
    """One group a domain; of more than ``settings.domains`` those with the most problems in the contrast."""
    grouping = _grouping(search, {p.id: p.domain for p in _problems(search) if p.domain})
    most = sorted(grouping.names, key=lambda name: -grouping.found_on[name])[: search.settings.domains]
    beyond = tuple(name for name in grouping.names if name not in most)
    return Grouping(grouping.of, tuple(sorted(most)), grouping.found_on, (*grouping.left_out, *beyond), grouping.clusters)


def by_difficulty(search: Search) -> Grouping:
    """The easier and the harder half: cut where it divides the problems of the contrast most evenly."""
    contrasted = {row.problem_id for row in search.contrast}
    levels = sorted(p.difficulty for p in search.split(Split.TRAIN) if p.id in contrasted)
    cuts = sorted(set(levels))[1:]
    if not cuts:
        return Grouping({}, (), {})
    cut = min(cuts, key=lambda level: abs(2 * sum(one < level for one in levels) - len(levels)))
    return _grouping(search, {p.id: HARD if p.difficulty >= cut else EASY for p in _problems(search)})


def _grouping(search: Search, of: Mapping[str, str]) -> Grouping:
    found_on = Counter(of[problem_id] for problem_id in {row.problem_id for row in search.contrast} if problem_id in of)
    tested_on = Counter(of[problem.id] for problem in search.split(Split.TEST) if problem.id in of)
    everything = sorted(set(of.values()))
    names = tuple(name for name in everything if min(found_on[name], tested_on[name]) >= MIN_PROBLEMS)
    return Grouping(of, names, dict(found_on), tuple(name for name in everything if name not in names), search.clusters)


def _problems(search: Search) -> list[Problem]:
    return [problem for problems in search.problems.values() for problem in problems]


MIN_VALIDATION = 20
"""On fewer validation problems of its own a group chooses no strength: it takes the run's."""


@dataclass(frozen=True, slots=True)
class Source:
    """What the problems of one group give.

    Args:
        steering: at its strength, behind its gate.
        tuned_on: validation problems that the strength was chosen on; 0 where it is the run's.
        own_gate: whether the gate is the group's own; else it is the run's.
    """

    name: str
    neurons: Neurons
    steering: Steering
    tuned_on: int
    own_gate: bool


def moments_of_group(search: Search, grouping: Grouping, name: str) -> ClassMoments:
    """Moments of the part of the contrast that is of one group; every criterion can read them."""
    rows = [row for row in search.contrast if grouping.of.get(row.problem_id) == name]
    return replace(search.moments_of(rows, STATISTICS), column_norm=search.class_moments.column_norm)


def neurons_of(search: Search, moments: ClassMoments, criterion: str, k: int) -> Neurons | None:
    """The best k neurons of some moments, or all that the criterion can select where these are fewer; None for none."""
    order = CRITERIA[criterion](moments).order
    eligible = int(moments.comparable.ravel()[order].sum())
    return search.neurons(criterion, min(k, eligible), moments, search.settings.seed) if eligible else None


def find_source(search: Search, grouping: Grouping, name: str) -> Source | None:
    """Find neurons on the contrast of a group, choose their strength on its validation problems without a gate, and fit its gate.

    Criterion, intervention and K are those that the run chose. Too little data for a strength or a gate falls back to the run's,
    and the source says so. None where the criterion can select no neuron.
    """
    neurons = neurons_of(search, moments_of_group(search, grouping, name), search.criterion, search.k)
    if neurons is None:
        return None
    steering = search.always(neurons)
    tune = grouping.among(search.split(Split.VALIDATION), name)[: search.tune.problems]
    tuned_on = len(tune) if len(tune) >= MIN_VALIDATION else 0
    if tuned_on:
        steering = best_strength(search, steering, label=f"{name}, strength", problems=tune)
    gate = fit_gate(search, grouping, name)
    return Source(name, neurons, steering.with_gate(gate or search.steering.gate), tuned_on, gate is not None)


def fit_gate(search: Search, grouping: Grouping, name: str) -> Gate | None:
    """A logistic gate fitted on a group's train problems with its threshold from the group's validation problems.

    It reads as many neurons as the run's gate, of the same prompt tokens. None where the run has no gate, or the group has fewer
    than 10 failed or 10 solved problems in either split.
    """
    if not search.prompts:
        return None
    run_gate = search.steering.gate
    rows, failed = {}, {}
    for split, recording in search.prompts.items():
        ids = [problem.id for problem in search.split(split)]
        inside = np.array([grouping.of.get(problem_id) == name for problem_id in ids])
        rows[split] = RecordedRows(recording, run_gate.scope, list(compress(ids, inside)))
        failed[split] = search.failed[split][inside]
    pooling = "mean" if run_gate.scope == "prompt" else "last"
    try:
        check_classes(failed[Split.VALIDATION])
        gate = fit_logistic(rows[Split.TRAIN], failed[Split.TRAIN], n_features=search.gate_features, pooling=pooling)
    except NotEnoughDataError:
        return None
    probability = gate.probability(columns(rows[Split.VALIDATION], gate.layer, gate.index))
    return replace(gate, mode=run_gate.mode, threshold=youden(failed[Split.VALIDATION], probability))


def gated_answers(search: Search, steering: Steering, base: Sequence[Outcome], always: Sequence[Outcome]) -> list[Outcome]:
    """Answers to the test split behind a gate.

    A hard gate needs no run of its own: the answer is the steered one where the gate fires and the unsteered one elsewhere.
    """
    gate = steering.gate
    if gate.mode != "hard":
        return search.answers(Split.TEST, steering, "auto", label="gated")
    questions = {p.id: render_prompt(search.model.tokenizer, p.question, search.prompt) for p in search.split(Split.TEST)}
    p_fail = predict(search.model, gate, questions)
    return [after if p_fail[before.problem_id] >= gate.cutoff else before for before, after in zip(base, always, strict=True)]


Conditions: TypeAlias = Mapping[str, Sequence[Outcome] | Sequence[Sequence[Outcome]]]
"""Outcomes on all problems by label; several lists of outcomes are sets whose mean is shown."""

ALPHA = 0.05
RESAMPLES = 9_999
FEWEST_TO_PERMUTE = 5
"""With four groups even the largest diagonal of all 24 assignments has a two-sided p of 0.08."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """``cells[row][column]``: one condition against the base on the problems of one group."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Row, ...], ...]

    @property
    def n(self) -> int:
        """Problems of all columns."""
        return sum(cell.comparisons[0].n for cell in self.cells[0])

    def __iter__(self) -> Iterator[tuple[str, str, Row]]:
        """(row, column, cell) of every cell, row by row."""
        for row, cells in zip(self.rows, self.cells, strict=True):
            for column, cell in zip(self.columns, cells, strict=True):
                yield row, column, cell


class Excess(NamedTuple):
    """What a condition does to its own group beyond what the conditions of other groups do to it.

    Args:
        value, low, high: mean of the diagonal minus mean of the rest, with a 95 % bootstrap interval over problems.
        own, others: the two means.
        p: two-sided, were the conditions' names exchangeable; None for fewer than :data:`FEWEST_TO_PERMUTE` groups.
    """

    value: float
    low: float
    high: float
    own: float
    others: float
    p: float | None

    @property
    def differs(self) -> bool:
        """Whether neither the problems drawn nor the names given explain the difference, each at 5 %."""
        return not self.low <= 0 <= self.high and (self.p is None or self.p < ALPHA)


def cross(base: Sequence[Outcome], families: Sequence[Conditions], grouping: Grouping) -> list[Crossing]:
    """Compare every condition with the base on every group; p corrected by Holm over all cells of all families but means."""
    cells = [
        _cell(base, f"{label} on {name}", condition, grouping, name)
        for conditions in families
        for label, condition in conditions.items()
        for name in grouping.names
    ]
    remaining = iter(corrected(cells))
    return [
        Crossing(tuple(conditions), grouping.names, tuple(tuple(next(remaining) for _ in grouping.names) for _ in conditions))
        for conditions in families
    ]


def excess(base: Sequence[Outcome], conditions: Mapping[str, Sequence[Outcome]], grouping: Grouping) -> Excess:
    """How much larger the diagonal is than the rest of the matrix, over the groups that have a condition of their own name.

    Of each problem in group j take the change under condition j minus the mean change under the other conditions; the value is
    the mean over groups of its mean, which is the mean of the diagonal minus the mean of the rest. Neither a condition that is
    strong everywhere nor a group that every condition moves shifts it. The bootstrap draws problems within groups, with the
    conditions as they are; the permutation gives the conditions each other's names.

    Raises:
        NotEnoughDataError: a group of fewer than two problems.
    """
    changes = _changes(base, conditions, grouping)
    interval = bootstrap_macro(changes.own - changes.others, changes.group)
    matrix, size = changes.matrix(), len(changes.names)
    own = float(np.trace(matrix)) / size
    others = float(matrix.sum() - np.trace(matrix)) / (size * (size - 1))
    return Excess(own - others, interval.low, interval.high, own, others, diagonal_p(matrix))


def excess_by_group(
    base: Sequence[Outcome], conditions: Mapping[str, Sequence[Outcome]], grouping: Grouping
) -> dict[str, Excess]:
    """The same for each group alone: a column's diagonal minus the mean of its rest; the intervals hold together at 95 %.

    Raises:
        NotEnoughDataError: a group of fewer than two problems.
    """
    changes = _changes(base, conditions, grouping)
    found = {}
    for i, name in enumerate(changes.names):
        own, others = (side[changes.group == i] for side in (changes.own, changes.others))
        interval = bootstrap_mean(own - others, level=1 - ALPHA / len(changes.names))
        value = float(own.mean() - others.mean())
        found[name] = Excess(value, interval.low, interval.high, float(own.mean()), float(others.mean()), None)
    return found


def diagonal_p(matrix: NDArray[np.float64]) -> float | None:
    """Two-sided p of the diagonal's mean if the rows were assigned to the columns at random; exact up to seven of them."""
    size = len(matrix)
    if size < FEWEST_TO_PERMUTE:
        return None

    def mean_diagonal(rows: NDArray[np.int64]) -> float:
        return float(matrix[rows, np.arange(size)].mean())

    result = stats.permutation_test(
        (np.arange(size),),
        mean_diagonal,
        permutation_type="pairings",
        vectorized=False,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def crossing_cells(crossing: Crossing) -> list[dict[str, Cell]]:
    """A row a cell, with the accuracy of the unsteered model on the column's problems."""
    return [
        {
            **cell.cells(column),
            "label": f"{row} to {column}",
            "row": row,
            "column": column,
            "unsteered": cell.comparisons[0].base_accuracy,
        }
        for row, column, cell in crossing
    ]


def crossing_matrix(name: str, title: str, crossing: Crossing, rows: str, columns: str, *, note: str, reading: str) -> Frame:
    """Gains by the source of the neurons and the group that they are tried on; ``rows`` and ``columns`` name the two axes."""
    return Frame(
        name,
        title,
        crossing_cells(crossing),
        plot="matrix",
        x_label=columns,
        y_label=rows,
        note=note,
        reading=reading,
    )


def describe_excess(found: Excess) -> str:
    """In words: the two means, their difference with its interval, and p.

    Example:
        ``"+19.0 points on the own one and +17.5 on the others, a difference of +1.5 [-0.3, +3.2]"``
    """
    p = "" if found.p is None else f", p = {found.p:.2g} with the names permuted"
    difference = f"a difference of {100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]{p}"
    return f"{100 * found.own:+.1f} points on the own one and {100 * found.others:+.1f} on the others, {difference}"


def _cell(
    base: Sequence[Outcome],
    label: str,
    condition: Sequence[Outcome] | Sequence[Sequence[Outcome]],
    grouping: Grouping,
    name: str,
) -> Row:
    def here(outcomes: Sequence[Outcome]) -> list[Outcome]:
        return [outcome for outcome in outcomes if grouping.of.get(outcome.problem_id) == name]

    sets = [condition] if isinstance(condition[0], Outcome) else condition
    return Row(label, tuple(paired(here(base), here(outcomes), grouping.clusters) for outcomes in sets))  # type: ignore[arg-type]


class _Changes(NamedTuple):
    """What became of the problems of the groups that have a condition of their own name.

    Args:
        names: the groups.
        group: int64 ``[problem]``, position in the names.
        changes: ``[condition, problem]``, 1 fixed, -1 broken, 0 as before.
    """

    names: tuple[str, ...]
    group: NDArray[np.int64]
    changes: NDArray[np.float64]

    @property
    def own(self) -> NDArray[np.float64]:
        """Each problem's change under its own group's condition."""
        return self.changes[self.group, np.arange(len(self.group))]

    @property
    def others(self) -> NDArray[np.float64]:
        """Each problem's mean change under the other groups' conditions."""
        return (self.changes.sum(axis=0) - self.own) / (len(self.names) - 1)

    def matrix(self) -> NDArray[np.float64]:
        """Mean changes ``[condition, group]``."""
        columns = range(len(self.names))
        return np.array([[condition[self.group == column].mean() for column in columns] for condition in self.changes])


def _changes(base: Sequence[Outcome], conditions: Mapping[str, Sequence[Outcome]], grouping: Grouping) -> _Changes:
    names = tuple(name for name in grouping.names if name in conditions)
    before = {o.problem_id: o.correct for o in base if grouping.of.get(o.problem_id) in names}
    group = np.array([names.index(grouping.of[problem_id]) for problem_id in before])
    after = ({outcome.problem_id: outcome.correct for outcome in conditions[name]} for name in names)
    return _Changes(
        names, group, np.array([[float(condition[i]) - float(correct) for i, correct in before.items()] for condition in after])
    )
