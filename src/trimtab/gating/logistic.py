"""The default gate: a calibrated logistic regression on the neurons of the prompt, its last token or the mean of all."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.gate import Gate, Pooling
from trimtab.gating.cross_validation import (
    Calibration,
    Linear,
    Penalty,
    Rows,
    calibrate,
    check_classes,
    cross_validate,
    fit_linear,
)
from trimtab.gating.discrimination import auroc
from trimtab.gating.features import choose_features

N_FEATURES = 4096
PLACEHOLDER_THRESHOLD = 0.5


def fit_logistic(
    features: NDArray[np.float32],
    failed: NDArray[np.bool_],
    *,
    n_features: int = N_FEATURES,
    pooling: Pooling = "last",
    penalty: Penalty = "l2",
    seed: int = 0,
) -> Gate:
    """Fit ``p(fail) = sigmoid(w . x + b)`` on the `find` split.

    Takes the `n_features` with the highest F scores, standardises them, and fits a logistic regression. Its penalty is
    chosen by 5-fold cross-validation on log loss, and Platt scaling of the held-out logits calibrates it; feature choice and
    standardisation are repeated within each fold. Standardisation and calibration are folded into w and b; constant features
    are dropped, and so are those that L1 leaves without a weight.

    The threshold is a placeholder of 0.5: choose it on the `tune` split with :func:`trimtab.gating.threshold.youden`.

    Args:
        features: float32 ``[problem, layer, d_ff]``, activations of the last prompt token, or their mean over the prompt.
        failed: bool ``[problem]``, the unsteered model's own greedy verdict was incorrect.
        n_features: how many features to keep; all that vary when there are fewer.
        pooling: what the features are, for the gate to read the same.
        penalty: ``l2``, or ``l1`` as in the probe of AdaRAS.
        seed: of the folds.

    Raises:
        InputError: shapes differ, labels are not bool, or a feature is not finite.
        NotEnoughDataError: fewer than 10 failed or 10 solved problems, or no feature differs between them.
    """
    if failed.dtype != np.bool_ or failed.ndim != 1:
        raise InputError(f"failed must be bool [problem], got {failed.dtype} {list(failed.shape)}")
    check_classes(failed)

    def design(rows: Rows, held_out: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        scaler = _fit_scaler(features[rows], failed[rows], n_features)
        return scaler.apply(features[rows]), scaler.apply(features[held_out])

    chosen = cross_validate(design, failed, seed, penalty)
    calibration = calibrate(chosen.logit, failed)
    scaler = _fit_scaler(features, failed, n_features)
    weight, bias = scaler.fold(fit_linear(scaler.apply(features), failed, chosen.c, penalty), calibration)
    address = scaler.address
    if penalty == "l1":
        address, weight = _used(address, weight)
    d_ff = features.shape[2]
    return Gate(
        kind="logistic",
        layer=address // d_ff,
        index=address % d_ff,
        weight=weight,
        bias=bias,
        threshold=PLACEHOLDER_THRESHOLD,
        pooling=pooling,
        facts={
            "n_find": len(failed),
            "n_find_failed": int(failed.sum()),
            "n_features": len(weight),
            "penalty": penalty,
            "inverse_penalty": chosen.c,
            "held_out_log_loss": chosen.log_loss,
            "held_out_auroc": auroc(failed, chosen.logit),
            "calibration_slope": calibration.slope,
            "seed": seed,
        },
    )


class _Scaler(NamedTuple):
    """Chosen features, centred and scaled to rows of squared length about 1, so that one grid of penalties suits any number."""

    address: NDArray[np.int64]
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]

    def apply(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """``[problem, layer, d_ff]`` to ``[problem, feature]``."""
        values = features.reshape(len(features), -1)[:, self.address].astype(np.float64)
        return (values - self.centre) / self.spread

    def fold(self, line: Linear, calibration: Calibration) -> tuple[NDArray[np.float32], float]:
        """Weights and bias on raw activations, calibrated."""
        weight = (calibration.slope * line.weight / self.spread).astype(np.float32)
        # the bias takes the rounded weights, so that rounding does not shift the logit of an average problem
        bias = calibration.slope * line.bias + calibration.intercept - float(weight.astype(np.float64) @ self.centre)
        return weight, bias


def _used(address: NDArray[np.int64], weight: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The features that have a weight; one of them where none has, since a gate reads something."""
    used = np.flatnonzero(weight)
    kept = used if len(used) else np.array([0])
    return address[kept], weight[kept]


def _fit_scaler(features: NDArray[np.float32], failed: NDArray[np.bool_], n_features: int) -> _Scaler:
    address = choose_features(features, failed, n_features)
    values = features.reshape(len(features), -1)[:, address].astype(np.float64)
    return _Scaler(address, values.mean(axis=0), values.std(axis=0) * len(address) ** 0.5)
