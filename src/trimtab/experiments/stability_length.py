"""Incorrect chains tend to be longer. Does the search find reasoning, or length? A contrast of pairs of about equal length."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.comparisons import compare_rows, comparison_table, describe
from trimtab.experiments.redrawn import Redrawn, middle, shared
from trimtab.experiments.section import Section
from trimtab.experiments.stability_sizes import WHOLE, gated_answers
from trimtab.ranking import Choice
from trimtab.results import Cell, Column, Table, bounded
from trimtab.tasks.contrast import ContrastRow
from trimtab.traces import Split

Pair = tuple[str, str]
"""Ids of a correct and an incorrect trace of one problem."""
Sides = Mapping[str, tuple[Sequence[str], Sequence[str]]]
"""Per problem the ids of its correct and of its incorrect traces."""
MATCHED, RANDOM = "pairs of equal length", "as many random pairs"
_TOO_FAR = 1e6


def length_control(redrawn: Redrawn, base: Sequence[Outcome]) -> Section:
    """Search in pairs of one problem whose lengths are about equal, and in as many random pairs of the same problems."""
    bench, settings = redrawn.bench, redrawn.bench.settings.stability
    lengths = {trace.id: len(trace.response_ids) for trace in bench.traces}
    loaded = set(redrawn.means.trace_ids)
    sides = by_problem([row for row in bench.contrast if row.trace_id in loaded])
    found = {problem: matched_pairs(*both, lengths, settings.length_tolerance) for problem, both in sides.items()}
    n_pairs = {problem: len(pairs) for problem, pairs in found.items() if pairs}
    matched = [pair for pairs in found.values() for pair in pairs]
    remain = (
        f"Length: {len(matched)} pairs of a correct and an incorrect trace, of {len(n_pairs)} of {len(sides)} problems, have "
        f"lengths within {settings.length_tolerance:.0%} of each other"
    )
    if len(n_pairs) < 2:
        return Section((), (), (f"{remain}; a control needs two problems.",))
    rng = np.random.default_rng([bench.settings.seed, 4])
    drawn = [matched, *(random_pairs(sides, n_pairs, rng) for _ in range(settings.draws))]
    choices = [redrawn.only([trace for pair in pairs for trace in pair]) for pairs in drawn]
    overlap, *others = _shared_with_whole(redrawn, choices)
    of_random = middle(others)
    conditions = {
        WHOLE: bench.answers(Split.TEST, bench.steering, "auto", label=WHOLE),
        MATCHED: gated_answers(redrawn, choices[0], MATCHED),
        RANDOM: [gated_answers(redrawn, choice, RANDOM) for choice in choices[1 : 1 + settings.runs]],
    }
    gains = compare_rows(base, conditions)
    good, bad = ([trace for both in sides.values() for trace in both[side]] for side in (0, 1))
    everything, kept = _tokens((good, bad), lengths), _tokens(zip(*matched, strict=True), lengths)
    rows = (
        (WHOLE, len(sides), len(good), len(bad), *everything, None, None, None),
        (MATCHED, len(n_pairs), len(matched), len(matched), *kept, overlap, None, None),
        (RANDOM, len(n_pairs), len(matched), len(matched), None, None, *of_random),
    )
    finding = (
        f"{remain}. On average correct traces have {everything[0]:.1f} tokens and incorrect ones {everything[1]:.1f}, in these "
        f"pairs {kept[0]:.1f} and {kept[1]:.1f}. The pairs' set shares {overlap:.0%} with the whole contrast's, that of as many "
        f"random pairs {of_random[0]:.0%} [{of_random[1]:.0%}, {of_random[2]:.0%}]. "
        f"Gain: {'; '.join(f'{row.label} {describe(row)}' for row in gains)}."
    )
    note = (
        f"Behind the gate; of the random pairs the mean over {settings.runs} draws. p is corrected by Holm over the other rows."
    )
    gain_table = comparison_table("length-gain", "Gain with the neurons of pairs of equal length", base, gains, note, WHOLE)
    return Section((_table(rows), gain_table), (), (finding,))


def by_problem(rows: Sequence[ContrastRow]) -> dict[str, tuple[list[str], list[str]]]:
    """Trace ids of each problem, the correct and the incorrect."""
    sides: dict[str, tuple[list[str], list[str]]] = {}
    for row in rows:
        sides.setdefault(row.problem_id, ([], []))[0 if row.correct else 1].append(row.trace_id)
    return sides


def matched_pairs(correct: Sequence[str], incorrect: Sequence[str], lengths: Mapping[str, int], tolerance: float) -> list[Pair]:
    """As many pairs as possible whose lengths differ by at most this share of the longer one, of these the most alike.

    Example:
        >>> matched_pairs(["a", "b"], ["c"], {"a": 10, "b": 20, "c": 19}, 0.1)
        [('b', 'c')]
    """
    good, bad = (np.array([lengths[trace] for trace in side], np.float64) for side in (correct, incorrect))
    difference = np.abs(good[:, None] - bad) / np.maximum(good[:, None], bad)
    # a pair that is too far costs more than any number of better ones could save
    i, j = linear_sum_assignment(np.where(difference <= tolerance, difference, _TOO_FAR))
    near = difference[i, j] <= tolerance
    return [(correct[a], incorrect[b]) for a, b in zip(map(int, i[near]), map(int, j[near]), strict=True)]


def random_pairs(sides: Sides, n_pairs: Mapping[str, int], rng: np.random.Generator) -> list[Pair]:
    """So many pairs of each problem, drawn from all of its traces."""
    drawn: list[Pair] = []
    for problem, n in n_pairs.items():
        good, bad = ([side[int(i)] for i in rng.permutation(len(side))[:n]] for side in sides[problem])
        drawn.extend(zip(good, bad, strict=True))
    return drawn


def _shared_with_whole(redrawn: Redrawn, choices: Sequence[Choice]) -> list[float]:
    name = redrawn.bench.criterion
    k, whole = redrawn.size(name), redrawn.whole[name]
    return [shared(rankings[name], whole, k) / k for rankings in redrawn.rankings(choices, [name])]


def _tokens(classes: Iterable[Iterable[str]], lengths: Mapping[str, int]) -> list[float]:
    """Mean length of the correct and of the incorrect traces."""
    return [float(np.mean([lengths[trace] for trace in traces])) for traces in classes]


def _table(rows: tuple[tuple[Cell, ...], ...]) -> Table:
    return Table(
        name="length",
        title="A contrast of pairs of about equal length",
        columns=(
            Column(name="contrast"),
            Column(name="problems", unit="count"),
            Column(name="correct", unit="count"),
            Column(name="incorrect", unit="count"),
            Column(name="tokens, correct", unit="number"),
            Column(name="tokens, incorrect", unit="number"),
            *bounded("shared with the whole contrast", "percent"),
        ),
        rows=rows,
        note="Pairs are of one problem. In brackets the middle 95 % of the random draws: what so few traces share by themselves.",
    )
