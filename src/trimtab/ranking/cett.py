"""The criterion ``cett``: neurons whose share of what the FFN writes tells incorrect from correct responses, one trace a row."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.ranking.contrast import ClassMoments, TraceContributions
from trimtab.ranking.criteria import Ranking, criterion, needed, sort_neurons

Sign = Literal["incorrect", "correct", "both"]
LONGEST_PATH = 200
"""The path ends when this many neurons were taken up ..."""
WEAKEST = 1000.0
"""... or when C is this many times the C of its start."""
STEP = 2**0.5
_SLACK = 1e-3
"""A neuron left out may exceed the optimality condition by this share: liblinear stops at a tolerance, too."""


@criterion("cett", needs={"contribution"})
def cett(moments: ClassMoments, /, *, sign: Sign = "incorrect") -> Ranking:
    """H-Neurons (arXiv 2512.01797): neurons that an L1 logistic regression of incorrect on CETT takes up, the first ones first.

    ``CETT_j = mean over the tokens of a trace of |a_j| * norm(W[:, j]) / norm(FFN output)``, one row a trace, label 1 for
    incorrect. As published, the regression is scikit-learn's liblinear with the L1 penalty, on CETT as it is. The source takes
    one C and keeps every positive weight, under 0.1 % of the neurons. Here C goes up by half octaves from where the first
    weight may leave 0, and a neuron's score is ``C_start / C`` of the fit that takes it up, ties by the size of its weight
    there: the best k are what the source's rule selects at a C with about k weights, for every k.

    The tokens are those of the ranking's scope, the response by default. The source has another model mark the tokens of the
    answer, or takes all of the output. It adds rows of other tokens labelled 0 (3-vs-1); here a trace is one row, its 1-vs-1.
    In a mixture of experts a_j is times the routing weight of its expert, 0 where a token is not routed to it, and the output
    is that of the experts together.

    Args:
        moments: with contributions, and with ``column_norm``.
        sign: ``incorrect`` takes neurons of positive weights, which write more in incorrect traces: the H-Neurons. ``correct``
            those of negative weights, ``both`` all.

    Raises:
        InputError: an unknown sign, contributions were not recorded, or ``column_norm`` was not filled.
    """
    if sign not in ("incorrect", "correct", "both"):
        raise InputError(f"criterion 'cett' got the sign {sign!r}; accepted: incorrect, correct, both")
    columns = needed(moments.column_norm, "column_norm", "cett")
    data = _Rows.of(needed(moments.contributions, "contribution", "cett"), columns)
    eligible = (moments.comparable & (columns > 0)).ravel()
    score, size = np.zeros(eligible.size), np.zeros(eligible.size)
    tried: list[float] = []
    for step in _path(data, np.flatnonzero(eligible)):
        tried.append(step.c)
        wanted = {"incorrect": step.weight > 0, "correct": step.weight < 0, "both": step.weight != 0}[sign]
        new = wanted & (score == 0)
        score[new], size[new] = step.start / step.c, np.abs(step.weight[new])
        if (score > 0).sum() >= LONGEST_PATH:
            break
    facts = {"sign": sign, "taken_up": int((score > 0).sum()), "c": tried}
    shape = moments.correct_mean.shape
    return sort_neurons((score > 0).reshape(shape), score.reshape(shape), size.reshape(shape), facts=facts)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """CETT of every trace, float32 ``[trace, layer * d_ff]``, with its label and how often it counts."""

    value: NDArray[np.float32]
    incorrect: NDArray[np.bool_]
    times: NDArray[np.float64]

    @classmethod
    def of(cls, traces: TraceContributions, columns: NDArray[np.float64]) -> "_Rows":
        taken = traces.times > 0
        value = traces.value[:, taken] * columns[:, None].astype(np.float32)
        flat = value.transpose(1, 0, 2).reshape(int(taken.sum()), -1)
        return cls(np.ascontiguousarray(flat), ~traces.correct[taken], traces.times[taken].astype(np.float64))

    def gradient(self, logit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the log loss by each weight, at these logits; summed in one order, whatever the number of threads."""
        residual = self.times * (1 / (1 + np.exp(-logit)) - self.incorrect)
        return np.einsum("tn,t->n", self.value, residual)


class _Step(NamedTuple):
    """One fit: C of the path's start, C of the fit, and the weights, float64 ``[neuron]``."""

    start: float
    c: float
    weight: NDArray[np.float64]


def _path(data: _Rows, eligible: NDArray[np.int64]) -> Iterator[_Step]:
    """Fits of growing C, each the whole problem's solution, though it works on the few neurons that may be in it.

    Sequential strong rules (Tibshirani et al. 2012) choose them, and every neuron left out is checked against the optimality
    condition ``|gradient| <= 1 / C`` afterwards. The path ends early at a fit that does not converge.
    """
    gradient = data.gradient(np.zeros(len(data.value)))
    steepest = float(np.abs(gradient[eligible]).max(initial=0.0))
    if steepest == 0:
        return
    start, c = 1 / steepest, STEP / steepest  # at the start itself every weight is 0
    before, weight = steepest, np.zeros(data.value.shape[1])
    while c <= start * WEAKEST * (1 + 1e-9):
        active = eligible[(np.abs(gradient[eligible]) >= 2 / c - before) | (weight[eligible] != 0)]
        while True:
            fitted = _fit(data, active, c)
            if fitted is None:
                return
            weight, logit = fitted
            gradient = data.gradient(logit)
            missed = np.setdiff1d(eligible[np.abs(gradient[eligible]) > (1 + _SLACK) / c], active)
            if not len(missed):
                break
            active = np.union1d(active, missed)
        yield _Step(start, c, weight)
        before, c = 1 / c, c * STEP


def _fit(data: _Rows, active: NDArray[np.int64], c: float) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Weights of all neurons and logits of all traces; None where liblinear does not converge."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    weight = np.zeros(data.value.shape[1])
    matrix = data.value[:, active].astype(np.float64)
    if not len(active):
        return weight, np.zeros(len(matrix))
    model = LogisticRegression(l1_ratio=1.0, solver="liblinear", C=c, max_iter=1000, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(matrix, data.incorrect, sample_weight=data.times)
        except ConvergenceWarning:
            return None
    weight[active] = np.ravel(model.coef_)
    return weight, matrix @ weight[active] + np.ravel(model.intercept_).item()
