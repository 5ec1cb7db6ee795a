"""Would other problems have found the same neurons? Halves of the problems, and problems drawn with replacement."""

import numpy as np

from trimtab.experiments.redrawn import Redrawn, jaccard, middle, shared
from trimtab.experiments.section import Section
from trimtab.ranking import Ranking
from trimtab.results import Cell, Column, Curve, CurvePoint, Curves, Dot, Dots, Table, bounded
from trimtab.stats.estimates import wilson
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
