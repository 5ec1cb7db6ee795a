"""The verdict's part of a report: the judgement, and the conditions taken apart by groups."""

from pydantic import ConfigDict, Field

from trimtab.evaluation.names import BreakdownBy
from trimtab.evaluation.rows import Average, GroupRow
from trimtab.stats.values import VerdictWord
from trimtab.store import Record


class Section(Record):
    """Base of every section: frozen, no unknown key, no NaN. A list is taken for a tuple, which JSON does not have."""

    model_config = ConfigDict(strict=False)


class UnscoredBounds(Section):
    """Accuracies and gain with every unscored chain counted against the condition, and for it."""

    base_low: float
    base_high: float
    condition_low: float
    condition_high: float
    gain_low: float
    gain_high: float


class VerdictReport(Section):
    """The judgement of one condition against the unsteered model.

    Args:
        condition: the condition that is judged.
        sentence: :attr:`trimtab.evaluation.verdict.VerdictSentence.sentence`.
        minimum_detectable_gain: as a fraction; None when n problems could show no gain of any size.
        bounds: None when every response was scored.
    """

    word: VerdictWord
    sentence: str
    n: int = Field(ge=1)
    minimum_detectable_gain: float | None
    condition: str = "gated"
    split: str = "test"
    bounds: UnscoredBounds | None = None


class BreakdownReport(Section):
    """:class:`trimtab.evaluation.breakdown.Breakdown`, field by field: the verdict by domain or by difficulty."""

    by: BreakdownBy
    rows: tuple[GroupRow, ...] = Field(min_length=1)
    averages: tuple[Average, ...]
