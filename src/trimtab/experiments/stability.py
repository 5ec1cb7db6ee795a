"""``stability``: would other problems, fewer problems, or labels without a meaning have found the same neurons?"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.comparisons import Row, Section, compare_rows, comparison_table, describe
from trimtab.experiments.redrawn import Redrawn, jaccard, middle, shared
from trimtab.experiments.workbench import Workbench
from trimtab.neurons import Neurons
from trimtab.ranking import Choice, Ranking, reaching
from trimtab.results import Cell, Column, Curve, CurvePoint, Curves, Dot, Dots, Result, Table, bounded
from trimtab.stats.estimates import bootstrap_mean, wilson
from trimtab.stats.significance import holm
from trimtab.steering import Steering
from trimtab.tasks.contrast import ContrastRow
from trimtab.traces import Split

TOP = 20
"""Rows of the table of single neurons."""
BARS = "the middle 95 % of random splits"


def halves(redrawn: Redrawn) -> Section:
    """Split the problems in two at random, search in each half, and see what both find."""
    bench = redrawn.bench
    rng = np.random.default_rng([bench.settings.seed, 1])
    size = redrawn.n_problems // 2
    splits = [redrawn.some_problems(rng, size, redrawn.n_problems - size) for _ in range(bench.settings.stability.halves)]
    rankings = redrawn.rankings(choice for split in splits for choice in split)
    pairs = [(next(rankings), next(rankings)) for _ in splits]
    rows, dots, words = [], [], []
    for name in redrawn.criteria:
        k = redrawn.size(name)
        if not k:
            continue
        chance = by_chance([(first[name], second[name]) for first, second in pairs], k, bench.class_moments.correct_mean.shape)
        share = middle([shared(first[name], second[name], k) / k for first, second in pairs])
        index = middle([jaccard(first[name], second[name], k) for first, second in pairs])
        rows.append((name, k, len(pairs), *share, *index, *chance))
        dots.append(Dot(label=name, value=share[0], low=share[1], high=share[2]))
        words.append(f"{name} {share[0]:.0%} [{share[1]:.0%}, {share[2]:.0%}]")
    note = (
        f"Each half has about {size} problems and finds its own K. In brackets {BARS}, which share problems, so they are no "
        "confidence interval. By chance: sets of this size drawn from all neurons, and from the same layers."
    )
    table = Table(
        name="halves",
        title="The same neurons from two halves of the problems",
        columns=_HALVES_COLUMNS,
        rows=tuple(rows),
        note=note,
        highlight=next((i for i, row in enumerate(rows) if row[0] == bench.criterion), None),
    )
    finding = (
        f"Two halves of the {redrawn.n_problems} contrast problems share this part of their sets, mean and {BARS}: "
        f"{', '.join(words)}; two random sets would share {bench.k / bench.class_moments.correct_mean.size:.1%}."
    )
    return Section((table,), (_halves_figure(redrawn, dots),), (finding,))


_HALVES_COLUMNS = (
    Column(name="criterion"),
    Column(name="K", unit="count"),
    Column(name="splits", unit="count"),
    *bounded("shared of K", "percent"),
    *bounded("Jaccard", "number"),
    Column(name="by chance", unit="percent"),
    Column(name="by chance in the same layers", unit="percent"),
)


def _halves_figure(redrawn: Redrawn, dots: list[Dot]) -> Dots:
    bench = redrawn.bench
    return Dots(
        name="halves",
        title="Share of the set that a second half of the problems finds again",
        n=redrawn.n_problems,
        of="contrast problems",
        split=Split.TRAIN,
        detail=f"mean and {BARS}; dotted: two random sets",
        reading="The further right, the less the set depends on which problems were asked.",
        x_label="neurons of one half's set that are in the other's (%)",
        unit="percent",
        dots=tuple(dots),
        reference=bench.k / bench.class_moments.correct_mean.size,
    )


def by_chance(pairs: list[tuple[Ranking, Ranking]], k: int, shape: tuple[int, ...]) -> tuple[float, float]:
    """What two random sets share of K on average: drawn from all neurons, or each from the layers of the set that it stands for.

    ``k / N``, and the mean over pairs of ``sum over layers a * b / d_ff / k`` with ``a`` and ``b`` the two sets' counts there.
    """
    n_layers, d_ff = shape
    within = []
    for pair in pairs:
        a, b = (np.bincount(ranking.order[:k] // d_ff, minlength=n_layers) for ranking in pair)
        within.append(float(a @ b) / d_ff / k)
    return k / (n_layers * d_ff), float(np.mean(within))


def bootstrap(redrawn: Redrawn) -> Section:
    """How often each neuron is among the K best when problems are drawn with replacement."""
    bench, name = redrawn.bench, redrawn.bench.criterion
    k, whole = redrawn.size(name), redrawn.whole[name]
    draws = bench.settings.stability.bootstraps
    rng = np.random.default_rng([bench.settings.seed, 2])
    counts = np.zeros(bench.class_moments.correct_mean.size, np.int64)
    overlaps = []
    for rankings in redrawn.rankings((redrawn.bootstrap(rng) for _ in range(draws)), [name]):
        counts[rankings[name].order[:k]] += 1
        overlaps.append(shared(rankings[name], whole, k) / k)
    over = [int((counts > share * draws).sum()) for share in (0.5, 0.9)]
    ever = int((counts > 0).sum())
    often = wilson_curve(counts[whole.order[:k]].tolist(), draws)
    mean = middle(overlaps)
    finding = (
        f"Of {draws} bootstraps over problems, more than half select {over[0]} neurons and more than 90 % select {over[1]}, for "
        f"K = {k}; {ever} neurons are selected at least once. A bootstrap shares {mean[0]:.0%} [{mean[1]:.0%}, {mean[2]:.0%}] "
        "of its set with the whole contrast's."
    )
    return Section((_neuron_table(redrawn, counts, draws),), (_inclusion_curve(redrawn, often, draws),), (finding,))


def wilson_curve(counts: list[int], n: int) -> tuple[CurvePoint, ...]:
    """Shares of n draws by rank from 1, with Wilson's interval."""
    intervals = [wilson(count, n) for count in counts]
    return tuple(
        CurvePoint(x=i, value=count / n, low=interval.low, high=interval.high)
        for i, (count, interval) in enumerate(zip(counts, intervals, strict=True), start=1)
    )


def _neuron_table(redrawn: Redrawn, counts: np.ndarray, draws: int) -> Table:
    """The best neurons of the whole contrast, and how often each was selected."""
    moments, d_ff = redrawn.bench.class_moments, redrawn.bench.class_moments.correct_mean.shape[1]
    rows: list[tuple[Cell, ...]] = []
    for place, address in enumerate(redrawn.whole[redrawn.bench.criterion].order[: min(TOP, redrawn.bench.k)].tolist(), start=1):
        count = int(counts[address])
        interval = wilson(count, draws)
        means = float(moments.correct_mean.flat[address]), float(moments.incorrect_mean.flat[address])
        rows.append((place, address // d_ff, address % d_ff, *means, count / draws, interval.low, interval.high))
    return Table(
        name="inclusion",
        title=f"The {len(rows)} best neurons by {redrawn.bench.criterion}, and the share of bootstraps that select them",
        columns=(
            Column(name="rank", unit="count"),
            Column(name="layer", unit="count"),
            Column(name="index", unit="count"),
            Column(name="mean, correct", unit="number"),
            Column(name="mean, incorrect", unit="number"),
            *bounded("selected", "percent"),
        ),
        rows=tuple(rows),
        note=f"{draws} bootstraps over the {redrawn.n_problems} problems of the contrast; 95 % intervals of their number alone.",
    )


def _inclusion_curve(redrawn: Redrawn, points: tuple[CurvePoint, ...], draws: int) -> Curves:
    return Curves(
        name="inclusion",
        title="How often a bootstrap over problems selects each neuron of the set",
        n=redrawn.n_problems,
        of="contrast problems",
        split=Split.TRAIN,
        detail=f"{draws} bootstraps; band: 95 % interval of their number alone",
        reading="A set that every draw of problems finds is a flat line at 100 %; where it falls, chance decides.",
        x_label=f"rank by {redrawn.bench.criterion} in the whole contrast",
        y_label="bootstraps that select it (%)",
        unit="percent",
        x_unit="count",
        curves=(Curve(label="neurons of the set", points=points),),
    )


ADARAS_PROBLEMS = 15
"""As many as each of AdaRAS's released contrasts has."""
WHOLE = "the whole contrast"


def sizes(redrawn: Redrawn, base: list[Outcome]) -> Section:
    """Draw fewer problems, search in them, and compare with the whole contrast: the neurons, and their gain on the test split."""
    bench, name = redrawn.bench, redrawn.bench.criterion
    settings, k, n = bench.settings.stability, redrawn.size(name), redrawn.n_problems
    rng = np.random.default_rng([bench.settings.seed, 3])
    rows, conditions = [], {}
    for size in sorted({*settings.sizes, n // 2}):
        if not 2 <= size < n:
            continue
        separate = [size, size] if 2 * size <= n else [size]
        draws = [redrawn.some_problems(rng, *separate) for _ in range(settings.draws)]
        found = [[ranking[name] for ranking in redrawn.rankings(draw, [name])] for draw in draws]
        whole = middle([shared(sets[0], redrawn.whole[name], k) / k for sets in found])
        apart = (None,) * 3 if len(separate) == 1 else middle([shared(one, other, k) / k for one, other in found])
        rows.append((size, settings.draws, *whole, *apart))
        if size in settings.sizes:
            conditions[_label(size)] = [gated_answers(redrawn, choices[0], _label(size)) for choices in draws[: settings.runs]]
    conditions[WHOLE] = bench.answers(Split.TEST, bench.steering, "auto", label=WHOLE)
    gains = compare_rows(base, conditions)
    finding = (
        f"By number of contrast problems (AdaRAS: {ADARAS_PROBLEMS}), share of the whole contrast's set found: "
        + ", ".join(f"{row[0]} problems {row[2]:.0%} [{row[3]:.0%}, {row[4]:.0%}]" for row in rows)
    )
    gain = "Gain on the test split: " + "; ".join(f"{row.label} {describe(row)}" for row in gains)
    return Section(
        (_overlap_table(rows), _gain_table(redrawn, base, gains)), _figures(redrawn, rows, gains), (f"{finding}.", f"{gain}.")
    )


def gated_answers(redrawn: Redrawn, choice: Choice, label: str) -> list[Outcome]:
    """Test answers with the set that a choice finds in place of the whole contrast's, all else as it was chosen."""
    return redrawn.bench.answers(Split.TEST, in_place(redrawn, redrawn.neurons(choice)), "auto", label=label)


def in_place(redrawn: Redrawn, neurons: Neurons) -> Steering:
    """Other neurons under the chosen intervention, strength, scope and gate."""
    steering = redrawn.bench.steering
    return Steering.of(neurons, steering.strength, steering.scope, steering.gate, intervention=redrawn.bench.intervention)


def _label(size: int) -> str:
    return f"{size} problems"


def _overlap_table(rows: list[tuple]) -> Table:
    return Table(
        name="sizes",
        title="The same neurons from fewer problems",
        columns=(
            Column(name="problems", unit="count"),
            Column(name="draws", unit="count"),
            *bounded("shared with the whole contrast", "percent"),
            *bounded("shared by two separate draws", "percent"),
        ),
        rows=tuple(rows),
        note="In brackets the middle 95 % of the draws. The whole contrast holds every draw, so only separate draws replicate.",
    )


def _gain_table(redrawn: Redrawn, base: list[Outcome], gains: list[Row]) -> Table:
    runs = redrawn.bench.settings.stability.runs
    note = (
        f"Mean over {runs} draws of each size, behind the gate; gate, intervention, K and strength stay. "
        "The class means, and so the size of the push, are the draw's own."
    )
    return comparison_table("sizes-gain", "Gain with the neurons of fewer problems", base, gains, note, gains[-1].label)


def _figures(redrawn: Redrawn, rows: list[tuple], gains: list[Row]) -> tuple[Curves, ...]:
    overlap = [_curve("with the whole contrast", [(row[0], *row[2:5]) for row in rows])]
    apart = [(row[0], *row[5:8]) for row in rows if row[5] is not None]
    overlap += [_curve("two separate draws", apart)] if apart else []
    counts = [size for size in sorted(set(redrawn.bench.settings.stability.sizes)) if 2 <= size < redrawn.n_problems]
    dots = [row.dot() for row in gains]
    gain = [
        (x, dot.value, dot.low, dot.high) for x, dot in zip([*counts, redrawn.n_problems + redrawn.left_out], dots, strict=True)
    ]
    return (
        Curves(
            name="sizes",
            title="Share of the set that fewer contrast problems find",
            n=redrawn.n_problems,
            of="contrast problems",
            split=Split.TRAIN,
            detail="mean and the middle 95 % of random draws",
            reading="The whole contrast holds every draw, which flatters the upper curve; separate draws have nothing in common.",
            x_label="contrast problems",
            y_label="shared neurons (% of K)",
            unit="percent",
            x_unit="count",
            log_x=True,
            curves=tuple(overlap),
        ),
        Curves(
            name="sizes-gain",
            title="Gain with the neurons of fewer contrast problems",
            n=gains[0].comparisons[0].n,
            split=Split.TEST,
            detail=f"mean over {redrawn.bench.settings.stability.runs} draws, of their 95 % paired intervals too",
            reading="What the search would have been worth with fewer problems; the last point is the whole contrast.",
            x_label="contrast problems",
            y_label="gain in accuracy (percentage points)",
            unit="points",
            x_unit="count",
            log_x=True,
            curves=(_curve("behind the gate", gain),),
            reference=0.0,
        ),
    )


def _curve(label: str, points: list[tuple]) -> Curve:
    return Curve(label=label, points=tuple(CurvePoint(x=x, value=value, low=low, high=high) for x, value, low, high in points))


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
    return Section((_length_table(rows), gain_table), (), (finding,))


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


def _length_table(rows: tuple[tuple[Cell, ...], ...]) -> Table:
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


CURVE_K = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Numbers of neurons at which the estimate is drawn, besides the chosen one."""


class Null(NamedTuple):
    """What permuted labels came to under one criterion.

    Args:
        k: the places that were looked at.
        reach: int64 ``[permutation, place]``, how many neurons of a permutation reach the observed neuron at each place.
        checked: int64 ``[shuffle, permutation]``, the same at the chosen K where the observed labels are themselves shuffled.
    """

    k: tuple[int, ...]
    reach: NDArray[np.int64]
    checked: NDArray[np.int64]


def null(redrawn: Redrawn) -> Section:
    """False-discovery estimate of each criterion: mean number of neurons that reach the observed K-th one, divided by K."""
    bench, settings = redrawn.bench, redrawn.bench.settings.stability
    names = [name for name in redrawn.criteria if redrawn.size(name)]
    nulls = permuted(redrawn, names)
    p_values = [exceeding(nulls[name], redrawn.size(name)) for name in names]
    rows, checks, words, checked_words = [], [], [], []
    for name, p, adjusted in zip(names, p_values, holm(p_values).tolist(), strict=True):
        k = redrawn.size(name)
        reach = nulls[name].reach[:, nulls[name].k.index(k)]
        estimate, low, high = false_discovery(reach, k)
        rows.append((name, k, len(reach), float(reach.mean()), estimate, low, high, p, adjusted))
        words.append(f"{name} {estimate:.2g} [{low:.2g}, {high:.2g}]")
        shuffled = nulls[name].checked.mean(axis=1) / k
        median, least, most = (float(value) for value in np.quantile(shuffled, [0.5, 0.025, 0.975]))
        checks.append((name, k, len(shuffled), median, least, most, float((nulls[name].checked >= k).mean())))
        checked_words.append(f"{name} {median:.2g} [{least:.2g}, {most:.2g}]")
    finding = (
        f"False-discovery estimate at K = {bench.k}, from {settings.permutations} permutations of the labels within problems: "
        f"{', '.join(words)}. Check on {settings.shuffles} labellings that are themselves shuffled, where the estimate should be "
        f"about 1, median and middle 95 %: {', '.join(checked_words)}."
    )
    highlight = names.index(bench.criterion) if bench.criterion in names else None
    return Section((_null_table(rows, highlight), _check_table(checks, highlight)), (_figure(redrawn, names, nulls),), (finding,))


def permuted(redrawn: Redrawn, names: Sequence[str]) -> dict[str, Null]:
    """Rank under permuted labels, and count who reaches the observed places; no ranking is kept longer than it is looked at."""
    bench, settings = redrawn.bench, redrawn.bench.settings.stability
    rng = np.random.default_rng([bench.settings.seed, 5])
    places = {name: _places(redrawn, name) for name in names}
    bars: dict[str, list[Ranking]] = {name: [] for name in names}
    for rankings in redrawn.rankings((redrawn.shuffled(rng) for _ in range(settings.shuffles)), names):
        for name in names:
            bars[name].append(_top(rankings[name], redrawn.size(name)))
    reach: dict[str, list[list[int]]] = {name: [] for name in names}
    checked: dict[str, list[list[int]]] = {name: [] for name in names}
    with bench.progress("permutations", settings.permutations, 0) as advance:
        for rankings in redrawn.rankings((redrawn.shuffled(rng) for _ in range(settings.permutations)), names):
            for name in names:
                reach[name].append([reaching(rankings[name], redrawn.whole[name], k) for k in places[name]])
                checked[name].append([reaching(rankings[name], bar, len(bar.order)) for bar in bars[name]])
            advance(1, 0)
    return {name: Null(places[name], np.array(reach[name]), np.array(checked[name]).T) for name in names}


def _places(redrawn: Redrawn, name: str) -> tuple[int, ...]:
    found = len(redrawn.whole[name].order)
    return tuple(sorted({redrawn.size(name), *(k for k in CURVE_K if k <= found)}))


def _top(ranking: Ranking, k: int) -> Ranking:
    """The k best alone, or all where there are fewer."""
    return Ranking(ranking.order[:k], ranking.score[:k], tuple(key[:k] for key in ranking.tie_breaks), ranking.facts)


def false_discovery(reach: NDArray[np.int64], k: int) -> tuple[float, float, float]:
    """``mean over permutations of reach / k``, with a 95 % bootstrap interval over the permutations."""
    shares = reach / k
    if np.ptp(shares) == 0:  # all alike: nothing to draw from
        return float(shares[0]), float(shares[0]), float(shares[0])
    interval = bootstrap_mean(shares)
    return float(shares.mean()), interval.low, interval.high


def exceeding(null: Null, k: int) -> float:
    """p of the set as a whole: share of labellings, the observed one among them, with k neurons that reach the observed k-th."""
    reach = null.reach[:, null.k.index(k)]
    return float((1 + (reach >= k).sum()) / (1 + len(reach)))


def _null_table(rows: Sequence[tuple[Cell, ...]], highlight: int | None) -> Table:
    return Table(
        name="null",
        title="Labels permuted within problems: how many neurons reach the observed K-th one",
        columns=(
            Column(name="criterion"),
            Column(name="K", unit="count"),
            Column(name="permutations", unit="count"),
            Column(name="neurons that reach it", unit="number"),
            *bounded("false-discovery estimate", "number"),
            Column(name="p", unit="p"),
            Column(name="p Holm", unit="p"),
        ),
        rows=tuple(rows),
        note=(
            "A neuron reaches the K-th one by the criterion's whole order: score, then tie breaks. The estimate is the mean "
            "number over K, and can be above 1; 0 [0, 0] means that no permutation had one. p: permutations with K such neurons "
            "or more, the observed labels counted among them; corrected over the criteria."
        ),
        highlight=highlight,
    )


def _check_table(rows: Sequence[tuple[Cell, ...]], highlight: int | None) -> Table:
    return Table(
        name="null-check",
        title="The same estimate where the observed labels are themselves shuffled",
        columns=(
            Column(name="criterion"),
            Column(name="K", unit="count"),
            Column(name="shuffled labellings", unit="count"),
            *bounded("median estimate", "number"),
            Column(name="permutations with K or more", unit="percent"),
        ),
        rows=tuple(rows),
        note=(
            "The procedure is right if the estimate is about 1, and if half of the permutations have K neurons or more. In "
            "brackets the middle 95 % of the labellings: neurons rise and fall together, so a single labelling can be far from 1."
        ),
        highlight=highlight,
    )


def _figure(redrawn: Redrawn, names: Sequence[str], nulls: Mapping[str, Null]) -> Curves:
    curves = []
    for name in names:
        estimates = [(k, *false_discovery(nulls[name].reach[:, i], k)) for i, k in enumerate(nulls[name].k)]
        points = tuple(CurvePoint(x=k, value=value, low=low, high=high) for k, value, low, high in estimates)
        curves.append(Curve(label=name, points=points))
    return Curves(
        name="null",
        title="False-discovery estimate by number of neurons",
        n=redrawn.n_problems,
        of="contrast problems",
        split=Split.TRAIN,
        detail=f"{redrawn.bench.settings.stability.permutations} permutations within problems, 95 % intervals over them",
        reading="The share of a set of K that permuted labels would have found as well: at 1 the set says nothing.",
        x_label="number of neurons K",
        y_label="false-discovery estimate",
        unit="number",
        x_unit="count",
        log_x=True,
        curves=tuple(curves),
        mark=redrawn.bench.k,
        reference=1.0,
    )


ALONGSIDE = ("adaras", "paired-t", "auroc")
"""Criteria that are looked at beside the chosen one."""
FEWEST = 4
"""Problems in the contrast: two halves of two each."""


def stability(bench: Workbench) -> Result:
    """Draw the contrast anew in every way that tells a finding from an accident.

    Everything but the gains comes from the stored activations. Per-trace means are held in memory up to a bound; a contrast that
    is larger is thinned by whole problems, and the findings say so.
    """
    problems = {row.problem_id for row in bench.contrast}
    redrawn = Redrawn.load(bench, (bench.criterion, *ALONGSIDE)) if len(problems) >= FEWEST else None
    if redrawn is None or redrawn.n_problems < FEWEST:
        fit = "" if redrawn is None else f", of which {redrawn.n_problems} fit into experiment.stability.memory_gb"
        return _result([Section((), (), (f"The contrast has {len(problems)} problems{fit}; {FEWEST} or more are needed.",))])
    base = bench.answers(Split.TEST, None, label="unsteered")
    sections = [halves(redrawn), bootstrap(redrawn), sizes(redrawn, base), length_control(redrawn, base), null(redrawn)]
    if redrawn.left_out:
        thinned = f"{redrawn.left_out} of {len(problems)} contrast problems, drawn at random, did not fit in memory: left out."
        sections.insert(0, Section((), (), (thinned,)))
    return _result(sections)


def _result(sections: Sequence[Section]) -> Result:
    return Result(
        name="stability",
        title="Stability of the set",
        question="Would other problems have found the same neurons, and how many of them are a matter of chance?",
        findings=tuple(finding for section in sections for finding in section.findings),
        split=Split.TEST,
        tables=tuple(table for section in sections for table in section.tables),
        figures=tuple(figure for section in sections for figure in section.figures),
    )
