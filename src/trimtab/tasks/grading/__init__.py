"""Grading: one grader per kind of answer, behind one Protocol."""

from trimtab.tasks.grading.grade import KindGrader, grade_traces, read_label
from trimtab.tasks.grading.grader import Grader, Judgement
from trimtab.tasks.grading.text import ExactGrader, final_answer

__all__ = ["ExactGrader", "Grader", "Judgement", "KindGrader", "final_answer", "grade_traces", "read_label"]
