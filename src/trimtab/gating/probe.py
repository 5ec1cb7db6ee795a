"""The default gate: a calibrated logistic regression on the neurons of the prompt, its last token or the mean of all.

The cross-validated penalty and the calibration are shared by the other gates and the text baseline. They are not scikit-learn's
pipelines: features are chosen anew in each fold while they are read from disk, in memory for one part of the rows, and a pipeline
would want all of them at once.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cache
from types import MappingProxyType
from typing import Literal, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import ThreadpoolController

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.gate import Gate, Pooling
from trimtab.gating.features import FeatureRows, RunBlocks, as_rows, choose_by_folds, columns
from trimtab.stats.auroc import auroc

logger = logging.getLogger(__name__)

Matrix: TypeAlias = NDArray[np.float64] | sparse.csr_matrix
Rows: TypeAlias = NDArray[np.int64]
Penalty = Literal["l2", "l1"]

FOLDS = 5
MINIMUM_PER_CLASS = 10
# inverse penalties for rows of norm about 1; ascending, since each fit starts from the one before
INVERSE_PENALTIES: Mapping[Penalty, tuple[float, ...]] = MappingProxyType(
    {"l2": tuple(10.0**exponent for exponent in range(-2, 5)), "l1": tuple(10.0 ** (half / 2) for half in range(-2, 5))}
)
MAX_ITERATIONS = 5000


class Fold(NamedTuple):
    """Its number, the rows to fit on, and those that are held out."""

    number: int
    rows: Rows
    held_out: Rows


Design: TypeAlias = Callable[[Fold], tuple[Matrix, Matrix]]


class CrossValidation(NamedTuple):
    """The chosen inverse penalty C, its mean log loss on held-out problems, and their logits ``[problem]``."""

    c: float
    log_loss: float
    logit: NDArray[np.float64]


class Calibration(NamedTuple):
    """``calibrated logit = slope * logit + intercept``."""

    slope: float
    intercept: float


class Linear(NamedTuple):
    """``logit = x @ weight + bias``."""

    weight: NDArray[np.float64]
    bias: float


def check_classes(failed: NDArray[np.bool_]) -> None:
    """Raise NotEnoughDataError unless there are enough failed and solved problems for cross-validation."""
    n_failed = int(failed.sum())
    n_solved = len(failed) - n_failed
    if min(n_failed, n_solved) < MINIMUM_PER_CLASS:
        raise NotEnoughDataError(
            f"a gate needs at least {MINIMUM_PER_CLASS} failed and {MINIMUM_PER_CLASS} solved problems, got {n_failed} failed "
            f"and {n_solved} solved; add problems, choose {'harder' if n_failed < n_solved else 'easier'} ones, "
            'or set gate.kind = "always"',
            code="too-few-for-gate",
        )


def folds(failed: NDArray[np.bool_], seed: int) -> list[Fold]:
    """Five, stratified; each row is held out once."""
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    return [Fold(number, *rows) for number, rows in enumerate(splitter.split(np.zeros(len(failed)), failed))]


def fold_numbers(failed: NDArray[np.bool_], seed: int) -> NDArray[np.int64]:
    """The fold ``[problem]`` in which each problem is held out."""
    numbers = np.empty(len(failed), np.int64)
    for fold in folds(failed, seed):
        numbers[fold.held_out] = fold.number
    return numbers


def cross_validate(design: Design, failed: NDArray[np.bool_], seed: int, penalty: Penalty = "l2") -> CrossValidation:
    """Choose C by stratified 5-fold cross-validation on log loss; ties go to the stronger penalty.

    Args:
        design: makes the matrices of a fold, of the rows to fit on and of those held out. All that is learned from data, the
            choice of features included, has to be learned from the first rows only.
        failed: bool ``[problem]``.
        seed: of the folds.
    """
    grid = INVERSE_PENALTIES[penalty]
    logits = np.empty((len(grid), len(failed)))
    for fold in folds(failed, seed):
        matrix, held_out_matrix = design(fold)
        for i, line in enumerate(_path(matrix, failed[fold.rows], penalty)):
            logits[i, fold.held_out] = held_out_matrix @ line.weight + line.bias
    losses = np.logaddexp(0.0, np.where(failed, -logits, logits)).mean(axis=1)
    best = int(losses.argmin())
    return CrossValidation(grid[best], float(losses[best]), logits[best])


def fit_linear(matrix: Matrix, failed: NDArray[np.bool_], c: float, penalty: Penalty = "l2") -> Linear:
    """Logistic regression with inverse penalty c; the bias is free under L2 and penalised like a weight under L1."""
    with one_thread():
        return _line(_model(penalty).set_params(C=c).fit(matrix, failed))


def calibrate(logit: NDArray[np.float64], failed: NDArray[np.bool_]) -> Calibration:
    """Platt scaling (1999) of held-out logits, with his smoothed targets, so that a perfect separation stays finite.

    The slope is held at 0 or above: a model whose held-out logits run against the labels has learned nothing, and turning it
    around would make a gate of that. With slope 0 the gate's p(fail) is the (smoothed) base rate.
    """
    n_failed = int(failed.sum())
    n_solved = len(failed) - n_failed
    target = np.where(failed, (n_failed + 1) / (n_failed + 2), 1 / (n_solved + 2))
    constant = Calibration(0.0, float(np.log(target.sum() / (1 - target).sum())))
    if np.ptp(logit) == 0:
        return constant
    # a soft target is a failed and a solved copy of the problem, weighted by the target and by the rest
    copies, labels = np.concatenate([logit, logit])[:, None], np.repeat([True, False], len(logit))
    platt = LogisticRegression(C=np.inf, solver="newton-cholesky", max_iter=MAX_ITERATIONS)
    with one_thread():
        platt.fit(copies, labels, sample_weight=np.concatenate([target, 1 - target]))
    (slope,), intercept = _line(platt)
    if slope <= 0:
        logger.warning("held-out logits run against the labels (slope %.2g): the gate knows only the base rate", slope)
        return constant
    return Calibration(float(slope), intercept)


def one_thread() -> AbstractContextManager[object]:
    """Linear algebra on one thread: the same bits on every machine, and an eighth of the seconds on two cores.

    A solver takes thousands of products with vectors, each too short to be worth waking threads for.
    """
    return _threads().limit(limits=1, user_api="blas")


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all libraries of the process, so once


def _line(model: LogisticRegression) -> Linear:
    return Linear(np.ravel(model.coef_).astype(np.float64), np.ravel(model.intercept_).item())


def _model(penalty: Penalty) -> LogisticRegression:
    if penalty == "l2":
        return LogisticRegression(max_iter=MAX_ITERATIONS)
    # a hundred times as fast as saga; its penalty on the bias matters little, since weights on rows of norm 1 are far larger
    return LogisticRegression(l1_ratio=1.0, solver="liblinear", max_iter=MAX_ITERATIONS, random_state=0)


def _path(matrix: Matrix, failed: NDArray[np.bool_], penalty: Penalty) -> list[Linear]:
    """Fits for all of the inverse penalties, under L2 each started from the one before."""
    model = _model(penalty).set_params(warm_start=True)
    lines = []
    with one_thread():
        for c in INVERSE_PENALTIES[penalty]:
            model.set_params(C=c).fit(matrix, failed)
            lines.append(_line(model))
    return lines


N_FEATURES = 4096


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
    """Fit ``p(fail) = sigmoid(w . x + b)`` on the `train` split.

    Takes the `n_features` with the highest F scores, standardises them, and fits a logistic regression. Its penalty is
    chosen by 5-fold cross-validation on log loss, and Platt scaling of the held-out logits calibrates it; feature choice and
    standardisation are repeated within each fold. Standardisation and calibration are folded into w and b; constant features
    are dropped, and so are those that L1 leaves without a weight.

    The gate has no threshold yet, so nothing can be steered behind it: choose it on the `validation` split, with
    ``gate.with_threshold(youden(failed, gate.probability(features)))``.

    Features on disk are read twice, once to choose and once for what was chosen in any fold: problems x chosen x 4 bytes are
    kept, and a fit takes about problems x `n_features` x 20 bytes.

    Args:
        features: float32 ``[problem, layer, d_ff]``, activations of the last prompt token, or their mean over the prompt; an
            array, or :class:`trimtab.gating.RecordedRows` of a recording that does not fit into memory.
        failed: bool ``[problem]``, the unsteered model's own greedy response was incorrect.
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
        pooling=pooling,
        facts={
            "n_train": len(failed),
            "n_train_failed": int(failed.sum()),
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
