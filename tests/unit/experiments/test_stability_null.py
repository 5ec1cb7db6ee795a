"""The permutation null against a naive count, on data with planted neurons and on data with none."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from trimtab.experiments import ExperimentSettings, Workbench
from trimtab.experiments.redrawn import Redrawn
from trimtab.experiments.settings import StabilitySettings
from trimtab.experiments.stability_null import Null, exceeding, false_discovery, null, permuted
from trimtab.progress import silent
from trimtab.ranking import TraceMeans

POLARITY = "adaras"


def _redrawn(planted: float, criteria: tuple[str, ...], k: int, permutations: int = 60, shuffles: int = 15) -> Redrawn:
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
    bench = SimpleNamespace(
        settings=ExperimentSettings(stability=settings),
        class_moments=means.class_moments(statistics={"difference", "auroc"}),
        k=k,
        criterion=criteria[0],
        progress=silent,
    )
    return Redrawn(cast("Workbench", bench), means, criteria, 0)


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
    redrawn = _redrawn(0.4, (POLARITY,), k=8, permutations=4, shuffles=2)
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
    planted = null(_redrawn(1.5, (criterion,), k=8)).tables
    (row,), (check,) = planted[0].rows, planted[1].rows
    assert row[0] == criterion
    assert cast("float", row[4]) < 0.05
    assert row[7] == row[8] == pytest.approx(1 / 61)
    assert 0.6 < cast("float", check[3]) < 1.6
    assert 0.3 < cast("float", check[6]) < 0.7

    (nothing,) = null(_redrawn(0.0, (criterion,), k=8)).tables[0].rows
    assert 0.4 < cast("float", nothing[4]) < 2.5
    assert cast("float", nothing[7]) > 2 / 61


def test_the_estimate_is_the_mean_over_k() -> None:
    estimate, low, high = false_discovery(np.array([0, 3, 1, 4]), 4)
    assert estimate == 0.5
    assert 0 <= low < estimate < high <= 1
    assert false_discovery(np.zeros(5, np.int64), 4) == (0.0, 0.0, 0.0)


def test_p_counts_the_observed_labels_among_the_permutations() -> None:
    counts = Null((2, 4), np.array([[2, 3], [1, 4], [2, 0]]), np.zeros((1, 3), np.int64))
    assert exceeding(counts, 2) == 3 / 4
    assert exceeding(counts, 4) == 2 / 4
