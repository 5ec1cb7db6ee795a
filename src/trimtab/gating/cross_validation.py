"""Logistic regression with a cross-validated penalty and a calibrated logit: shared by gates and text baseline."""

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from trimtab.errors import NotEnoughDataError

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
            "or use gate 'always'"
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
    platt.fit(copies, labels, sample_weight=np.concatenate([target, 1 - target]))
    (slope,), intercept = _line(platt)
    if slope <= 0:
        logger.warning("held-out logits run against the labels (slope %.2g): the gate knows only the base rate", slope)
        return constant
    return Calibration(float(slope), intercept)


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
    for c in INVERSE_PENALTIES[penalty]:
        model.set_params(C=c).fit(matrix, failed)
        lines.append(_line(model))
    return lines
