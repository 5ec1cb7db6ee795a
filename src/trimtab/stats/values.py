"""What the statistics return, as values that load neither numpy nor scipy."""

from dataclasses import asdict, dataclass
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
        standard_error: of the gain, from the differences between problems, or clusters; None for a single one.
        clusters: of near-duplicate problems, each of which the test and the gain's interval take as one; None where no problem
            has a near-duplicate.
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
    clusters: int | None = None


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
        difference: ``auroc - text_auroc`` with DeLong's paired interval.
        brier, text_brier: mean squared error of p(fail).
        calibration: up to 10 bins at the quantiles of p(fail).
        roc: (false positive rate, true positive rate) from (0, 0) to (1, 1).

    ``text_auroc``, ``difference`` and ``text_brier`` are None where no text-only baseline was fitted.
    """

    n: int
    n_failed: int
    auroc: Estimate
    text_auroc: Estimate | None
    difference: Estimate | None
    brier: float
    text_brier: float | None
    calibration: tuple[CalibrationBin, ...]
    roc: tuple[tuple[float, float], ...]

    @property
    def beats_text(self) -> bool:
        """Whether the whole interval of the difference lies above 0."""
        return self.difference is not None and self.difference.low > 0

    def to_json(self) -> dict[str, object]:
        """A dictionary of plain numbers, lists and dictionaries."""
        return {**asdict(self), "beats_text": self.beats_text, "roc": [list(point) for point in self.roc]}


@dataclass(frozen=True, slots=True)
class TimePoint:
    """A running gate once a share of each response was read.

    Args:
        share: of the response's tokens.
        auroc: with DeLong's interval.
        length_auroc, text_auroc: of the number of tokens so far, and of the words so far.
        difference: ``auroc - text_auroc`` with DeLong's paired interval.
        warned: share of the failing responses that were warned of by then.
        false_alarms: share of the correct ones that were.
    """

    share: float
    auroc: Estimate
    length_auroc: Estimate | None
    text_auroc: Estimate | None
    difference: Estimate | None
    warned: float
    false_alarms: float


@dataclass(frozen=True, slots=True)
class RunningAssessment:
    """A running gate's figures on responses that it was not fitted on, by time.

    Args:
        n, n_failed: responses, and how many of them failed.
        threshold, after: it warns at the first token, from ``after`` on, whose p is the threshold or more.
        points: by share of the response.
        lead: lower quartile, median and upper quartile of the tokens from the warning to the end, over failing responses that
            were warned of; None where there is none.
        left: median share of such a response that is left then.
    """

    n: int
    n_failed: int
    threshold: float
    after: int
    points: tuple[TimePoint, ...]
    lead: tuple[float, ...] | None
    left: float | None

    def to_json(self) -> dict[str, object]:
        """A dictionary of plain numbers, lists and dictionaries."""
        lead = None if self.lead is None else list(self.lead)
        return {**asdict(self), "points": [asdict(point) for point in self.points], "lead": lead}
