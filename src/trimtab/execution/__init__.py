"""Execution: the parts of a stage are computed by this process, by several on its cores, or by the actors of a Ray cluster."""

from trimtab.execution.job import LOCAL, Executor, ExecutorSettings, Job, LocalExecutor, with_choice
from trimtab.execution.process_executor import ProcessExecutor

__all__ = ["LOCAL", "Executor", "ExecutorSettings", "Job", "LocalExecutor", "ProcessExecutor", "with_choice"]
