"""The default gate: a calibrated logistic regression on the neurons of the prompt, its last token or the mean of all."""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.gate import Gate, Pooling
from trimtab.gating.cross_validation import (
    FOLDS,
    Calibration,
    Fold,
    Linear,
    Penalty,
    calibrate,
    check_classes,
    cross_validate,
    fit_linear,
    fold_numbers,
)
from trimtab.gating.feature_rows import FeatureRows, as_rows, columns
from trimtab.gating.features import RunBlocks, choose_by_folds
from trimtab.stats.auroc import auroc

N_FEATURES = 4096
PLACEHOLDER_THRESHOLD = 0.5


def fit_logistic(
    features: NDArray[np.float32] | FeatureRows,
    failed: NDArray[np.bool_],
    *,
    n_features: int = N_FEATURES,
    pooling: Pooling = "last",
    penalty: Penalty = "l2",
    seed: int = 0,
    at_once: int = 1,
    run_blocks: RunBlocks = map,
) -> Gate:
    """Fit ``p(fail) = sigmoid(w . x + b)`` on the `find` split.

    Takes the `n_features` with the highest F scores, standardises them, and fits a logistic regression. Its penalty is
    chosen by 5-fold cross-validation on log loss, and Platt scaling of the held-out logits calibrates it; feature choice and
    standardisation are repeated within each fold. Standardisation and calibration are folded into w and b; constant features
    are dropped, and so are those that L1 leaves without a weight.

    The threshold is a placeholder of 0.5: choose it on the `validation` split with :func:`trimtab.gating.threshold.youden`.

    Features on disk are read twice, once to choose and once for what was chosen in any fold: problems x chosen x 4 bytes are
    kept, and a fit takes about problems x `n_features` x 20 bytes.

    Args:
        features: float32 ``[problem, layer, d_ff]``, activations of the last prompt token, or their mean over the prompt; an
            array, or :class:`trimtab.gating.RecordedRows` of a recording that does not fit into memory.
        failed: bool ``[problem]``, the unsteered model's own greedy verdict was incorrect.
        n_features: how many features to keep; all that vary when there are fewer.
        pooling: what the features are, for the gate to read the same.
        penalty: ``l2``, or ``l1`` as in the probe of AdaRAS.
        seed: of the folds.
        at_once, run_blocks: how features are chosen by blocks of layers, as for :func:`trimtab.gating.features.choose_by_folds`.

    Raises:
        InputError: shapes differ, labels are not bool, or a feature is not finite.
        NotEnoughDataError: fewer than 10 failed or 10 solved problems, or no feature differs between them.
    """
    if failed.dtype != np.bool_ or failed.ndim != 1:
        raise InputError(f"failed must be bool [problem], got {failed.dtype} {list(failed.shape)}")
    check_classes(failed)

    rows = as_rows(features)
    others = [[k for k in range(FOLDS) if k != left_out] for left_out in range(FOLDS)]
    numbers = fold_numbers(failed, seed)
    *by_fold, address = choose_by_folds(
        rows, failed, n_features, numbers, [*others, range(FOLDS)], at_once=at_once, run_blocks=run_blocks
    )
    d_ff = rows.shape[2]
    union = np.unique(np.concatenate([*by_fold, address]))
    values = columns(rows, union // d_ff, union % d_ff)

    def design(fold: Fold) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        own = np.searchsorted(union, by_fold[fold.number])
        train = values[np.ix_(fold.rows, own)]
        scaler = _Scaler.fit(train)
        return scaler.apply(train), scaler.apply(values[np.ix_(fold.held_out, own)])

    chosen = cross_validate(design, failed, seed, penalty)
    calibration = calibrate(chosen.logit, failed)
    values = values[:, np.searchsorted(union, address)]
    scaler = _Scaler.fit(values)
    weight, bias = scaler.fold(fit_linear(scaler.apply(values), failed, chosen.c, penalty), calibration)
    if penalty == "l1":
        address, weight = _used(address, weight)
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
    """Centres and scales features to rows of squared length about 1, so that one grid of penalties suits any number of them."""

    centre: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def fit(cls, values: NDArray[np.float32]) -> Self:
        """To ``[problem, feature]``, none of them constant."""
        exact = values.astype(np.float64)
        return cls(exact.mean(axis=0), exact.std(axis=0) * values.shape[1] ** 0.5)

    def apply(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """``[problem, feature]``."""
        return (values.astype(np.float64) - self.centre) / self.spread

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
