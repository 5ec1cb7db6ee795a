"""Draws of the contrast against naive loops, pairs of equal length, the permutation null, and the whole experiment."""

from itertools import combinations, permutations
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from search_samples import changed
from trimtab.experiments import EXPERIMENTS, ExperimentSettings, Search
from trimtab.experiments.redrawn import Redrawn, fitting, jaccard, middle, shared
from trimtab.experiments.settings import StabilitySettings
from trimtab.experiments.stability import (
    ALONGSIDE,
    Null,
    by_chance,
    by_problem,
    exceeding,
    false_discovery,
    matched_pairs,
    null,
    permuted,
    random_pairs,
    stability,
)
from trimtab.findings import Findings
from trimtab.neurons import ModelIdentity
from trimtab.progress import silent
from trimtab.ranking import CRITERIA, Ranking, TraceMeans
from trimtab.tasks.contrast import ContrastRow
from trimtab.traces import Split

SETTINGS = ExperimentSettings(
    stability=StabilitySettings(halves=3, bootstraps=5, sizes=(5, 8), draws=3, runs=1, permutations=6, shuffles=3)
)
NAMES = ("mean-difference", "adaras", "paired-t", "auroc")


@pytest.fixture(scope="module")
def module_bench(search: Search) -> Search:
    problems = {split: search.problems[split][:10] for split in EXPERIMENTS["stability"].reads}
    return changed(search, settings=SETTINGS, problems=problems)


@pytest.fixture(scope="module")
def redrawn(module_bench: Search) -> Redrawn:
    return Redrawn.load(module_bench, NAMES)


@pytest.fixture(scope="module")
def findings(module_bench: Search) -> Findings:
    return stability(module_bench)


def _ranking(order: list[int]) -> Ranking:
    return Ranking(np.array(order), -np.arange(len(order), dtype=np.float64))


def _rows(search: Search, problems: list[str]) -> list[ContrastRow]:
    return [row for row in search.contrast if row.problem_id in problems]


def test_halves_rank_as_the_recording_of_their_problems_alone(redrawn: Redrawn) -> None:
    search, n = redrawn.search, redrawn.n_problems
    choices = redrawn.some_problems(np.random.default_rng(3), n // 2, n - n // 2)
    taken = [[redrawn.means.problems[i] for i in np.flatnonzero(np.asarray(choice.copies))] for choice in choices]
    assert sorted(taken[0] + taken[1]) == sorted({row.problem_id for row in search.contrast})
    for names, rankings in zip(taken, redrawn.rankings(choices), strict=True):
        moments = search.moments_of(_rows(search, names), {"difference", "auroc"})
        for name in NAMES:
            expected = CRITERIA[name](moments)
            assert rankings[name].order[:5].tolist() == expected.order[:5].tolist()
            np.testing.assert_allclose(rankings[name].score[:20], expected.score[:20], rtol=1e-4)


def test_a_bootstrap_counts_a_problem_as_often_as_it_is_drawn(redrawn: Redrawn) -> None:
    search = redrawn.search
    choice = redrawn.bootstrap(np.random.default_rng(4))
    assert choice.copies is not None
    assert choice.copies.sum() == redrawn.n_problems
    assert (choice.copies == 0).any()
    assert (choice.copies > 1).any()
    means = dict(zip(redrawn.means.trace_ids, search.recording.means(search.scope, redrawn.means.trace_ids), strict=True))
    sides: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for problem, copies in zip(redrawn.means.problems, choice.copies.tolist(), strict=True):
        for _ in range(copies):
            for row in _rows(search, [problem]):
                sides[row.correct].append(means[row.trace_id].astype(np.float64))
    delta = np.mean(sides[True], axis=0) - np.mean(sides[False], axis=0)
    (found,) = redrawn.moments([choice], ["mean-difference"])
    np.testing.assert_allclose(found.mean_difference, delta, rtol=1e-6, atol=1e-9)


def test_shuffling_keeps_the_verdicts_of_every_problem(redrawn: Redrawn) -> None:
    correct = redrawn.shuffled(np.random.default_rng(5)).correct
    assert correct is not None
    assert (correct != redrawn.means.correct).any()
    for problem in range(redrawn.n_problems):
        here = redrawn.means.problem == problem
        assert correct[here].sum() == redrawn.means.correct[here].sum()


def test_some_traces(redrawn: Redrawn) -> None:
    chosen = redrawn.means.trace_ids[3:7]
    times = redrawn.only(chosen).times
    assert times is not None
    assert [trace for trace, n in zip(redrawn.means.trace_ids, times, strict=True) if n] == list(chosen)


def test_fitting_takes_whole_problems() -> None:
    rows = [ContrastRow(f"t{i}", f"p{i // 4}", i % 2 == 0) for i in range(20)]
    rng = np.random.default_rng(0)
    assert fitting(rows, 20, rng) == rows
    kept = fitting(rows, 11, rng)
    assert len(kept) == 8
    assert len({row.problem_id for row in kept}) == 2
    assert fitting(rows, 3, rng) == []


def test_overlap_of_sets() -> None:
    first, second = _ranking([4, 1, 7, 2]), _ranking([7, 9, 4])
    assert shared(first, second, 3) == 2
    assert jaccard(first, second, 3) == 2 / 4
    assert jaccard(first, second, 4) == 2 / 5
    assert jaccard(_ranking([]), _ranking([]), 3) == 0
    assert middle([1.0, 2.0, 3.0]) == (2.0, pytest.approx(1.05), pytest.approx(2.95))


def test_chance_in_layers_is_what_random_sets_share() -> None:
    pair = (_ranking([0, 1, 2, 5, 9]), _ranking([1, 3, 4, 8, 9]))
    everywhere, in_layers = by_chance(
        [pair], 4, ModelIdentity("m", None, "qwen3", "f", n_layers=2, d_model=4, d_ff=5, vocab_size=9)
    )
    assert everywhere == pytest.approx(4 / 10)
    rng = np.random.default_rng(0)
    counts = [[sum(address // 5 == layer for address in side.order[:4]) for layer in (0, 1)] for side in pair]
    drawn = []
    for _ in range(4_000):
        one, other = ({(n, i) for n in (0, 1) for i in rng.permutation(5)[: c[n]].tolist()} for c in counts)
        drawn.append(len(one & other) / 4)
    assert in_layers == pytest.approx(np.mean(drawn), abs=0.02)


def test_the_whole_experiment(module_bench: Search, findings: Findings) -> None:
    assert {frame.name for frame in findings.frames} == {
        "halves",
        "inclusion",
        "sizes",
        "sizes-gain",
        "length",
        "length-gain",
        "null",
        "null-check",
    }
    criteria = list(dict.fromkeys((module_bench.criterion, *ALONGSIDE)))
    assert [row["label"] for row in findings["halves"].rows] == criteria
    n = len({row.problem_id for row in module_bench.contrast})
    whole = [row["x"] for row in findings["sizes"].rows if row["series"] == "with the whole contrast"]
    assert whole == sorted({5, 8, n // 2})
    base = module_bench.answers(Split.TEST, None)
    steered = module_bench.answers(Split.TEST, module_bench.steering, "auto")
    gain = sum(o.correct for o in steered) / 10 - sum(o.correct for o in base) / 10
    for name in ("sizes-gain", "length-gain"):
        (row,) = [row for row in findings[name].rows if row["chosen"]]
        assert (row["label"], row["n"]) == ("the whole contrast", 10)
        assert row["value"] == pytest.approx(gain)
    assert [row["x"] for row in findings["sizes-gain"].rows] == [5, 8, n]
    (row,) = [row for row in findings["null"].rows if row["chosen"]]
    assert (row["series"], row["x"]) == (module_bench.criterion, module_bench.k)


def test_inclusion_is_counted_over_the_bootstraps(redrawn: Redrawn, findings: Findings) -> None:
    search, name = redrawn.search, redrawn.search.criterion
    rng = np.random.default_rng([search.settings.seed, 2])
    sets = [set(r[name].order[: search.k].tolist()) for r in redrawn.rankings(redrawn.bootstrap(rng) for _ in range(5))]
    expected = [sum(a in s for s in sets) / 5 for a in redrawn.whole[name].order[: search.k].tolist()]
    assert [row["value"] for row in findings["inclusion"].rows] == expected
    every = {a for s in sets for a in s}
    over = sum(sum(a in s for s in sets) > 2.5 for a in every)
    assert f"more than half select {over} neurons" in next(f for f in findings.sentences if "bootstraps" in f)


def test_too_few_problems_is_a_finding(module_bench: Search) -> None:
    names = list(dict.fromkeys(row.problem_id for row in module_bench.contrast))[:3]
    few = changed(module_bench, contrast=_rows(module_bench, names))
    assert stability(few).sentences == ("The contrast has 3 problems; 4 or more are needed.",)


def test_what_does_not_fit_in_memory_is_said(module_bench: Search) -> None:
    row_bytes = 4 * module_bench.steering.model.n_neurons
    settings = SETTINGS.stability.model_copy(update={"memory_gb": row_bytes * 0.6 * len(module_bench.contrast) / 1e9})
    thin = changed(module_bench, settings=SETTINGS.model_copy(update={"stability": settings}))
    redrawn = Redrawn.load(thin, NAMES)
    n = len({row.problem_id for row in module_bench.contrast})
    assert 0 < redrawn.n_problems < n
    assert redrawn.left_out == n - redrawn.n_problems
    assert stability(thin).sentences[0].startswith(f"{redrawn.left_out} of {n} contrast problems")


def _best(good: list[str], bad: list[str], lengths: dict[str, int], tolerance: float) -> tuple[int, float]:
    """Most pairs, and the least sum of their differences, by trying all of them."""
    for size in range(min(len(good), len(bad)), 0, -1):
        costs = []
        for some in combinations(good, size):
            for others in permutations(bad, size):
                off = [abs(lengths[a] - lengths[b]) / max(lengths[a], lengths[b]) for a, b in zip(some, others, strict=True)]
                if max(off) <= tolerance:
                    costs.append(sum(off))
        if costs:
            return size, min(costs)
    return 0, 0.0


@pytest.mark.parametrize("seed", range(20))
def test_most_pairs_and_the_most_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    good, bad = [f"g{i}" for i in range(rng.integers(1, 5))], [f"b{i}" for i in range(rng.integers(1, 5))]
    lengths = {trace: int(rng.integers(10, 20)) for trace in good + bad}
    pairs = matched_pairs(good, bad, lengths, 0.15)
    off = [abs(lengths[a] - lengths[b]) / max(lengths[a], lengths[b]) for a, b in pairs]
    size, cost = _best(good, bad, lengths, 0.15)
    assert (len(pairs), sum(off)) == (size, pytest.approx(cost))
    assert len({a for a, _ in pairs} & set(good)) == len({b for _, b in pairs} & set(bad)) == len(pairs)


def test_two_near_pairs_are_better_than_an_equal_one() -> None:
    lengths = {"a": 100, "b": 114, "c": 114, "d": 131}
    assert matched_pairs(["a", "b"], ["c", "d"], lengths, 0.15) == [("a", "c"), ("b", "d")]


def test_no_tolerance_takes_equal_lengths_only() -> None:
    assert matched_pairs(["a", "b"], ["c", "d"], {"a": 5, "b": 6, "c": 6, "d": 7}, 0.0) == [("b", "c")]


def test_random_pairs_are_of_the_same_problems() -> None:
    rows = [ContrastRow(f"{problem}{i}", problem, i < 3) for problem in "pq" for i in range(6)]
    sides = by_problem(rows)
    assert sides["p"] == (["p0", "p1", "p2"], ["p3", "p4", "p5"])
    drawn = random_pairs(sides, {"q": 2}, np.random.default_rng(0))
    assert len(drawn) == 2
    assert {good for good, _ in drawn} < {"q0", "q1", "q2"}
    assert {bad for _, bad in drawn} < {"q3", "q4", "q5"}
    seen = {pair for seed in range(30) for pair in random_pairs(sides, {"q": 1}, np.random.default_rng(seed))}
    assert len(seen) == 9


POLARITY = "adaras"


def _planted(planted: float, criteria: tuple[str, ...], k: int, permutations: int = 60, shuffles: int = 15) -> Redrawn:
    """40 problems of 2 + 2 traces; 80 independent neurons, the first 8 of which tell the verdict where ``planted`` is not 0."""
    rng = np.random.default_rng(0)
    problem = np.repeat(np.arange(40), 4)
    correct = np.tile([True, True, False, False], 40)
    values = rng.normal(size=(160, 80)) + rng.normal(size=(40, 80))[problem]
    values[:, :8] += planted * np.where(correct, 1, -1)[:, None]
    means = TraceMeans(
        trace_ids=tuple(f"t{i}" for i in range(160)),
        problems=tuple(f"p{i}" for i in range(40)),
        problem=problem,
        correct=correct,
        shape=(2, 40),
        values={"mean": values.astype(np.float32)},
    )
    settings = StabilitySettings(permutations=permutations, shuffles=shuffles)
    search = SimpleNamespace(
        settings=ExperimentSettings(stability=settings),
        class_moments=means.class_moments(statistics={"difference", "auroc"}),
        k=k,
        criterion=criteria[0],
        progress=silent,
    )
    return Redrawn(cast("Search", search), means, criteria, 0)


def _keys(redrawn: Redrawn, correct: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """``(r, |delta|)`` of every neuron."""
    values = redrawn.means.values["mean"].astype(np.float64)
    keys = []
    for j in range(values.shape[1]):
        good, bad = values[correct, j].mean(), values[~correct, j].mean()
        flips = good * bad < 0
        keys.append((1.0 if flips else abs(good - bad) / (abs(good) + abs(bad)), abs(good - bad)))
    return keys


def test_reaching_follows_score_and_tie_break() -> None:
    """Most neurons flip their sign by chance, so their scores are all 1 and the differences decide."""
    redrawn = _planted(0.4, (POLARITY,), k=8, permutations=4, shuffles=2)
    found = permuted(redrawn, [POLARITY])[POLARITY]
    bar = sorted(_keys(redrawn, redrawn.means.correct), reverse=True)[7]
    assert bar[0] == 1.0
    rng = np.random.default_rng([0, 5])
    bars = [sorted(_keys(redrawn, redrawn.means.shuffled(rng)), reverse=True)[7] for _ in range(2)]
    labels = [redrawn.means.shuffled(rng) for _ in range(4)]
    place = found.k.index(8)
    assert found.reach[:, place].tolist() == [sum(key >= bar for key in _keys(redrawn, label)) for label in labels]
    assert found.checked.tolist() == [[sum(key >= b for key in _keys(redrawn, label)) for label in labels] for b in bars]
    by_score_alone = [sum(key[0] >= bar[0] for key in _keys(redrawn, label)) for label in labels]
    assert min(by_score_alone) > max(found.reach[:, place].tolist())


@pytest.mark.parametrize("criterion", ["mean-difference", POLARITY, "paired-t", "auroc"])
def test_planted_neurons_are_no_false_discoveries_and_shuffled_labels_are(criterion: str) -> None:
    estimates, checks = null(_planted(1.5, (criterion,), k=8)).frames
    (row,), (check,) = [row for row in estimates.rows if row["chosen"]], checks.rows
    assert (row["series"], row["x"], check["label"]) == (criterion, 8, criterion)
    assert row["value"] < 0.05
    assert row["p"] == row["p_holm"] == pytest.approx(1 / 61)
    assert 0.6 < check["value"] < 1.6
    assert 0.3 < check["k_or_more_share"] < 0.7

    nothing = next(row for row in null(_planted(0.0, (criterion,), k=8)).frames[0].rows if row["chosen"])
    assert 0.4 < nothing["value"] < 2.5
    assert nothing["p"] > 2 / 61


def test_the_estimate_is_the_mean_over_k() -> None:
    estimate, low, high = false_discovery(np.array([0, 3, 1, 4]), 4)
    assert estimate == 0.5
    assert 0 <= low < estimate < high <= 1
    assert false_discovery(np.zeros(5, np.int64), 4) == (0.0, 0.0, 0.0)


def test_p_counts_the_observed_labels_among_the_permutations() -> None:
    counts = Null((2, 4), np.array([[2, 3], [1, 4], [2, 0]]), np.zeros((1, 3), np.int64))
    assert exceeding(counts, 2) == 3 / 4
    assert exceeding(counts, 4) == 2 / 4
