"""How many neurons would reach the K-th score if correct and incorrect were only names? Labels permuted within problems."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.experiments.redrawn import Redrawn
from trimtab.experiments.section import Section
from trimtab.ranking import Ranking, reaching
from trimtab.results import Cell, Column, Curve, CurvePoint, Curves, Table, bounded
from trimtab.stats.estimates import bootstrap_mean
from trimtab.stats.significance import holm
from trimtab.traces import Split

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
    return Section((_table(rows, highlight), _check_table(checks, highlight)), (_figure(redrawn, names, nulls),), (finding,))


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


def _table(rows: Sequence[tuple[Cell, ...]], highlight: int | None) -> Table:
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
