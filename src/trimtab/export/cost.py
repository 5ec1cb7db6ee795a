"""What the parts that a target leaves out are worth: by the hooks, the full steering against what is exported."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from trimtab.evaluation.conditions import Condition
from trimtab.evaluation.runner import evaluate_condition
from trimtab.export.record import DropCost
from trimtab.export.sequences import answered
from trimtab.export.transformers_engine import hooks_engine
from trimtab.model import LanguageModel
from trimtab.sampling import SamplingSettings
from trimtab.steering import Steering
from trimtab.tasks import Prompt
from trimtab.tasks.grading.grade import KindGrader
from trimtab.traces import Problem, Verdict


def cost_of(
    model: LanguageModel,
    full: Steering,
    reduced: Steering,
    questions: Sequence[str],
    problems: Sequence[Problem],
    prompt: Prompt,
    max_new_tokens: int,
) -> DropCost:
    """The distance of the effects on the logits and, where problems are given, both accuracies (greedy, one response each)."""
    distance = _distance(model, full, reduced, questions, max_new_tokens)
    if not problems:
        return DropCost(distance=distance)
    accuracies = [_accuracy(model, steering, problems, prompt, max_new_tokens) for steering in (full, reduced)]
    return DropCost(distance=distance, problems=len(problems), accuracy_full=accuracies[0], accuracy_reduced=accuracies[1])


def _distance(
    model: LanguageModel, full: Steering, reduced: Steering, questions: Sequence[str], max_new_tokens: int
) -> float | None:
    whole, part = hooks_engine(model, full), hooks_engine(model, reduced)
    difference = size = 0.0
    for sequence in answered(model, full, questions, max_new_tokens):
        bare, steered = whole.bare(sequence).double(), whole.steered(sequence).double()
        difference += float((part.steered(sequence).double() - steered).square().sum())
        size += float((steered - bare).square().sum())
    return (difference / size) ** 0.5 if size else None


def _accuracy(
    model: LanguageModel, steering: Steering, problems: Sequence[Problem], prompt: Prompt, max_new_tokens: int
) -> float:
    settings = SamplingSettings(n=1, temperature=0.0, max_new_tokens=max_new_tokens)
    condition = Condition("steered", steering, "auto")
    with TemporaryDirectory() as scratch, KindGrader() as grader:
        outcomes = evaluate_condition(model, condition, problems, settings, grader, Path(scratch) / "parts", prompt=prompt)
    return sum(outcome.verdict is Verdict.CORRECT for outcome in outcomes) / len(outcomes)
