"""``domains`` and ``transfer``: neurons that one domain alone needs, and neurons of some problems tried on others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.analysis.sets import PairOverlap, set_overlaps
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.verdict import paired
from trimtab.experiments.comparisons import GAIN, Part, gain_words, gathered
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
    crossing_cells,
    crossing_matrix,
    describe_excess,
    excess,
    excess_by_group,
    find_source,
    gated_answers,
    moments_of_group,
    neurons_of,
)
from trimtab.experiments.search import Search
from trimtab.findings import Findings, Frame
from trimtab.interventions import ablate
from trimtab.neurons import Neurons
from trimtab.ranking import ClassMoments, random_like
from trimtab.steering import Steering
from trimtab.traces import Split

EVERYTHING = "all train problems"
FOUND, TESTED, ABLATED = "found on", "tested on", "ablated"
ALWAYS, GATED = "always", "gated"
_HOW = {ALWAYS: "always steered", GATED: "behind the gate of the domain that gave them"}
RATIO = "activation-ratio"
CONTROL = "random neurons"
SCOPE = "all"
"""Ablated at every token, the question's included, as in neuron activation differential analysis."""
MIN_SPECIFIC = 10
"""The initial sets grow until every group has as many neurons of its own."""
MAX_SHARE = 0.25
"""Initial sets hold at most this share of all neurons: beyond it the sets run into one another and less is left of each."""


class Tried(NamedTuple):
    """The sources of a grouping and their results on the test split.

    Args:
        conditions: by ``always`` and ``gated``, the answers by source, with those of the run's own steering last.
        crossings: by the same.
    """

    sources: tuple[Source, ...]
    conditions: Mapping[str, Mapping[str, list[Outcome]]]
    crossings: Mapping[str, Crossing]


def transfer(search: Search) -> Findings:
    """Find on one group of the train problems, choose the strength on its validation problems, test on every group of the test
    problems.

    One evaluation of the whole test split per source serves a whole row of the matrix.
    """
    base = search.answers(Split.TEST, None, label="unsteered")
    parts = (_between_domains(search, base), _between_difficulties(search, base))
    question = "Do neurons and gate that some problems gave help on other problems?"
    return gathered("transfer", "Transfer between domains and difficulties", question, Split.TEST, parts)


def _between_domains(search: Search, base: Sequence[Outcome]) -> Part:
    grouping = by_domain(search)
    tried = _try(search, base, grouping)
    if tried is None:
        return Part(sentences=("There are no two domains large enough to find neurons on, so none can transfer.",))
    matrices = [
        crossing_matrix(
            f"domains-{how}",
            f"Gain of the neurons of one domain on another, {_HOW[how]}",
            crossing,
            FOUND,
            TESTED,
            note=_gains_note(tried),
            reading="A row is a set of neurons, a column the problems that it was tried on; the diagonal is a set's own domain.",
        )
        for how, crossing in tried.crossings.items()
    ]
    overlaps = set_overlaps({source.name: source.neurons for source in tried.sources})
    found = _sources_frame("domains-found", "What each domain gives", search, grouping, tried.sources)
    sentences = [*_gains_found(base, grouping, tried), overlap_words(overlaps)]
    if grouping.left_out:
        sentences.append(f"Too small, or beyond the number of domains asked for: {', '.join(grouping.left_out)}.")
    return Part((found, *matrices, _overlap_frame(overlaps, grouping)), tuple(sentences))


def _between_difficulties(search: Search, base: Sequence[Outcome]) -> Part:
    grouping = by_difficulty(search)
    tried = _try(search, base, grouping)
    if tried is None:
        return Part(sentences=("The contrast has no hard and easy problems, or too few, so neither can transfer.",))
    found = _sources_frame("difficulty-found", "What the easier and the harder half give", search, grouping, tried.sources)
    rows = [(how, row) for how, crossing in tried.crossings.items() for row in crossing_cells(crossing)]
    gains = Frame(
        "difficulty",
        "From easy and hard problems to both",
        [{**row, "label": f"{row['label']}, {how}", "how": how} for how, row in rows],
        plot="dots",
        x_label=GAIN,
        reference=0.0,
        note=_gains_note(tried),
        reading="Published (arXiv 2601.19847): neurons of hard tasks carry over to others.",
    )
    overlaps = set_overlaps({source.name: source.neurons for source in tried.sources})
    return Part((found, gains), (*_difficulty_found(grouping, tried), overlap_words(overlaps)))


def _try(search: Search, base: Sequence[Outcome], grouping: Grouping) -> Tried | None:
    """Find and test every source; None for fewer than two."""
    found = [find_source(search, grouping, name) for name in grouping.names]
    sources = tuple(source for source in found if source is not None)
    if len(sources) < 2:
        return None
    always = {s.name: search.answers(Split.TEST, s.steering, label=f"{s.name}, always") for s in sources}
    conditions = {ALWAYS: always | {EVERYTHING: search.answers(Split.TEST, search.steering, label="always")}}
    if search.steering.gate.reads:
        gated = {s.name: gated_answers(search, s.steering, base, always[s.name]) for s in sources}
        conditions[GATED] = gated | {EVERYTHING: search.answers(Split.TEST, search.steering, "auto", label="gated")}
    crossings = cross(base, list(conditions.values()), grouping)
    return Tried(sources, conditions, dict(zip(conditions, crossings, strict=True)))


def _gains_note(tried: Tried) -> str:
    gate = "Behind a gate, neurons and gate come from the same problems." if GATED in tried.conditions else "The run has no gate."
    return f"The last rows are the run's own steering. {gate} p_holm is corrected over all gains, with and without the gate."


def _sources_frame(name: str, title: str, search: Search, grouping: Grouping, sources: Sequence[Source]) -> Frame:
    """The data behind each source, and what it chose itself."""
    run_gate = f"the run's: {search.steering.gate.label}" if search.steering.gate.reads else "none"
    return Frame(
        name,
        title,
        [
            {
                "label": source.name,
                "n": grouping.found_on[source.name],
                "traces": sum(grouping.of.get(row.problem_id) == source.name for row in search.contrast),
                "neurons": len(source.neurons),
                "strength": source.steering.strength,
                "chosen_on": source.tuned_on,
                "gate": f"its own: {source.steering.gate.label}" if source.own_gate else run_gate,
            }
            for source in sources
        ],
        note=f"n problems in the contrast, and their traces. Criterion {search.criterion}, intervention "
        f"{search.steering.facts['intervention']} and K are those of the run. The strength is the best of the grid without a "
        "gate, chosen on this many validation problems; where it was chosen on 0 problems it is the run's.",
    )


def _gains_found(base: Sequence[Outcome], grouping: Grouping, tried: Tried) -> list[str]:
    sentences = []
    for how, crossing in tried.crossings.items():
        away = [cell for row, column, cell in crossing if row not in (column, EVERYTHING)]
        gains = [100 * cell.gain for cell in away]
        sure = [cell.gain > 0 for cell in away if cell.p_holm is not None and cell.p_holm < ALPHA]
        found = excess(base, tried.conditions[how], grouping)
        sentences.append(
            f"{how.capitalize()}, neurons of one domain on another: gains from {min(gains):+.1f} to {max(gains):+.1f} points; of "
            f"{len(away)} pairs {sum(sure)} gain and {len(sure) - sum(sure)} lose (p < {ALPHA} after Holm). "
            f"On average {describe_excess(found)}: {_excess_words(found)}."
        )
    return sentences


def _excess_words(found: Excess) -> str:
    if not found.differs:
        by_names = " (names given at random reach as much)" if not found.low <= 0 <= found.high else ""
        return f"no evidence that a domain's own neurons are better for it than those of others{by_names}"
    more = "more" if found.value > 0 else "less"
    return f"a domain's own neurons, at the strength chosen on it, help it {more} than those of others"


def _difficulty_found(grouping: Grouping, tried: Tried) -> list[str]:
    sentences = []
    for how, crossing in tried.crossings.items():
        parts = [f"{row} to {column} {gain_words(c.comparisons[0])}" for row, column, c in crossing if row != EVERYTHING]
        sentences.append(f"{how.capitalize()}: {'; '.join(parts)}.")
    conditions = tried.conditions[ALWAYS]
    for name in grouping.names:
        easy, hard = ([o for o in conditions[source] if grouping.of[o.problem_id] == name] for source in (EASY, HARD))
        gain = gain_words(paired(easy, hard, grouping.clusters))
        sentences.append(f"On {name} problems, neurons of hard instead of easy ones, always: {gain}.")
    return sentences


def _overlap_frame(overlaps: Sequence[PairOverlap], grouping: Grouping) -> Frame:
    """The Jaccard index of every two sets, beside chance."""
    place = grouping.names.index
    pairs = [(*sorted((o.first, o.second), key=place), o) for o in overlaps]
    chance = float(np.mean([o.expected_in_layers / (o.n_first + o.n_second - o.expected_in_layers) for o in overlaps]))
    return Frame(
        "domains-overlap",
        "Neurons that the sets of two domains share",
        [
            {
                "label": f"{first} and {second}",
                "n": _most_shared(o),
                "value": o.jaccard,
                "unit": "number",
                "row": first,
                "column": second,
                "shared": o.shared,
                "chance": o.expected,
                "chance_in_layers": o.expected_in_layers,
            }
            for first, second, o in sorted(pairs, key=lambda pair: (place(pair[0]), place(pair[1])))
        ],
        plot="matrix",
        x_label=FOUND,
        y_label=FOUND,
        note="Jaccard index; shared neurons of n that can be. Chance: the mean number that two random sets of these sizes share, "
        f"of the whole model or of the same layers (Jaccard {chance:.2f}).",
        reading="Shared neurons over all neurons of both sets: 1 is the same set.",
    )


def overlap_words(overlaps: Sequence[PairOverlap]) -> str:
    """The overlaps in one sentence."""
    shares = [o.shared / _most_shared(o) for o in overlaps]
    chance = float(np.mean([o.expected_in_layers / _most_shared(o) for o in overlaps]))
    if len(overlaps) == 1:
        start = f"The two sets share {shares[0]:.0%} of their neurons"
    else:
        start = f"Two sets share {min(shares):.0%} to {max(shares):.0%} of their neurons, {np.mean(shares):.0%} on average"
    return f"{start}; chance in the same layers is {chance:.1%}."


def _most_shared(overlap: PairOverlap) -> int:
    return min(overlap.n_first, overlap.n_second)


class Specific(NamedTuple):
    """Sets of neurons that no other group's initial set holds, and where they came from.

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


class Found(NamedTuple):
    """Specific sets by one criterion, all of one size.

    Args:
        sets: by domain the best of its own neurons.
    """

    criterion: str
    specific: Specific
    sets: Mapping[str, Neurons]


def domains(search: Search) -> Findings:
    """Ablate the neurons that are specific to one domain and watch all, by the chosen criterion and by activation ratio."""
    grouping = by_domain(search)
    if len(grouping.names) < 2:
        parts = [Part(sentences=("There are no two domains large enough to find neurons on, so nothing is specific to one.",))]
    else:
        base = search.answers(Split.TEST, None, label="unsteered")
        moments = {name: moments_of_group(search, grouping, name) for name in grouping.names}
        parts = [_specific(search, base, grouping, moments, name) for name in dict.fromkeys((search.criterion, RATIO))]
    question = "Are there neurons that serve one domain alone?"
    return gathered("domains", "Neurons of one domain", question, Split.TEST, parts)


def _specific(
    search: Search, base: Sequence[Outcome], grouping: Grouping, moments: Mapping[str, ClassMoments], criterion: str
) -> Part:
    if search.ranking(criterion) is None:
        return Part(sentences=(f"{criterion}: a moment that it reads was not recorded.",))
    found = _find(search, moments, criterion)
    if found is None:
        return Part(sentences=(f"{criterion}: some domain has no neuron that no other domain's set holds.",))
    steerings = {name: search.always(neurons, 1.0, ablate, SCOPE) for name, neurons in found.sets.items()}
    own = {name: search.answers(Split.TEST, steering, label=f"without {name}") for name, steering in steerings.items()}
    controls = _controls(search, list(steerings.values()))
    (crossing,) = cross(base, [{**own, CONTROL: controls}], grouping)
    by_domain = excess_by_group(base, own, grouping)
    matrix = crossing_matrix(
        f"ablation-{criterion}",
        f"Accuracy without the {len(next(iter(found.sets.values())))} neurons of one domain ({criterion})",
        crossing,
        ABLATED,
        TESTED,
        note=f"Neurons are silenced at every token. {CONTROL.capitalize()}: mean of {len(controls)} sets of the same size and "
        "layers, the domains' in turn. p_holm is corrected over the cells of the found sets.",
        reading="Were the neurons needed by one domain alone, the diagonal would be low and the rest near 0.",
    )
    sentence = _domain_words(found, crossing, excess(base, own, grouping), by_domain)
    return Part((_sets_frame(search, grouping, found, by_domain), matrix), (sentence,))


def _find(search: Search, moments: Mapping[str, ClassMoments], criterion: str) -> Found | None:
    """The same number of specific neurons for every domain, the best of each; None where a domain has none."""
    n_neurons = search.model.identity.n_neurons
    most = max(search.k, int(MAX_SHARE * n_neurons))
    ranked = {name: neurons_of(search, of, criterion, most) for name, of in moments.items()}
    known = {name: neurons for name, neurons in ranked.items() if neurons is not None}
    if len(known) < len(ranked):
        return None
    d_ff = search.model.identity.d_ff
    orders = {name: neurons.layer * d_ff + neurons.index for name, neurons in known.items()}
    specific = specific_sets(orders, search.k, n_neurons)
    size = specific.smallest
    if not size:
        return None
    return Found(criterion, specific, {name: known[name].take(own[:size]) for name, own in specific.sets.items()})


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


def _controls(search: Search, steerings: Sequence[Steering]) -> list[list[Outcome]]:
    """Random sets, each with the size and the layers of one of the sets."""
    controls = []
    for i in range(search.settings.random_sets):
        like = steerings[i % len(steerings)]
        # a random sign would double what an ablation takes away
        drawn = replace(random_like(like, search.settings.seed + i), gain=like.gain, shift=like.shift)
        controls.append(search.answers(Split.TEST, drawn, label="without random neurons"))
    return controls


def _sets_frame(search: Search, grouping: Grouping, found: Found, by_domain: Mapping[str, Excess]) -> Frame:
    n_layers = search.model.n_layers
    return Frame(
        f"sets-{found.criterion}",
        f"Neurons of one domain alone, by {found.criterion}: the change without its own, beyond that without another's",
        [
            {
                "label": name,
                "n": grouping.found_on[name],
                "value": own.value,
                "low": own.low,
                "high": own.high,
                "unit": "points",
                "without_own": own.own,
                "without_others": own.others,
                "initial_set": found.specific.k,
                "of_its_own": len(found.specific.sets[name]),
                "ablated": len(found.sets[name]),
                "by_layer": " ".join(map(str, np.bincount(found.sets[name].layer, minlength=n_layers))),
            }
            for name, own in by_domain.items()
        ],
        plot="dots",
        x_label="change of accuracy without a domain's own neurons minus that without another's",
        reference=0.0,
        note="n problems in the contrast; changes are of the domain's test problems, and the intervals hold together at 95 %. A "
        f"domain's own neurons are those of its initial set that are in no other. Initial sets begin at K = {search.k}, double "
        f"until every domain has {MIN_SPECIFIC} of its own, up to {MAX_SHARE:.0%} of the model; the best of each are ablated, as "
        f"many of every domain; by_layer counts these in layers 0 to {n_layers - 1}.",
    )


def _domain_words(found: Found, crossing: Crossing, overall: Excess, by_domain: Mapping[str, Excess]) -> str:
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
