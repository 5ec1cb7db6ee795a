"""Where in the model failure can be foreseen: a probe on each layer's neurons at the last prompt token."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.gating import fit_logistic
from trimtab.stats.auroc import auroc, check_cases, delong_interval
from trimtab.stats.values import Estimate

N_FEATURES = 1024


@dataclass(frozen=True, slots=True)
class LayerProbe:
    """The probe of one layer.

    Args:
        features: neurons that it reads.
        cross_validated: AUROC of the held-out folds of the split that it was fitted on.
        held_out: AUROC on the other split, with DeLong's interval.
    """

    layer: int
    features: int
    cross_validated: float
    held_out: Estimate


@dataclass(frozen=True, slots=True)
class LayerProbes:
    """One probe a layer; problems and failures of both splits."""

    layers: tuple[LayerProbe, ...]
    n_fit: int
    n_fit_failed: int
    n_held_out: int
    n_held_out_failed: int

    def to_json(self) -> dict[str, object]:
        """A dictionary of plain numbers, lists and dictionaries."""
        return asdict(self)


def layer_probes(
    features: NDArray[np.float32],
    failed: NDArray[np.bool_],
    held_out_features: NDArray[np.float32],
    held_out_failed: NDArray[np.bool_],
    *,
    n_features: int = N_FEATURES,
    seed: int = 0,
) -> LayerProbes:
    """Fit p(fail) on each layer alone, as the gate is fitted on all of them, and assess it on problems it has not seen.

    Args:
        features, failed: float32 ``[problem, layer, d_ff]`` and bool ``[problem]`` of the `find` split.
        held_out_features, held_out_failed: the same of the `validation` split.
        n_features: neurons a probe may read, by F score.
        seed: of the folds.

    Raises:
        InputError: sizes differ between the splits.
        NotEnoughDataError: fewer than 10 failed or 10 solved problems to fit on, 2 of each held out, or a layer in which no
            neuron differs.
    """
    if features.shape[1:] != held_out_features.shape[1:]:
        raise InputError(
            f"the splits' features differ: [layer, d_ff] {list(features.shape[1:])} and {list(held_out_features.shape[1:])}; "
            "record both with one model"
        )
    check_cases(held_out_failed, np.zeros(len(held_out_features)), minimum=2)
    probes = []
    for layer in range(features.shape[1]):
        gate = fit_logistic(features[:, layer : layer + 1], failed, n_features=n_features, seed=seed)
        logit = held_out_features[:, layer, gate.index].astype(np.float64) @ gate.weight.astype(np.float64) + gate.bias
        area = Estimate(auroc(held_out_failed, logit), *delong_interval(held_out_failed, logit))
        probes.append(LayerProbe(layer, len(gate.index), float(gate.facts["held_out_auroc"]), area))  # type: ignore[arg-type]
    counts = (len(failed), int(failed.sum()), len(held_out_failed), int(held_out_failed.sum()))
    return LayerProbes(tuple(probes), *counts)
