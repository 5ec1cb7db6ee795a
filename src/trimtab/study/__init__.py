"""One study drives everything: notebook, command line, settings files and experiments."""

from trimtab.study.base import RUN_FILE, open_configured
from trimtab.study.run import run, run_stage
from trimtab.study.settings import (
    DEMO,
    STAGES,
    Settings,
    Stage,
    check_until,
    load_settings,
    parse_settings,
    with_engine,
    with_executor,
)
from trimtab.study.study import Study
from trimtab.study.values import Evaluation, Problems, Traces, Tuning

__all__ = [
    "DEMO",
    "RUN_FILE",
    "STAGES",
    "Evaluation",
    "Problems",
    "Settings",
    "Stage",
    "Study",
    "Traces",
    "Tuning",
    "check_until",
    "load_settings",
    "open_configured",
    "parse_settings",
    "run",
    "run_stage",
    "with_engine",
    "with_executor",
]
