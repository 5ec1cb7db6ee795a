"""What the parts that a target leaves out are worth: by the hooks, the full steering against what is exported."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from trimtab.evaluation.arms import Arm
from trimtab.evaluation.runner import evaluate_arm
from trimtab.export.record import DropCost
from trimtab.export.sequences import answered
from trimtab.export.transformers_engine import hooks_engine
from trimtab.model import OpenModel
from trimtab.sampling import SamplingSettings
from trimtab.steering import Steering
from trimtab.tasks import Prompt
from trimtab.tasks.grading.grade import KindGrader
from trimtab.traces import Problem, Verdict


def cost_of(
    opened: OpenModel,
    full: Steering,
    reduced: Steering,
    questions: Sequence[str],
    problems: Sequence[Problem],
    prompt: Prompt,
    max_new_tokens: int,
) -> DropCost:
    """The distance of the effects on the logits and, where problems are given, both accuracies (greedy, one chain each)."""
    distance = _distance(opened, full, reduced, questions, max_new_tokens)
    if not problems:
        return DropCost(distance=distance)
    accuracies = [_accuracy(opened, steering, problems, prompt, max_new_tokens) for steering in (full, reduced)]
    return DropCost(distance=distance, problems=len(problems), accuracy_full=accuracies[0], accuracy_reduced=accuracies[1])


def _distance(
    opened: OpenModel, full: Steering, reduced: Steering, questions: Sequence[str], max_new_tokens: int
) -> float | None:
    whole, part = hooks_engine(opened, full), hooks_engine(opened, reduced)
    difference = size = 0.0
    for sequence in answered(opened, full, questions, max_new_tokens):
        bare, steered = whole.bare(sequence).double(), whole.steered(sequence).double()
        difference += float((part.steered(sequence).double() - steered).square().sum())
        size += float((steered - bare).square().sum())
    return (difference / size) ** 0.5 if size else None


def _accuracy(opened: OpenModel, steering: Steering, problems: Sequence[Problem], prompt: Prompt, max_new_tokens: int) -> float:
    settings = SamplingSettings(n=1, temperature=0.0, max_new_tokens=max_new_tokens)
    arm = Arm("steered", steering, "auto")
    with TemporaryDirectory() as scratch, KindGrader() as grader:
        outcomes = evaluate_arm(opened, arm, problems, settings, grader, Path(scratch) / "parts", prompt=prompt)
    return sum(outcome.verdict is Verdict.CORRECT for outcome in outcomes) / len(outcomes)
