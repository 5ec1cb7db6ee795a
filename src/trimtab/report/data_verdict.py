"""The verdict's part of a report: the judgement, the rows of the arms, and both taken apart by groups."""

from typing import Literal

from pydantic import ConfigDict, Field

from trimtab.evaluation.names import BreakdownBy, TestName, VerdictWord
from trimtab.store import Record


class Section(Record):
    """Base of every section: frozen, no unknown key, no NaN. A list is taken for a tuple, which JSON does not have."""

    model_config = ConfigDict(strict=False)


class UnscoredBounds(Section):
    """Accuracies and gain with every unscored chain counted against the arm, and for it."""

    base_low: float
    base_high: float
    arm_low: float
    arm_high: float
    gain_low: float
    gain_high: float


class VerdictReport(Section):
    """The judgement of one arm against the unsteered model.

    Args:
        arm: the arm that is judged.
        sentence: :attr:`trimtab.evaluation.verdict.VerdictSentence.sentence`.
        minimum_detectable_gain: as a fraction; None when n problems could show no gain of any size.
        bounds: None when every chain was scored.
    """

    word: VerdictWord
    sentence: str
    n: int = Field(ge=1)
    minimum_detectable_gain: float | None
    arm: str = "gated"
    split: str = "test"
    bounds: UnscoredBounds | None = None


class ArmRow(Section):
    """:class:`trimtab.evaluation.summary.ArmSummary`, field by field."""

    arm: str
    n: int
    k: int
    accuracy: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    p: float
    test: TestName
    p_holm: float | None
    minimum_detectable_gain: float | None
    fixed: int
    broken: int
    pairs: int
    pass_at_k: float | None
    unscored: int
    truncated: int
    disagreements: int
    tokens_per_answer: float
    firing_rate: float | None
    steps_right: float | None


class ComparisonRow(Section):
    """:class:`trimtab.evaluation.statistics.PairedComparison`, field by field."""

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


class GroupRow(Section):
    """:class:`trimtab.evaluation.breakdown.GroupRow`, field by field."""

    group: str
    word: VerdictWord
    comparison: ComparisonRow
    p_holm: float
    minimum_detectable_gain: float | None
    base_unscored: int
    unscored: int


class MeanRow(Section):
    """:class:`trimtab.evaluation.breakdown.Mean`, field by field."""

    value: float
    low: float | None
    high: float | None


class AverageRow(Section):
    """:class:`trimtab.evaluation.breakdown.Average`, field by field."""

    name: Literal["micro", "macro"]
    groups: int
    base: MeanRow
    arm: MeanRow
    gain: MeanRow


class BreakdownReport(Section):
    """:class:`trimtab.evaluation.breakdown.Breakdown`, field by field: the verdict by domain or by difficulty."""

    by: BreakdownBy
    rows: tuple[GroupRow, ...] = Field(min_length=1)
    averages: tuple[AverageRow, ...]
