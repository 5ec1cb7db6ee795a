"""How good a gate is on problems it was not fitted on, and whether it knows more than the wording."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_curve

from trimtab.gating.discrimination import auroc, check_cases, check_probabilities, delong_interval

LEVEL = 0.95
RESAMPLES = 4000
BINS = 10
# bounds the memory of one block of resamples, in array elements
BLOCK = 2_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Problems of similar p(fail): their mean p, the share that failed, and how many they are."""

    predicted: float
    observed: float
    n: int


@dataclass(frozen=True, slots=True)
class GateAssessment:
    """A gate's figures on held-out problems.

    Args:
        n, n_failed: problems, and how many of them the unsteered model fails.
        auroc, text_auroc: of the gate and of the text-only baseline, with DeLong's interval.
        difference: ``auroc - text_auroc`` with a paired bootstrap interval that resamples problems within each class.
        brier, text_brier: mean squared error of p(fail).
        calibration: up to 10 bins at the quantiles of p(fail).
        roc: (false positive rate, true positive rate) from (0, 0) to (1, 1).
    """

    n: int
    n_failed: int
    auroc: Estimate
    text_auroc: Estimate
    difference: Estimate
    brier: float
    text_brier: float
    calibration: tuple[CalibrationBin, ...]
    roc: tuple[tuple[float, float], ...]

    @property
    def beats_text(self) -> bool:
        """Whether the whole interval of the difference lies above 0."""
        return self.difference.low > 0

    def to_json(self) -> dict[str, object]:
        """A dictionary of plain numbers, lists and dictionaries."""
        return {**asdict(self), "beats_text": self.beats_text, "roc": [list(point) for point in self.roc]}


def assess(failed: ArrayLike, probability: ArrayLike, text_probability: ArrayLike, seed: int = 0) -> GateAssessment:
    """Assess a gate beside the text-only baseline on the same held-out problems, one row a problem.

    Args:
        failed: bool ``[problem]``.
        probability, text_probability: p(fail) ``[problem]`` of the gate and of the baseline.
        seed: of the bootstrap.

    Raises:
        InputError: lengths differ, or a probability is NaN or outside [0, 1].
        NotEnoughDataError: fewer than two failed or two solved problems.
    """
    scores = np.stack([np.asarray(probability, np.float64), np.asarray(text_probability, np.float64)])
    failed, scores = check_cases(failed, scores, minimum=2)
    check_probabilities(scores)
    gate, text = scores
    areas = [Estimate(auroc(failed, score), *delong_interval(failed, score, LEVEL)) for score in scores]
    differences = np.subtract(*bootstrap_aurocs(failed, scores, RESAMPLES, seed))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(differences, [tail, 1 - tail]).tolist()
    return GateAssessment(
        n=len(failed),
        n_failed=int(failed.sum()),
        auroc=areas[0],
        text_auroc=areas[1],
        difference=Estimate(areas[0].value - areas[1].value, low, high),
        brier=float(((gate - failed) ** 2).mean()),
        text_brier=float(((text - failed) ** 2).mean()),
        calibration=calibration_curve(failed, gate),
        roc=roc_points(failed, gate),
    )


def roc_points(failed: NDArray[np.bool_], probability: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """(false positive rate, true positive rate) from (0, 0) to (1, 1)."""
    false_positive, true_positive, _ = roc_curve(failed, probability)
    return tuple(zip(false_positive.tolist(), true_positive.tolist(), strict=True))


def calibration_curve(
    failed: NDArray[np.bool_], probability: NDArray[np.float64], bins: int = BINS
) -> tuple[CalibrationBin, ...]:
    """Bins between the quantiles of p(fail); equal probabilities share a bin, so there can be fewer than `bins`."""
    inner_edges = np.unique(np.quantile(probability, np.linspace(0, 1, bins + 1)[1:-1]))
    member = np.searchsorted(inner_edges, probability, side="right")
    curve = []
    for i in np.unique(member):
        inside = member == i
        curve.append(CalibrationBin(float(probability[inside].mean()), float(failed[inside].mean()), int(inside.sum())))
    return tuple(curve)


def bootstrap_aurocs(failed: NDArray[np.bool_], scores: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """AUROCs ``[score, resample]`` of problems drawn with replacement within each class, the same draw for all scores."""
    rng = np.random.default_rng(seed)
    n_failed, n_solved = int(failed.sum()), int((~failed).sum())
    block = max(1, BLOCK // len(failed))
    areas = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        failed_counts = rng.multinomial(n_failed, np.full(n_failed, 1 / n_failed), size)
        solved_counts = rng.multinomial(n_solved, np.full(n_solved, 1 / n_solved), size)
        pairs = n_failed * n_solved
        areas.append([_won_pairs(failed_counts, solved_counts, score[failed], score[~failed]) / pairs for score in scores])
    return np.concatenate(areas, axis=1)


def _won_pairs(
    failed_counts: NDArray[np.int64],
    solved_counts: NDArray[np.int64],
    failed_score: NDArray[np.float64],
    solved_score: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Pairs ``[resample]`` whose failed problem scores above the solved one, ties one half; counts ``[resample, problem]``."""
    order = np.argsort(solved_score, kind="stable")
    below = np.zeros((len(solved_counts), len(order) + 1))
    np.cumsum(solved_counts[:, order], axis=1, out=below[:, 1:])
    lower = below[:, np.searchsorted(solved_score[order], failed_score, side="left")]
    up_to = below[:, np.searchsorted(solved_score[order], failed_score, side="right")]
    return (failed_counts * (lower + up_to) / 2).sum(axis=1)
