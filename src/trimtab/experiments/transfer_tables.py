"""Tables and figures of ``transfer``: what each group of problems gives, and what the sets share."""

from collections.abc import Mapping, Sequence

import numpy as np

from trimtab.analysis.sets import PairOverlap
from trimtab.experiments.comparisons import Row
from trimtab.experiments.crossing import Crossing
from trimtab.experiments.grouping import Grouping
from trimtab.experiments.sources import Source
from trimtab.experiments.workbench import Workbench
from trimtab.results import Column, Matrix, Point, Table
from trimtab.traces import Split

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
