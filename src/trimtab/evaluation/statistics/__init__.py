"""Paired statistics of two conditions on the same problems. Every distribution comes from scipy."""

from trimtab.evaluation.statistics.comparison import PairedComparison, compare, gain_p, smallest_gain
from trimtab.evaluation.statistics.counts import (
    holm,
    mcnemar_exact,
    mcnemar_one_sided,
    newcombe_paired,
    square_and_add,
    wilson,
)
from trimtab.evaluation.statistics.power import mcnemar_power, minimum_detectable_gain, permutation_detectable_gain
from trimtab.evaluation.statistics.samples import bootstrap_macro, bootstrap_mean, mean_pass_at, pass_at_k, sign_flip_p
from trimtab.gating.discrimination import Interval, auroc, delong_difference, delong_interval

__all__ = [
    "Interval",
    "PairedComparison",
    "auroc",
    "bootstrap_macro",
    "bootstrap_mean",
    "compare",
    "delong_difference",
    "delong_interval",
    "gain_p",
    "holm",
    "mcnemar_exact",
    "mcnemar_one_sided",
    "mcnemar_power",
    "mean_pass_at",
    "minimum_detectable_gain",
    "newcombe_paired",
    "pass_at_k",
    "permutation_detectable_gain",
    "sign_flip_p",
    "smallest_gain",
    "square_and_add",
    "wilson",
]
