"""Choosing a strength on the validation split: every method that is compared gets the same chance to find its own."""

from collections.abc import Sequence

from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.workbench import GateSetting, Workbench
from trimtab.steering import Steering
from trimtab.traces import Problem, Split

PUBLISHED_STRENGTH = 0.3
"""AdaRAS's, in every released configuration."""


def strengths(bench: Workbench) -> tuple[float, ...]:
    """The strengths that a method may choose from: the grid of the run, the published one, and 1."""
    return tuple(sorted({PUBLISHED_STRENGTH, 1.0, *bench.tune.strengths}))


def best_strength(
    bench: Workbench,
    steering: Steering,
    gate: GateSetting = "on",
    label: str = "",
    problems: Sequence[Problem] | None = None,
) -> Steering:
    """The same steering at the strength with the highest accuracy on the validation split; ties go to the weakest.

    The bare model is no candidate: a method that cannot help is shown at its best all the same.

    Args:
        problems: of the validation split; by default as many as each point of the grid ran.
    """
    problems = bench.split(Split.VALIDATION)[: bench.tune.problems] if problems is None else problems
    candidates = [steering.with_strength(strength) for strength in strengths(bench)]
    return max(candidates, key=lambda candidate: accuracy(bench.answers(Split.VALIDATION, candidate, gate, problems, label)))


def accuracy(outcomes: Sequence[Outcome]) -> float:
    """Share of correct answers; one that could not be scored is not correct."""
    return sum(outcome.correct for outcome in outcomes) / len(outcomes)
