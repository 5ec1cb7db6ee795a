"""Execution: the parts of a stage are computed by this process or by the actors of a Ray cluster."""

from trimtab.execution.job import LOCAL, Executor, ExecutorSettings, Job, LocalExecutor, with_choice

__all__ = ["LOCAL", "Executor", "ExecutorSettings", "Job", "LocalExecutor", "with_choice"]
