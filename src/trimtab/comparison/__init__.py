"""A paired verdict on two result files, whichever tool wrote them: numpy, scipy and pyarrow, no model and no torch."""

from trimtab.comparison.pairing import Difference, Flip
from trimtab.comparison.results import Results, ScoredResponse, TaskResults
from trimtab.comparison.verdict import Against, Comparison, Input, MacroAverage, TaskVerdict, compare

__all__ = [
    "Against",
    "Comparison",
    "Difference",
    "Flip",
    "Input",
    "MacroAverage",
    "Results",
    "ScoredResponse",
    "TaskResults",
    "TaskVerdict",
    "compare",
]
