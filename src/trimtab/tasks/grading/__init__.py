"""Grading: one grader per kind of answer, behind one Protocol."""

from trimtab.tasks.grading.answers import final_answer
from trimtab.tasks.grading.by_kind import KindGrader
from trimtab.tasks.grading.exact import ExactGrader
from trimtab.tasks.grading.grader import Grader, Judgement
from trimtab.tasks.grading.traces import grade_traces, read_label

__all__ = ["ExactGrader", "Grader", "Judgement", "KindGrader", "final_answer", "grade_traces", "read_label"]
