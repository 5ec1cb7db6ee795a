"""Which neurons a gate reads: those whose activation differs most between failures and successes."""

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError, NotEnoughDataError


def f_scores(features: NDArray[np.float32], failed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """One-way ANOVA F score of each feature against the failure label.

    ``F = between / (within / (n - 2))`` with ``between = sum_c n_c (mean_c - mean)^2`` and
    ``within = sum_i (x_i - mean_c(i))^2``, in float64 and in two passes: scikit-learn's ``f_classif`` subtracts sums of squares,
    which cancels for features with a large mean. A constant feature has F = 0; one that separates the
    classes without any spread within them has F = infinity.

    Args:
        features: float32 ``[problem, layer, d_ff]``.
        failed: bool ``[problem]``.

    Returns:
        float64 ``[layer, d_ff]``.

    Raises:
        InputError: NaN or infinite features, or lengths differ.
        NotEnoughDataError: a class is empty, or there are fewer than three problems.
    """
    if features.ndim != 3 or len(features) != len(failed):
        raise InputError(
            f"need features [problem, layer, d_ff] and {len(failed)} problems to match, got shape {list(features.shape)}"
        )
    n, n_failed = len(failed), int(failed.sum())
    if not 0 < n_failed < n or n < 3:
        raise NotEnoughDataError(f"an F score needs both classes and three problems, got {n_failed} failed of {n}; add problems")
    scores = np.zeros(features.shape[1:])
    # layer by layer, so that float64 copies stay small
    for layer in range(features.shape[1]):
        values = features[:, layer].astype(np.float64)
        if not np.isfinite(values).all():
            raise InputError(f"features of layer {layer} hold NaN or infinity; record them again in float32 or bfloat16")
        varies = (features[:, layer] != features[0, layer]).any(axis=0)
        scores[layer, varies] = _f_of_columns(values[:, varies], failed)
    return scores


def choose_features(features: NDArray[np.float32], failed: NDArray[np.bool_], n: int) -> NDArray[np.int64]:
    """Flat addresses ``layer * d_ff + index`` of the n features with the highest F scores, sorted by address.

    Features with F = 0, the constant ones among them, are never chosen, so there can be fewer than n. Ties go by address.

    Raises:
        InputError: n is not positive.
        NotEnoughDataError: no feature differs between the classes.
    """
    if n < 1:
        raise InputError(f"a gate needs at least one feature, got n_features = {n}")
    scores = f_scores(features, failed).ravel()
    best = np.argsort(-scores, kind="stable")[:n]
    chosen = np.sort(best[scores[best] > 0])
    if not len(chosen):
        raise NotEnoughDataError("no feature differs between failed and solved problems; check the recording, or add problems")
    return chosen.astype(np.int64)


def _f_of_columns(values: NDArray[np.float64], failed: NDArray[np.bool_]) -> NDArray[np.float64]:
    mean = values.mean(axis=0)
    between, within = np.zeros_like(mean), np.zeros_like(mean)
    for rows in (values[failed], values[~failed]):
        class_mean = rows.mean(axis=0)
        between += len(rows) * (class_mean - mean) ** 2
        within += ((rows - class_mean) ** 2).sum(axis=0)
    return np.divide(between * (len(values) - 2), within, out=np.full_like(mean, np.inf), where=within > 0)
