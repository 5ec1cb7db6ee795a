"""trimtab: find the few neurons that decide whether a model reasons correctly, steer them when it fails, test whether it helped.

Importing this package loads neither torch nor transformers; each name is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.comparison import compare
    from trimtab.findings import Findings, Frame
    from trimtab.gate import ALWAYS, NEVER, Gate
    from trimtab.model import LanguageModel, attach, check_model, open_model
    from trimtab.neurons import ModelIdentity, Neurons
    from trimtab.report.data import Report, read_report
    from trimtab.steering import Steering
    from trimtab.study import DEMO, Evaluation, Settings, Study, load_settings, run
    from trimtab.traces import Problem, Score, Trace

__version__ = "0.1.0"

_HOMES = {
    "trimtab.comparison": ("compare",),
    "trimtab.gate": ("ALWAYS", "NEVER", "Gate"),
    "trimtab.model": ("LanguageModel", "attach", "check_model", "open_model"),
    "trimtab.neurons": ("ModelIdentity", "Neurons"),
    "trimtab.report.data": ("Report", "read_report"),
    "trimtab.steering": ("Steering",),
    "trimtab.study": ("DEMO", "Evaluation", "Settings", "Study", "load_settings", "run"),
    "trimtab.findings": ("Findings", "Frame"),
    "trimtab.traces": ("Problem", "Trace", "Score"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ALWAYS",
    "DEMO",
    "NEVER",
    "Evaluation",
    "Findings",
    "Frame",
    "Gate",
    "LanguageModel",
    "ModelIdentity",
    "Neurons",
    "Problem",
    "Report",
    "Score",
    "Settings",
    "Steering",
    "Study",
    "Trace",
    "attach",
    "check_model",
    "compare",
    "load_settings",
    "open_model",
    "read_report",
    "run",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'trimtab' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
