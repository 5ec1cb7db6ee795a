"""What the statistics return, as values that load neither numpy nor scipy."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

TestName = Literal["McNemar", "permutation"]
VerdictWord = Literal["helps", "no evidence", "hurts", "no verdict"]

UNSCORED_LIMIT = 0.01
"""Above this share of unscored responses there is no verdict."""


class Interval(NamedTuple):
    """A confidence interval, both ends included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval, both ends included."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """A condition against the base on the same n problems; all intervals are 95 %.

    One response a problem in both: Wilson's intervals, Newcombe's paired interval, exact McNemar. Several in either: accuracy
    is avg@k, the mean over problems of the share of correct responses; intervals are bootstrapped over problems, and p is that
    of the sign-flip permutation test over problems.

    Args:
        n: problems.
        base_accuracy, base_low, base_high: share the base solves, with its interval.
        accuracy, low, high: the same of the condition.
        gain, gain_low, gain_high: ``accuracy - base_accuracy`` as a fraction, with its paired interval.
        p: two-sided.
        fixed, broken: pairs of responses of which only the condition's, and only the base's, is correct. With one response in
            each a pair is a problem; with several it is a response that both have, the same problem, seed and sample.
        test: which test gave ``p``.
        base_k, k: responses per problem of the base and of the condition.
        pairs: how many pairs ``fixed`` and ``broken`` were counted over.
        standard_error: of the gain, from the differences between problems; None for a single problem.
    """

    n: int
    base_accuracy: float
    base_low: float
    base_high: float
    accuracy: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    p: float
    fixed: int
    broken: int
    test: TestName
    base_k: int
    k: int
    pairs: int
    standard_error: float | None
