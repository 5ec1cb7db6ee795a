"""``domains`` and ``transfer``: neurons that one domain alone needs, and neurons of some problems tried on others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.analysis.overlap import PairOverlap, set_overlaps
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.pairing import paired
from trimtab.experiments.comparisons import Row, Section, gain_dots, gain_words
from trimtab.experiments.groups import (
    ALPHA,
    EASY,
    HARD,
    Crossing,
    Excess,
    Grouping,
    Source,
    by_difficulty,
    by_domain,
    cross,
    cross_together,
    crossing_matrix,
    crossing_table,
    describe_excess,
    excess,
    excess_by_group,
    find_source,
    gated_answers,
    moments_of_group,
    neurons_of,
)
from trimtab.experiments.workbench import Workbench
from trimtab.interventions import ablate
from trimtab.neurons import Neurons
from trimtab.ranking import ClassMoments, random_like
from trimtab.results import Column, Matrix, Point, Result, Table, bounded
from trimtab.steering import Steering
from trimtab.traces import Split

MIN_SPECIFIC = 10
"""The initial sets grow until every group has as many neurons of its own."""
MAX_SHARE = 0.25
"""Initial sets hold at most this share of all neurons: beyond it the sets run into one another and less is left of each."""


class Specific(NamedTuple):
    """Specific sets and the sets that they came from.

    Args:
        k: neurons of each initial set, fewer where a ranking ends before.
        sets: by group the positions in its ranking of its own neurons, int64, best first.
    """

    k: int
    sets: Mapping[str, NDArray[np.int64]]

    @property
    def smallest(self) -> int:
        """The size of the smallest specific set."""
        return min(len(own) for own in self.sets.values())


def specific_at(orders: Mapping[str, NDArray[np.int64]], k: int) -> Specific:
    """The first k neurons of each ranking that are not among the first k of any other.

    Args:
        orders: by group the flat addresses of its neurons, int64 ``[neuron]``, best first.

    Example:
        >>> found = specific_at({"sums": np.array([3, 1, 2]), "names": np.array([1, 5, 3])}, 2)
        >>> {name: positions.tolist() for name, positions in found.sets.items()}
        {'sums': [0], 'names': [1]}
    """
    sets = {}
    for name, order in orders.items():
        others = [other[:k] for theirs, other in orders.items() if theirs != name]
        sets[name] = np.flatnonzero(~np.isin(order[:k], np.concatenate(others)))
    return Specific(k, sets)


def specific_sets(orders: Mapping[str, NDArray[np.int64]], k: int, n_neurons: int, minimum: int = MIN_SPECIFIC) -> Specific:
    """Specific sets of the smallest initial size that leaves every group ``minimum`` neurons of its own.

    The size starts at k and doubles, up to :data:`MAX_SHARE` of the model. If none is enough, the size whose smallest specific
    set is the largest is taken, the smallest such size on a tie.

    Args:
        n_neurons: of the model.
    """
    tried = [specific_at(orders, k)]
    while tried[-1].smallest < minimum and 2 * tried[-1].k <= MAX_SHARE * n_neurons:
        tried.append(specific_at(orders, 2 * tried[-1].k))
    enough = [found for found in tried if found.smallest >= minimum]
    return enough[0] if enough else max(tried, key=lambda found: found.smallest)


EVERYTHING = "all find problems"
FOUND, TESTED = "found on", "tested on"


def sources_table(name: str, title: str, bench: Workbench, grouping: Grouping, sources: Sequence[Source]) -> Table:
    """The data behind each source, and what it chose itself."""
    columns = (
        Column(name=FOUND),
        Column(name="problems in the contrast", unit="count"),
        Column(name="traces", unit="count"),
        Column(name="neurons", unit="count"),
        Column(name="strength", unit="number"),
        Column(name="chosen on validation problems", unit="count"),
        Column(name="gate"),
    )
    gate = f"the run's: {bench.steering.gate.label}" if bench.steering.gate.reads else "none"
    rows = []
    for source in sources:
        traces = sum(grouping.of.get(row.problem_id) == source.name for row in bench.contrast)
        numbers = (grouping.found_on[source.name], traces, len(source.neurons), source.steering.strength, source.tuned_on)
        rows.append((source.name, *numbers, f"its own: {source.steering.gate.label}" if source.own_gate else gate))
    note = (
        f"Criterion {bench.criterion}, intervention {bench.steering.facts['intervention']} and K are those of the run. "
        "The strength is the best of the grid without a gate; where it was chosen on 0 problems it is the run's."
    )
    return Table(name=name, title=title, columns=columns, rows=tuple(rows), note=note)


def crossing_dots(crossings: Mapping[str, Crossing]) -> list[Row]:
    """Every cell as a row of its own, those of one column in one colour."""
    return [
        Row(f"{row} to {column}, {how}", cell.comparisons, column)
        for how, crossing in crossings.items()
        for row, column, cell in crossing
    ]


def overlap_table(name: str, overlaps: Sequence[PairOverlap]) -> Table:
    """What every two sets share, beside chance."""
    columns = (
        Column(name="first"),
        Column(name="second"),
        Column(name="shared", unit="count"),
        Column(name="of", unit="count"),
        Column(name="Jaccard", unit="number"),
        Column(name="chance", unit="number"),
        Column(name="chance in the same layers", unit="number"),
    )
    rows = tuple((o.first, o.second, o.shared, _of(o), o.jaccard, o.expected, o.expected_in_layers) for o in overlaps)
    note = "Chance is the mean number that two random sets of these sizes share, of the whole model or of the same layers."
    return Table(name=name, title="What the sets share", columns=columns, rows=rows, note=note)


def overlap_matrix(name: str, overlaps: Sequence[PairOverlap], grouping: Grouping) -> Matrix:
    """The Jaccard index of every two sets."""
    jaccard = {frozenset((o.first, o.second)): o.jaccard for o in overlaps}
    found = {one for o in overlaps for one in (o.first, o.second)}
    names = tuple(one for one in grouping.names if one in found)
    chance = float(np.mean([o.expected_in_layers / (o.n_first + o.n_second - o.expected_in_layers) for o in overlaps]))
    return Matrix(
        name=name,
        title="What the sets of two domains share",
        n=sum(grouping.found_on[one] for one in names),
        of="contrasted problems",
        split=Split.TRAIN,
        detail=f"Jaccard index; chance in the same layers: {chance:.2f}",
        reading="Shared neurons over all neurons of both sets: 1 is the same set.",
        row_label=FOUND,
        column_label=FOUND,
        unit="number",
        rows=names,
        columns=names,
        cells=tuple(
            tuple(Point(value=jaccard[frozenset((one, other))]) if one != other else None for other in names) for one in names
        ),
        diverging=False,
    )


def overlap_found(overlaps: Sequence[PairOverlap]) -> str:
    """The overlaps in one sentence."""
    shares = [o.shared / _of(o) for o in overlaps]
    chance = float(np.mean([o.expected_in_layers / _of(o) for o in overlaps]))
    if len(overlaps) == 1:
        start = f"The two sets share {shares[0]:.0%} of their neurons"
    else:
        start = f"Two sets share {min(shares):.0%} to {max(shares):.0%} of their neurons, {np.mean(shares):.0%} on average"
    return f"{start}; chance in the same layers is {chance:.1%}."


def _of(overlap: PairOverlap) -> int:
    """The most that two sets can share."""
    return min(overlap.n_first, overlap.n_second)


ALWAYS, GATED = "always", "gated"
_HOW = {ALWAYS: "always steered", GATED: "behind the gate of the domain that gave them"}


class _Tried(NamedTuple):
    """The sources of a grouping and what they came to on the test split.

    Args:
        conditions: by ``always`` and ``gated``, the answers by source, with those of the run's own steering last.
        crossings: by the same.
    """

    sources: tuple[Source, ...]
    conditions: Mapping[str, Mapping[str, list[Outcome]]]
    crossings: Mapping[str, Crossing]


def transfer(bench: Workbench) -> Result:
    """Find on one group of the find problems, choose the strength on its tune problems, test on every group of the test problems.

    One evaluation of the whole test split per source serves a whole row of the matrix.
    """
    base = bench.answers(Split.TEST, None, label="unsteered")
    sections = [_domains(bench, base), _difficulty(bench, base)]
    return Result(
        name="transfer",
        title="Transfer between domains and difficulties",
        question="Do neurons and gate that some problems gave help on other problems?",
        findings=tuple(finding for section in sections for finding in section.findings),
        split=Split.TEST,
        tables=tuple(table for section in sections for table in section.tables),
        figures=tuple(figure for section in sections for figure in section.figures),
    )


def _domains(bench: Workbench, base: Sequence[Outcome]) -> Section:
    grouping = by_domain(bench)
    tried = _try(bench, base, grouping)
    if tried is None:
        return Section(findings=("There are no two domains large enough to find neurons on, so none can transfer.",))
    overlaps = set_overlaps({source.name: source.neurons for source in tried.sources})
    matrices = [
        crossing_matrix(
            f"domains-{how}",
            f"Gain of the neurons of one domain on another, {_HOW[how]}",
            crossing,
            FOUND,
            TESTED,
            "gain in points over the unsteered model",
            "A row is a set of neurons, a column the problems that it was tried on; the diagonal is a set's own domain.",
        )
        for how, crossing in tried.crossings.items()
    ]
    left_out = f"Too small, or beyond the number of domains asked for: {', '.join(grouping.left_out)}."
    return Section(
        tables=(
            sources_table("domains-found", "What each domain gives", bench, grouping, tried.sources),
            _gains_table("domains-gains", "From domain to domain", tried),
            overlap_table("domains-overlap", overlaps),
        ),
        figures=(*matrices, overlap_matrix("domains-overlap", overlaps, grouping)),
        findings=(
            *_gains_found(base, grouping, tried),
            overlap_found(overlaps),
            *([left_out] if grouping.left_out else []),
        ),
    )


def _difficulty(bench: Workbench, base: Sequence[Outcome]) -> Section:
    grouping = by_difficulty(bench)
    tried = _try(bench, base, grouping)
    if tried is None:
        return Section(findings=("The contrast has no hard and easy problems, or too few, so neither can transfer.",))
    reading = "Published (arXiv 2601.19847): neurons of hard tasks carry over to others."
    dots = gain_dots("difficulty", "From easy and hard problems to both", crossing_dots(tried.crossings), Split.TEST, reading)
    crossing = tried.crossings[ALWAYS]
    sizes = ", ".join(f"{cell.comparisons[0].n} {name}" for name, cell in zip(crossing.columns, crossing.cells[0], strict=True))
    return Section(
        tables=(
            sources_table("difficulty-found", "What the easier and the harder half give", bench, grouping, tried.sources),
            _gains_table("difficulty-gains", "From hard to easy problems and back", tried),
        ),
        figures=(dots.model_copy(update={"n": crossing.n, "detail": f"{sizes}; {dots.detail}"}),),
        findings=(
            *_difficulty_found(grouping, tried),
            overlap_found(set_overlaps({source.name: source.neurons for source in tried.sources})),
        ),
    )


def _try(bench: Workbench, base: Sequence[Outcome], grouping: Grouping) -> _Tried | None:
    """Find and test every source; None for fewer than two."""
    found = [find_source(bench, grouping, name) for name in grouping.names]
    sources = tuple(source for source in found if source is not None)
    if len(sources) < 2:
        return None
    always = {s.name: bench.answers(Split.TEST, s.steering, label=f"{s.name}, always") for s in sources}
    conditions = {ALWAYS: always | {EVERYTHING: bench.answers(Split.TEST, bench.steering, label="always")}}
    if bench.steering.gate.reads:
        gated = {s.name: gated_answers(bench, s.steering, base, always[s.name]) for s in sources}
        conditions[GATED] = gated | {EVERYTHING: bench.answers(Split.TEST, bench.steering, "auto", label="gated")}
    return _Tried(
        sources, conditions, dict(zip(conditions, cross_together(base, list(conditions.values()), grouping), strict=True))
    )


def _gains_table(name: str, title: str, tried: _Tried) -> Table:
    gated = (
        "Behind a gate, neurons and gate come from the same problems. " if GATED in tried.conditions else "The run has no gate. "
    )
    note = f"The last rows are the run's own steering. {gated}p is corrected by Holm over all gains of the table."
    return crossing_table(name, title, tried.crossings, FOUND, TESTED, note)


def _gains_found(base: Sequence[Outcome], grouping: Grouping, tried: _Tried) -> list[str]:
    findings = []
    for how, crossing in tried.crossings.items():
        away = [cell for row, column, cell in crossing if row not in (column, EVERYTHING)]
        gains = [100 * cell.gain for cell in away]
        sure = [cell.gain > 0 for cell in away if cell.p_holm is not None and cell.p_holm < ALPHA]
        found = excess(base, tried.conditions[how], grouping)
        findings.append(
            f"{how.capitalize()}, neurons of one domain on another: gains from {min(gains):+.1f} to {max(gains):+.1f} points; of "
            f"{len(away)} pairs {sum(sure)} gain and {len(sure) - sum(sure)} lose (p < {ALPHA} after Holm). "
            f"On average {describe_excess(found)}: {_verdict(found)}."
        )
    return findings


def _verdict(found: Excess) -> str:
    if not found.differs:
        by_names = " (names given at random reach as much)" if not found.low <= 0 <= found.high else ""
        return f"no evidence that a domain's own neurons are better for it than those of others{by_names}"
    more = "more" if found.value > 0 else "less"
    return f"a domain's own neurons, at the strength chosen on it, help it {more} than those of others"


def _difficulty_found(grouping: Grouping, tried: _Tried) -> list[str]:
    findings = []
    for how, crossing in tried.crossings.items():
        parts = [f"{row} to {column} {gain_words(c.comparisons[0])}" for row, column, c in crossing if row != EVERYTHING]
        findings.append(f"{how.capitalize()}: {'; '.join(parts)}.")
    conditions = tried.conditions[ALWAYS]
    for name in grouping.names:
        easy, hard = ([o for o in conditions[source] if grouping.of[o.problem_id] == name] for source in (EASY, HARD))
        findings.append(f"On {name} problems, neurons of hard instead of easy ones, always: {gain_words(paired(easy, hard))}.")
    return findings


RATIO = "activation-ratio"
CONTROL = "random neurons"
SUPPRESSED, TESTED = "suppressed", "tested on"
SCOPE = "all"
"""Suppressed at every token, the question's included, as in neuron activation differential analysis."""


class _Found(NamedTuple):
    """Specific sets by one criterion, all of one size.

    Args:
        sets: by domain the best of its own neurons.
    """

    criterion: str
    specific: Specific
    sets: Mapping[str, Neurons]


def domains(bench: Workbench) -> Result:
    """Suppress the neurons that are specific to one domain and watch all, by the chosen criterion and by activation ratio."""
    grouping = by_domain(bench)
    if len(grouping.names) < 2:
        sections = [
            Section(findings=("There are no two domains large enough to find neurons on, so nothing is specific to one.",))
        ]
    else:
        base = bench.answers(Split.TEST, None, label="unsteered")
        moments = {name: moments_of_group(bench, grouping, name) for name in grouping.names}
        sections = [_section(bench, base, grouping, moments, name) for name in dict.fromkeys((bench.criterion, RATIO))]
    return Result(
        name="domains",
        title="Neurons of one domain",
        question="Are there neurons that serve one domain alone?",
        findings=tuple(finding for section in sections for finding in section.findings),
        split=Split.TEST,
        tables=tuple(table for section in sections for table in section.tables),
        figures=tuple(figure for section in sections for figure in section.figures),
    )


def _section(
    bench: Workbench, base: Sequence[Outcome], grouping: Grouping, moments: Mapping[str, ClassMoments], criterion: str
) -> Section:
    if bench.ranking(criterion) is None:
        return Section(findings=(f"{criterion}: what it reads was not recorded.",))
    found = _find(bench, moments, criterion)
    if found is None:
        return Section(findings=(f"{criterion}: some domain has no neuron that no other domain's set holds.",))
    steerings = {name: bench.always(neurons, 1.0, ablate, SCOPE) for name, neurons in found.sets.items()}
    own = {name: bench.answers(Split.TEST, steering, label=f"without {name}") for name, steering in steerings.items()}
    controls = _controls(bench, list(steerings.values()))
    crossing = cross(base, {**own, CONTROL: controls}, grouping)
    by_domain = excess_by_group(base, own, grouping)
    size = len(next(iter(found.sets.values())))
    title = f"Accuracy without the {size} neurons of one domain ({criterion})"
    note = (
        f"Neurons are silenced at every token. {CONTROL.capitalize()}: mean of {len(controls)} sets of the same size and layers, "
        "the domains' in turn. p is corrected by Holm over the cells of the found sets."
    )
    return Section(
        tables=(
            _sets_table(bench, grouping, found, by_domain),
            crossing_table(f"suppression-{criterion}", title, {"": crossing}, SUPPRESSED, TESTED, note),
        ),
        figures=(
            crossing_matrix(
                f"suppression-{criterion}",
                title,
                crossing,
                SUPPRESSED,
                TESTED,
                "change of accuracy in points",
                "Were the neurons needed by one domain alone, the diagonal would be low and the rest near 0.",
            ),
        ),
        findings=(_finding(found, crossing, excess(base, own, grouping), by_domain),),
    )


def _find(bench: Workbench, moments: Mapping[str, ClassMoments], criterion: str) -> _Found | None:
    """The same number of specific neurons for every domain, the best of each; None where a domain has none."""
    n_neurons = bench.model.identity.n_neurons
    most = max(bench.k, int(MAX_SHARE * n_neurons))
    ranked = {name: neurons_of(bench, of, criterion, most) for name, of in moments.items()}
    known = {name: neurons for name, neurons in ranked.items() if neurons is not None}
    if len(known) < len(ranked):
        return None
    d_ff = bench.model.identity.d_ff
    orders = {name: neurons.layer * d_ff + neurons.index for name, neurons in known.items()}
    specific = specific_sets(orders, bench.k, n_neurons)
    size = specific.smallest
    if not size:
        return None
    return _Found(criterion, specific, {name: known[name].take(own[:size]) for name, own in specific.sets.items()})


def _controls(bench: Workbench, steerings: Sequence[Steering]) -> list[list[Outcome]]:
    """Random sets, each with the size and the layers of one of the sets."""
    controls = []
    for i in range(bench.settings.random_sets):
        like = steerings[i % len(steerings)]
        # a random sign would double what suppression takes away
        drawn = replace(random_like(like, bench.settings.seed + i), gain=like.gain, shift=like.shift)
        controls.append(bench.answers(Split.TEST, drawn, label="without random neurons"))
    return controls


def _sets_table(bench: Workbench, grouping: Grouping, found: _Found, by_domain: Mapping[str, Excess]) -> Table:
    n_layers = bench.model.n_layers
    columns = (
        Column(name="domain"),
        Column(name="problems in the contrast", unit="count"),
        Column(name="initial set", unit="count"),
        Column(name="of its own", unit="count"),
        Column(name="suppressed", unit="count"),
        Column(name=f"in layers 0 to {n_layers - 1}"),
        Column(name="change without them", unit="points"),
        Column(name="without another's", unit="points"),
        *bounded("difference", "points"),
    )
    rows = []
    for name, neurons in found.sets.items():
        layers = " ".join(map(str, np.bincount(neurons.layer, minlength=n_layers)))
        counts = (grouping.found_on[name], found.specific.k, len(found.specific.sets[name]), len(neurons))
        own = by_domain[name]
        rows.append((name, *counts, layers, own.own, own.others, own.value, own.low, own.high))
    note = (
        f"A domain's own neurons are those of its initial set that are in no other. Initial sets begin at K = {bench.k} and "
        f"double until every domain has {MIN_SPECIFIC} of its own, up to {MAX_SHARE:.0%} of the model; the best of each are "
        "suppressed, as many of every domain. Changes are of the domain's test problems; the intervals hold together at 95 %."
    )
    title = f"Neurons of one domain alone, by {found.criterion}"
    return Table(name=f"sets-{found.criterion}", title=title, columns=columns, rows=tuple(rows), note=note)


def _finding(found: _Found, crossing: Crossing, overall: Excess, by_domain: Mapping[str, Excess]) -> str:
    sizes = [len(own) for own in found.specific.sets.values()]
    control = 100 * float(np.mean([cell.gain for row, _, cell in crossing if row == CONTROL]))
    needed = [
        f"{name} ({100 * own.own:+.1f} points, {100 * own.others:+.1f} without another's)"
        for name, own in by_domain.items()
        if own.high < 0
    ]
    serve = "no domain loses more by its own neurons than by those of others"
    if needed:
        serve = f"{len(needed)} of {len(by_domain)} domains lose more by their own than by those of others: {', '.join(needed)}"
    return (
        f"{found.criterion}: of {found.specific.k} neurons a domain has {min(sizes)} to {max(sizes)} that no other domain has. "
        f"Without the best {min(sizes)} of these accuracy changes by {describe_excess(overall)}; without {CONTROL} by "
        f"{control:+.1f}. Domain by domain, {serve}."
    )
