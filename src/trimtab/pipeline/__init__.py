"""The whole pipeline from one configuration."""

from trimtab.pipeline.config import DEMO, STAGES, RunConfig, Stage, load_config, with_engine, with_executor
from trimtab.pipeline.line import Line
from trimtab.pipeline.whole import check_until, run, run_one

__all__ = [
    "DEMO",
    "STAGES",
    "Line",
    "RunConfig",
    "Stage",
    "check_until",
    "load_config",
    "run",
    "run_one",
    "with_engine",
    "with_executor",
]
