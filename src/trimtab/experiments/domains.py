"""``domains``: neurons that one domain's set holds and no other's, suppressed domain by domain."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.crossing import (
    Crossing,
    Excess,
    cross,
    crossing_matrix,
    crossing_table,
    describe_excess,
    excess,
    excess_by_group,
)
from trimtab.experiments.grouping import Grouping, by_domain
from trimtab.experiments.sources import moments_of_group, neurons_of
from trimtab.experiments.specific import MAX_SHARE, MIN_SPECIFIC, Specific, specific_sets
from trimtab.experiments.workbench import Workbench
from trimtab.interventions import ablate
from trimtab.neurons import Neurons
from trimtab.ranking import ClassMoments, random_like
from trimtab.results import Column, Figure, Result, Table, bounded
from trimtab.steering import Steering
from trimtab.traces import Split

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


class _Section(NamedTuple):
    """Tables, figures and findings of one criterion."""

    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    findings: tuple[str, ...] = ()


def domains(bench: Workbench) -> Result:
    """Suppress the neurons that are specific to one domain and watch all, by the chosen criterion and by activation ratio."""
    grouping = by_domain(bench)
    if len(grouping.names) < 2:
        sections = [
            _Section(findings=("There are no two domains large enough to find neurons on, so nothing is specific to one.",))
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
) -> _Section:
    if bench.ranking(criterion) is None:
        return _Section(findings=(f"{criterion}: what it reads was not recorded.",))
    found = _find(bench, moments, criterion)
    if found is None:
        return _Section(findings=(f"{criterion}: some domain has no neuron that no other domain's set holds.",))
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
    return _Section(
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
