"""Evaluation: conditions, runner, paired statistics and the verdict."""
