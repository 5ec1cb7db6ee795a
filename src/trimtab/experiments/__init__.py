"""Experiments: each a function from a finished search to a :class:`trimtab.findings.Findings`."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from trimtab.experiments.ablate import ablate
from trimtab.experiments.analyse import analyse
from trimtab.experiments.causal import causal
from trimtab.experiments.domains import domains, transfer
from trimtab.experiments.monitor import monitor
from trimtab.experiments.search import Search
from trimtab.experiments.settings import EXPERIMENT_NAMES, ExperimentName, ExperimentSettings
from trimtab.experiments.stability import stability
from trimtab.experiments.sweep import sweep
from trimtab.experiments.transfer_model import transfer_model
from trimtab.findings import Findings
from trimtab.traces import Split


class Experiment(NamedTuple):
    """How to run one, and the splits that it may read: those that are not named are kept from it."""

    run: Callable[[Search], Findings]
    reads: frozenset[Split]


_ALL = frozenset(Split)
_SEARCH = frozenset((Split.TRAIN, Split.VALIDATION))
EXPERIMENTS: Mapping[ExperimentName, Experiment] = MappingProxyType(
    {
        "ablate": Experiment(ablate, _ALL),
        "sweep": Experiment(sweep, _SEARCH),
        "stability": Experiment(stability, frozenset((Split.TRAIN, Split.TEST))),
        "causal": Experiment(causal, _ALL),
        "monitor": Experiment(monitor, _ALL),
        "analyse": Experiment(analyse, _SEARCH),
        "transfer": Experiment(transfer, _ALL),
        "domains": Experiment(domains, frozenset((Split.TRAIN, Split.TEST))),
        "transfer-model": Experiment(transfer_model, _ALL),
    }
)

__all__ = [
    "EXPERIMENTS",
    "EXPERIMENT_NAMES",
    "Experiment",
    "ExperimentName",
    "ExperimentSettings",
    "Search",
]
