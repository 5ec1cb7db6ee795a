"""Tasks: where problems come from, how they are put to a model, and how answers are graded."""

from trimtab.tasks.grading import ExactGrader, Grader, Judgement, final_answer, grade_traces
from trimtab.tasks.loading import load_problems
from trimtab.tasks.prompts import CHAT, Prompt, render_prompt

__all__ = [
    "CHAT",
    "ExactGrader",
    "Grader",
    "Judgement",
    "Prompt",
    "final_answer",
    "grade_traces",
    "load_problems",
    "render_prompt",
]
