"""Contrasts made by hand or at random, and their class moments by loops over traces in plain Python."""

from collections.abc import Sequence
from dataclasses import replace
from math import nan, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.moments import Moments
from trimtab.ranking import ClassMoments

LAYERS, EXPERTS, D_EXPERT = 2, 3, 2
D_FF = EXPERTS * D_EXPERT
NEURONS = LAYERS * D_FF
FIELDS = (
    "correct_mean",
    "incorrect_mean",
    "correct_magnitude",
    "incorrect_magnitude",
    "correct_rms",
    "incorrect_rms",
    "correct_norm",
    "difference_mean",
    "difference_variance",
    "auroc",
)


def contrast(correct_mean, incorrect_mean, **fields) -> ClassMoments:
    """Class moments with these class means, ``[d_ff]`` or ``[layer, d_ff]``."""
    correct_mean, incorrect_mean = (np.atleast_2d(np.asarray(side, np.float64)) for side in (correct_mean, incorrect_mean))
    moments = ClassMoments(
        correct_mean, incorrect_mean, None, None, 10, 10, correct_mean - incorrect_mean, np.ones_like(correct_mean), 5
    )
    arrays = {
        name: np.atleast_2d(np.asarray(value, np.float64)) if isinstance(value, list | np.ndarray) else value
        for name, value in fields.items()
    }
    return replace(moments, **arrays)


class Labelled(NamedTuple):
    """Moments with their labels, as class moments are computed from."""

    moments: Moments
    problems: list[str]
    correct: list[bool]

    def take(self, rows: Sequence[int]) -> "Labelled":
        return Labelled(self.moments.take(rows), [self.problems[i] for i in rows], [self.correct[i] for i in rows])

    def parts(self, *groups: Sequence[int]) -> list["Labelled"]:
        return [self.take(rows) for rows in groups]


def recording(seed: int, n: int = 24, problems: int = 4, mixture: bool = False) -> Labelled:
    """Random traces with few distinct values, so that ties, zeros and sign flips are common."""
    rng = np.random.default_rng(seed)
    count = rng.integers(1, 4, (n, LAYERS, EXPERTS) if mixture else n)
    if mixture:
        count *= rng.random(count.shape) < 0.6
        count[:, 1, 2] = 0  # an expert that nothing is ever routed to
        count[:, 0, 1] *= rng.random(n) < 0.2
    per_neuron = np.repeat(count, D_EXPERT, axis=2) if mixture else count[:, None, None]
    values = rng.integers(-2, 3, (n, LAYERS, D_FF)) * np.where(per_neuron > 0, per_neuron, 0) * 0.3
    scale = rng.random((n, LAYERS, D_FF)) + 1
    arrays = [array.astype(np.float32) for array in (values, np.abs(values) * scale, values**2 * scale**2)]
    tokens = count.sum(axis=(1, 2)) + 1 if mixture else None
    moments = Moments(count, *arrays, tokens=tokens, contribution=arrays[1] / 10)
    return Labelled(moments, [f"p{i}" for i in rng.integers(0, problems, n)], [bool(flag) for flag in rng.random(n) < 0.5])


def naive_class_moments(data: Labelled) -> dict[str, NDArray[np.float64]]:
    """Every field of :class:`ClassMoments` that comes from traces, neuron by neuron."""
    found = {name: np.full((LAYERS, D_FF), nan) for name in (*FIELDS, "n_correct", "n_incorrect", "n_problems")}
    for layer in range(LAYERS):
        for index in range(D_FF):
            for name, value in _neuron(data, layer, index).items():
                found[name][layer, index] = value
    return found


def _neuron(data: Labelled, layer: int, index: int) -> dict[str, float]:
    moments, problems, is_correct = data
    mixture = moments.count.ndim == 3
    count = [int(moments.count[i, layer, index // D_EXPERT] if mixture else moments.count[i]) for i in range(len(problems))]
    per_token = {
        name: [float(array[i, layer, index]) / count[i] if count[i] else nan for i in range(len(problems))]
        for name, array in (("mean", moments.sum), ("magnitude", moments.magnitude), ("rms", moments.square))
        if array is not None
    }
    per_token["rms"] = [sqrt(value) for value in per_token["rms"]]
    sides = {side: [i for i in range(len(problems)) if is_correct[i] is side and count[i]] for side in (True, False)}
    found = {
        f"{'correct' if side else 'incorrect'}_{name}": mean([values[i] for i in sides[side]])
        for side in (True, False)
        for name, values in per_token.items()
    }
    assert moments.square is not None
    found["correct_norm"] = sqrt(sum(float(moments.square[i, layer, index]) for i in sides[True]))
    differences, shares = [], []
    for problem in sorted(set(problems)):
        correct, incorrect = ([per_token["mean"][i] for i in sides[side] if problems[i] == problem] for side in (True, False))
        if correct and incorrect:
            differences.append(mean(correct) - mean(incorrect))
            shares.append(mean([1.0 if g > b else 0.5 if g == b else 0.0 for g in correct for b in incorrect]))
    centre = mean(differences)
    return {
        **found,
        "n_correct": len(sides[True]),
        "n_incorrect": len(sides[False]),
        "n_problems": len(differences),
        "difference_mean": centre,
        "difference_variance": sum((d - centre) ** 2 for d in differences) / (len(differences) - 1)
        if len(differences) > 1
        else nan,
        "auroc": mean(shares),
    }


def mean(values: Sequence[float]) -> float:
    """NaN of nothing."""
    return sum(values) / len(values) if values else nan
