"""``stability``: would other problems, fewer problems, or labels without a meaning have found the same neurons?"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.comparisons import GAIN, Part, Row, compare_rows, gain_frame, gathered, listed
from trimtab.experiments.redrawn import Redrawn, jaccard, middle, shared
from trimtab.experiments.search import Search
from trimtab.findings import Cell, Findings, Frame
from trimtab.neurons import ModelIdentity
from trimtab.ranking import Choice, Ranking, reaching
from trimtab.stats.estimates import bootstrap_mean, wilson
from trimtab.stats.significance import holm
from trimtab.steering import Steering
from trimtab.tasks.contrast import ContrastRow
from trimtab.traces import Split

ALONGSIDE = ("adaras", "paired-t", "auroc")
"""Criteria that are looked at beside the chosen one."""
FEWEST = 4
"""Problems in the contrast: two halves of two each."""
ADARAS_PROBLEMS = 15
"""As many as each of AdaRAS's released contrasts has."""
WHOLE = "the whole contrast"
MATCHED, RANDOM = "pairs of equal length", "as many random pairs"
CURVE_K = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Numbers of neurons at which the false-discovery estimate is drawn, besides the chosen one."""
MIDDLE = "the middle 95 % of random draws"
_TOO_FAR = 1e6

Pair = tuple[str, str]
"""Ids of a correct and an incorrect trace of one problem."""
Sides = Mapping[str, tuple[Sequence[str], Sequence[str]]]
"""Per problem the ids of its correct and of its incorrect traces."""


def stability(search: Search) -> Findings:
    """Draw the contrast anew in every way that tells a finding from an accident.

    Everything but the gains comes from the stored activations. Per-trace means are held in memory up to a bound; a contrast that
    is larger is thinned by whole problems, and the findings say so.
    """
    problems = {row.problem_id for row in search.contrast}
    redrawn = Redrawn.load(search, (search.criterion, *ALONGSIDE)) if len(problems) >= FEWEST else None
    if redrawn is None or redrawn.n_problems < FEWEST:
        fit = "" if redrawn is None else f", of which {redrawn.n_problems} fit into experiment.stability.memory_gb"
        parts = [Part(sentences=(f"The contrast has {len(problems)} problems{fit}; {FEWEST} or more are needed.",))]
    else:
        base = search.answers(Split.TEST, None, label="unsteered")
        parts = [halves(redrawn), bootstrap(redrawn), sizes(redrawn, base), length_control(redrawn, base), null(redrawn)]
        if redrawn.left_out:
            thinned = (
                f"{redrawn.left_out} of {len(problems)} contrast problems, drawn at random, did not fit in memory: left out."
            )
            parts.insert(0, Part(sentences=(thinned,)))
    question = "Would other problems have found the same neurons, and how many of them are a matter of chance?"
    return gathered("stability", "Stability of the set", question, Split.TEST, parts)


def halves(redrawn: Redrawn) -> Part:
    """Split the problems in two at random, search in each half, and see what both find."""
    search, n_neurons = redrawn.search, redrawn.search.model.identity.n_neurons
    rng = np.random.default_rng([search.settings.seed, 1])
    size = redrawn.n_problems // 2
    splits = [redrawn.some_problems(rng, size, redrawn.n_problems - size) for _ in range(search.settings.stability.halves)]
    rankings = redrawn.rankings(choice for split in splits for choice in split)
    pairs = [(next(rankings), next(rankings)) for _ in splits]
    rows, words = [], []
    for name in redrawn.criteria:
        k = redrawn.size(name)
        if not k:
            continue
        chance, in_layers = by_chance([(a[name], b[name]) for a, b in pairs], k, search.model.identity)
        share = _spread([shared(a[name], b[name], k) / k for a, b in pairs])
        index = middle([jaccard(a[name], b[name], k) for a, b in pairs])
        row: dict[str, Cell] = {
            "label": name,
            "n": len(pairs),
            **share,
            "unit": "share",
            "k": k,
            "chosen": name == search.criterion,
        }
        row |= zip(("jaccard", "jaccard_low", "jaccard_high"), index, strict=True)
        rows.append({**row, "chance_share": chance, "chance_in_layers_share": in_layers})
        words.append(f"{name} {_percent(share)}")
    frame = Frame(
        "halves",
        "Share of the set that a second half of the problems finds again",
        rows,
        plot="dots",
        x_label="share of K",
        reference=search.k / n_neurons,
        note=f"Mean over random splits of the {redrawn.n_problems} contrast problems (train), and {MIDDLE}, which share "
        f"problems, so they are no confidence interval. Each half has about {size} problems and finds its own K. By "
        "chance: two sets of this size drawn from all neurons (the line), and from the same layers.",
        reading="The further right, the less the set depends on which problems were asked.",
    )
    sentence = (
        f"Two halves of the {redrawn.n_problems} contrast problems share this part of their sets, mean and {MIDDLE}: "
        f"{', '.join(words)}; two random sets would share {search.k / n_neurons:.1%}."
    )
    return Part((frame,), (sentence,))


def by_chance(pairs: list[tuple[Ranking, Ranking]], k: int, model: ModelIdentity) -> tuple[float, float]:
    """The share of K that two random sets share on average: drawn from all neurons, or from the layers of the found sets.

    ``k / N``, and the mean over pairs of ``sum over layers a * b / width / k`` with ``a`` and ``b`` the two sets' counts there.
    """
    widths = np.array([max(1, model.width(layer)) for layer in range(model.n_layers)])
    within = []
    for pair in pairs:
        a, b = (np.bincount(ranking.order[:k] // model.d_ff, minlength=model.n_layers) for ranking in pair)
        within.append(float((a * b / widths).sum()) / k)
    return k / model.n_neurons, float(np.mean(within))


def bootstrap(redrawn: Redrawn) -> Part:
    """How often each neuron is among the K best when problems are drawn with replacement."""
    search, name = redrawn.search, redrawn.search.criterion
    k, whole = redrawn.size(name), redrawn.whole[name]
    draws = search.settings.stability.bootstraps
    rng = np.random.default_rng([search.settings.seed, 2])
    counts = np.zeros(search.class_moments.correct_mean.size, np.int64)
    overlaps = []
    for rankings in redrawn.rankings((redrawn.bootstrap(rng) for _ in range(draws)), [name]):
        counts[rankings[name].order[:k]] += 1
        overlaps.append(shared(rankings[name], whole, k) / k)
    over = [int((counts > share * draws).sum()) for share in (0.5, 0.9)]
    sentence = (
        f"Of {draws} bootstraps over problems, more than half select {over[0]} neurons and more than 90 % select {over[1]}, for "
        f"K = {k}; {int((counts > 0).sum())} neurons are selected at least once. A bootstrap shares "
        f"{_percent(_spread(overlaps))} of its set with the whole contrast's."
    )
    frame = Frame(
        "inclusion",
        "How often a bootstrap over problems selects each neuron of the set",
        [_inclusion(redrawn, rank, address, counts, draws) for rank, address in enumerate(whole.order[:k].tolist(), start=1)],
        plot="curves",
        x_label=f"rank by {name} in the whole contrast",
        y_label="share of bootstraps that select it",
        note=f"{draws} bootstraps over the {redrawn.n_problems} contrast problems (train); 95 % intervals of their number alone.",
        reading="A set that every draw of problems finds is a flat line at 100 %; where it falls, chance decides.",
    )
    return Part((frame,), (sentence,))


def _inclusion(redrawn: Redrawn, rank: int, address: int, counts: NDArray[np.int64], draws: int) -> dict[str, Cell]:
    moments, count = redrawn.search.class_moments, int(counts[address])
    layer, index = divmod(address, moments.correct_mean.shape[1])
    interval = wilson(count, draws)
    return {
        "label": f"layer {layer}, index {index}",
        "n": draws,
        "value": count / draws,
        "low": interval.low,
        "high": interval.high,
        "unit": "share",
        "series": "neurons of the set",
        "x": rank,
        "layer": layer,
        "index": index,
        "correct_mean": float(moments.correct_mean[layer, index]),
        "incorrect_mean": float(moments.incorrect_mean[layer, index]),
    }


def sizes(redrawn: Redrawn, base: list[Outcome]) -> Part:
    """Draw fewer problems, search in them, and compare with the whole contrast: the neurons, and their gain on the test split."""
    search, name = redrawn.search, redrawn.search.criterion
    settings, k, n = search.settings.stability, redrawn.size(name), redrawn.n_problems
    rng = np.random.default_rng([search.settings.seed, 3])
    rows: list[dict[str, Cell]] = []
    conditions, places, words = {}, {WHOLE: n + redrawn.left_out}, []
    for size in sorted({*settings.sizes, n // 2}):
        if not 2 <= size < n:
            continue
        label, separate = f"{size} problems", [size, size] if 2 * size <= n else [size]
        draws = [redrawn.some_problems(rng, *separate) for _ in range(settings.draws)]
        found = [[ranking[name] for ranking in redrawn.rankings(draw, [name])] for draw in draws]
        whole = _spread([shared(sets[0], redrawn.whole[name], k) / k for sets in found])
        common: dict[str, Cell] = {"label": label, "n": settings.draws, "unit": "share", "x": size}
        rows.append({**common, **whole, "series": "with the whole contrast"})
        words.append(f"{label} {_percent(whole)}")
        if len(separate) == 2:
            rows.append(
                {**common, **_spread([shared(sets[0], sets[1], k) / k for sets in found]), "series": "between two separate draws"}
            )
        if size in settings.sizes:
            places[label] = size
            conditions[label] = [gated_answers(redrawn, choices[0], label) for choices in draws[: settings.runs]]
    conditions[WHOLE] = search.answers(Split.TEST, search.steering, "auto", label=WHOLE)
    gains = compare_rows(base, conditions, search.clusters)
    overlap = Frame(
        "sizes",
        "Share of the set that fewer contrast problems find",
        rows,
        plot="curves",
        x_label="contrast problems",
        y_label="shared share of K",
        log_x=True,
        note=f"Mean over random draws of the {n} contrast problems (train), and {MIDDLE}.",
        reading="The whole contrast holds every draw, which flatters the upper curve; separate draws have nothing in common.",
    )
    gain = _sizes_gain(gains, places, settings.runs)
    start = f"By number of contrast problems (AdaRAS: {ADARAS_PROBLEMS}), share of the whole contrast's set found"
    return Part((overlap, gain), (f"{start}: {', '.join(words)}.", f"Gain on the test split: {listed(gains)}."))


def _sizes_gain(gains: Sequence[Row], places: Mapping[str, int], runs: int) -> Frame:
    return Frame(
        "sizes-gain",
        "Gain with the neurons of fewer contrast problems",
        [{**row.cells("behind the gate"), "x": places[row.label], "chosen": row.label == WHOLE} for row in gains],
        plot="curves",
        x_label="contrast problems",
        y_label=GAIN,
        reference=0.0,
        log_x=True,
        note=f"Mean over {runs} draws of each size, of their 95 % paired intervals too, behind the gate; gate, "
        "intervention, K and strength stay. The class means, and so the size of the push, are the draw's own.",
        reading="What the search would have been worth with fewer problems; the last point is the whole contrast.",
    )


def gated_answers(redrawn: Redrawn, choice: Choice, label: str) -> list[Outcome]:
    """Test answers with the set that a choice finds in place of the whole contrast's, all else as it was chosen."""
    search, chosen = redrawn.search, redrawn.search.steering
    steering = Steering.of(redrawn.neurons(choice), chosen.strength, chosen.scope, chosen.gate, intervention=search.intervention)
    return search.answers(Split.TEST, steering, "auto", label=label)


def length_control(redrawn: Redrawn, base: Sequence[Outcome]) -> Part:
    """Search in pairs of one problem whose lengths are about equal, and in as many random pairs of the same problems.

    Incorrect responses tend to be longer: does the search find reasoning, or length?
    """
    search, settings = redrawn.search, redrawn.search.settings.stability
    lengths = {trace.id: len(trace.response_ids) for trace in search.traces}
    loaded = set(redrawn.means.trace_ids)
    sides = by_problem([row for row in search.contrast if row.trace_id in loaded])
    found = {problem: matched_pairs(*both, lengths, settings.length_tolerance) for problem, both in sides.items()}
    n_pairs = {problem: len(pairs) for problem, pairs in found.items() if pairs}
    matched = [pair for pairs in found.values() for pair in pairs]
    remain = (
        f"Length: {len(matched)} pairs of a correct and an incorrect trace, of {len(n_pairs)} of {len(sides)} problems, have "
        f"lengths within {settings.length_tolerance:.0%} of each other"
    )
    if len(n_pairs) < 2:
        return Part(sentences=(f"{remain}; a control needs two problems.",))
    rng = np.random.default_rng([search.settings.seed, 4])
    drawn = [matched, *(random_pairs(sides, n_pairs, rng) for _ in range(settings.draws))]
    choices = [redrawn.only([trace for pair in pairs for trace in pair]) for pairs in drawn]
    overlap, *others = _shared_with_whole(redrawn, choices)
    gains = _length_gains(redrawn, base, choices)
    classes = [[trace for both in sides.values() for trace in both[side]] for side in (0, 1)]
    everything, kept = _tokens(classes, lengths), _tokens(zip(*matched, strict=True), lengths)
    of_random, as_many = _spread(others), {"n": len(n_pairs), "correct": len(matched), "incorrect": len(matched)}
    contrast = {"n": len(sides), "correct": len(classes[0]), "incorrect": len(classes[1])}
    frame = Frame(
        "length",
        "A contrast of pairs of about equal length",
        [
            {"label": WHOLE, "unit": "share", "value": None, "low": None, "high": None, **contrast, **everything},
            {"label": MATCHED, "unit": "share", "value": overlap, "low": None, "high": None, **as_many, **kept},
            {"label": RANDOM, "unit": "share", **of_random, **as_many, **dict.fromkeys(everything)},
        ],
        plot="dots",
        x_label="share of the set that the whole contrast finds too",
        note=f"n counts problems (train); pairs are of one problem. Intervals: {MIDDLE}, what so few traces share by themselves.",
    )
    behind = f"Behind the gate; of the random pairs the mean over {settings.runs} draws."
    gain = gain_frame("length-gain", "Gain with the neurons of pairs of equal length", base, gains, note=behind, chosen=WHOLE)
    sentence = (
        f"{remain}. On average correct traces have {everything['correct_tokens']:.1f} tokens and incorrect ones "
        f"{everything['incorrect_tokens']:.1f}, in these pairs {kept['correct_tokens']:.1f} and {kept['incorrect_tokens']:.1f}. "
        f"The pairs' set shares {overlap:.0%} with the whole contrast's, that of as many random pairs {_percent(of_random)}. "
        f"Gain: {listed(gains)}."
    )
    return Part((frame, gain), (sentence,))


def _length_gains(redrawn: Redrawn, base: Sequence[Outcome], choices: Sequence[Choice]) -> list[Row]:
    """On the test split: the whole contrast, the matched pairs (the first choice), and the first draws of random ones."""
    search, runs = redrawn.search, redrawn.search.settings.stability.runs
    conditions = {
        WHOLE: search.answers(Split.TEST, search.steering, "auto", label=WHOLE),
        MATCHED: gated_answers(redrawn, choices[0], MATCHED),
        RANDOM: [gated_answers(redrawn, choice, RANDOM) for choice in choices[1 : 1 + runs]],
    }
    return compare_rows(base, conditions, search.clusters)


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
    ours, theirs = (np.array([lengths[trace] for trace in side], np.float64) for side in (correct, incorrect))
    difference = np.abs(ours[:, None] - theirs) / np.maximum(ours[:, None], theirs)
    # a pair that is too far costs more than any number of better ones could save
    i, j = linear_sum_assignment(np.where(difference <= tolerance, difference, _TOO_FAR))
    near = difference[i, j] <= tolerance
    return [(correct[a], incorrect[b]) for a, b in zip(map(int, i[near]), map(int, j[near]), strict=True)]


def random_pairs(sides: Sides, n_pairs: Mapping[str, int], rng: np.random.Generator) -> list[Pair]:
    """This many pairs of each problem, drawn from all of its traces."""
    drawn: list[Pair] = []
    for problem, n in n_pairs.items():
        correct, incorrect = ([side[int(i)] for i in rng.permutation(len(side))[:n]] for side in sides[problem])
        drawn.extend(zip(correct, incorrect, strict=True))
    return drawn


def _shared_with_whole(redrawn: Redrawn, choices: Sequence[Choice]) -> list[float]:
    name = redrawn.search.criterion
    k, whole = redrawn.size(name), redrawn.whole[name]
    return [shared(rankings[name], whole, k) / k for rankings in redrawn.rankings(choices, [name])]


def _tokens(classes: Iterable[Iterable[str]], lengths: Mapping[str, int]) -> dict[str, float]:
    """Mean length of the correct and of the incorrect traces."""
    correct, incorrect = (float(np.mean([lengths[trace] for trace in traces])) for traces in classes)
    return {"correct_tokens": correct, "incorrect_tokens": incorrect}


class Null(NamedTuple):
    """Results under permuted labels, for one criterion.

    Args:
        k: the places that were looked at.
        reach: int64 ``[permutation, place]``, how many neurons of a permutation reach the observed neuron at each place.
        checked: int64 ``[shuffle, permutation]``, the same at the chosen K where the observed labels are themselves shuffled.
    """

    k: tuple[int, ...]
    reach: NDArray[np.int64]
    checked: NDArray[np.int64]


def null(redrawn: Redrawn) -> Part:
    """False-discovery estimate of each criterion: mean number of neurons that reach the observed K-th one, divided by K.

    Would as many neurons reach the K-th score if correct and incorrect were only names?
    """
    settings, names = redrawn.search.settings.stability, [name for name in redrawn.criteria if redrawn.size(name)]
    nulls = permuted(redrawn, names)
    p_values = [exceeding(nulls[name], redrawn.size(name)) for name in names]
    rows, checks = [], []
    for name, p, p_holm in zip(names, p_values, holm(p_values).tolist(), strict=True):
        k = redrawn.size(name)
        rows += [_estimate(name, nulls[name], at, (p, p_holm) if at == k else (None, None)) for at in nulls[name].k]
        checks.append(_check(name, nulls[name], k))
    chosen = redrawn.search.criterion
    estimates = Frame(
        "null",
        "False-discovery estimate by number of neurons",
        [{**row, "chosen": row["series"] == chosen and row["p"] is not None} for row in rows],
        plot="curves",
        x_label="number of neurons K",
        y_label="false-discovery estimate",
        reference=1.0,
        mark=redrawn.search.k,
        log_x=True,
        note=f"Labels permuted within the {redrawn.n_problems} contrast problems (train); n permutations, 95 % intervals over "
        "them. A neuron reaches the K-th one by the criterion's whole order: score, then tie breaks. The estimate is the mean "
        "number over K, and can be above 1; 0 [0, 0] means that no permutation had one. p, at the chosen K: permutations with K "
        "such neurons or more, the observed labels counted among them; p_holm is corrected over the criteria.",
        reading="The share of a set of K that permuted labels would have found as well: at 1 the set says nothing.",
    )
    check = Frame(
        "null-check",
        "The same estimate where the observed labels are themselves shuffled",
        [{**row, "chosen": row["label"] == chosen} for row in checks],
        plot="dots",
        x_label="false-discovery estimate",
        reference=1.0,
        note="Median over n shuffled labellings and their middle 95 %: neurons rise and fall together, so a single labelling can "
        "be far from 1. k_or_more_share: share of the permutations with K neurons or more.",
        reading="The procedure is right if the estimate is about 1, and if half of the permutations have K neurons or more.",
    )
    words = [f"{row['series']} {_number(row)}" for row in rows if row["p"] is not None]
    checked = [f"{row['label']} {_number(row)}" for row in checks]
    sentence = (
        f"False-discovery estimate at K = {redrawn.search.k}, from {settings.permutations} permutations of the labels within "
        f"problems: {', '.join(words)}. Check on {settings.shuffles} labellings that are themselves shuffled, where the estimate "
        f"should be about 1, median and middle 95 %: {', '.join(checked)}."
    )
    return Part((estimates, check), (sentence,))


def _estimate(name: str, found: Null, k: int, p: tuple[float | None, float | None]) -> dict[str, Cell]:
    reach = found.reach[:, found.k.index(k)]
    row: dict[str, Cell] = {"label": f"{name}, K = {k}", "n": len(reach), "p": p[0], "p_holm": p[1], "unit": "number"}
    row |= zip(("value", "low", "high"), false_discovery(reach, k), strict=True)
    return row | {"series": name, "x": k, "reaching": float(reach.mean())}


def _check(name: str, found: Null, k: int) -> dict[str, Cell]:
    median, low, high = np.quantile(found.checked.mean(axis=1) / k, [0.5, 0.025, 0.975]).tolist()
    row: dict[str, Cell] = {"label": name, "n": len(found.checked), "value": median, "low": low, "high": high, "unit": "number"}
    return row | {"k": k, "k_or_more_share": float((found.checked >= k).mean())}


def permuted(redrawn: Redrawn, names: Sequence[str]) -> dict[str, Null]:
    """Rank under permuted labels, and count who reaches the observed places; no ranking is kept longer than it is looked at."""
    search, settings = redrawn.search, redrawn.search.settings.stability
    rng = np.random.default_rng([search.settings.seed, 5])
    places = {name: _places(redrawn, name) for name in names}
    bars: dict[str, list[Ranking]] = {name: [] for name in names}
    for rankings in redrawn.rankings((redrawn.shuffled(rng) for _ in range(settings.shuffles)), names):
        for name in names:
            bars[name].append(_top(rankings[name], redrawn.size(name)))
    reach: dict[str, list[list[int]]] = {name: [] for name in names}
    checked: dict[str, list[list[int]]] = {name: [] for name in names}
    with search.progress("permutations", settings.permutations, 0) as advance:
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


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and central 95 % of random draws, as cells."""
    return dict(zip(("value", "low", "high"), middle(values), strict=True))


def _percent(row: Mapping[str, float]) -> str:
    return f"{row['value']:.0%} [{row['low']:.0%}, {row['high']:.0%}]"


def _number(row: Mapping[str, Cell]) -> str:
    return "{value:.2g} [{low:.2g}, {high:.2g}]".format_map(row)
