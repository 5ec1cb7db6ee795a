"""Execution: who computes the parts of a stage, this process or the actors of a Ray cluster."""

from trimtab.execution.job import Executor, Job
from trimtab.execution.local import LOCAL, LocalExecutor
from trimtab.execution.settings import ExecutorSettings, with_choice

__all__ = ["LOCAL", "Executor", "ExecutorSettings", "Job", "LocalExecutor", "with_choice"]
