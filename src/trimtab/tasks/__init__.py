"""Tasks: where problems come from, how they are put to a model, and how answers are graded."""

from trimtab.tasks.answers import final_answer
from trimtab.tasks.graders import ExactGrader, Grader, grade_traces
from trimtab.tasks.problems import load_problems
from trimtab.tasks.prompts import Rendering, render_prompt

__all__ = ["ExactGrader", "Grader", "Rendering", "final_answer", "grade_traces", "load_problems", "render_prompt"]
