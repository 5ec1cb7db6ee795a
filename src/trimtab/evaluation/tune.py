"""The verb ``tune``: choose criterion, intervention, K and strength on the validation split, and nothing else."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtab.errors import ConfigError
from trimtab.evaluation.conditions import Condition
from trimtab.evaluation.names import UNSTEERED
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.rows import TunePoint
from trimtab.evaluation.runner import condition_job
from trimtab.execution import LOCAL, Executor
from trimtab.gate import AnyGate
from trimtab.interventions import INTERVENTIONS
from trimtab.model import LanguageModel
from trimtab.neurons import Neurons
from trimtab.progress import Progress, silent
from trimtab.sampling import TRANSFORMERS, Generator, SamplingSettings
from trimtab.steering import PositionScope, Steering
from trimtab.store import AnyPath
from trimtab.tasks import CHAT, Grader, Prompt
from trimtab.traces import Problem, Split

InterventionName = Literal["add", "scale", "ablate", "interpolate", "softplus-add", "ablate-and-add"]


class TuneSettings(BaseModel):
    """The grid, fixed before anything is evaluated. ``problems`` bounds how many of the validation split each point runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    interventions: tuple[InterventionName, ...] = ("add",)
    k: tuple[int, ...] = (5, 20, 50)
    strengths: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0)
    scope: PositionScope = "generated"
    problems: int = Field(default=250, ge=1)


def tune(
    model: LanguageModel,
    rankings: Mapping[str, Neurons],
    gate: AnyGate,
    p_fail: Mapping[str, float],
    problems: Sequence[Problem],
    settings: TuneSettings,
    sampling: SamplingSettings,
    grader: Grader,
    folder: AnyPath,
    *,
    prompt: Prompt = CHAT,
    generator: Generator = TRANSFORMERS,
    executor: Executor = LOCAL,
    progress: Progress = silent,
) -> list[TunePoint]:
    """Run the grid on the validation split.

    With a hard gate a problem's chain is the steered one when the gate fires and the unsteered one when it does not, so one
    steered run serves both columns. A proportional gate steers each problem with its own strength and is run on its own.

    Args:
        rankings: one ranked set per criterion, with at least ``max(k)`` neurons.
        p_fail: the gate's probability by problem id.

    Raises:
        ConfigError: a problem outside the validation split.
    """
    wrong = {problem.split for problem in problems} - {Split.VALIDATION}
    if wrong:
        raise ConfigError(f"tune reads the validation split only; it was given problems of {', '.join(sorted(wrong))}")
    chosen = problems[: settings.problems]
    greedy = sampling.greedy()
    grid = {
        f"{criterion}-{intervention}-{k}-{strength:g}": (criterion, intervention, k, strength)
        for criterion, intervention, k, strength in product(rankings, settings.interventions, settings.k, settings.strengths)
    }
    proportional = gate.reads and gate.mode == "proportional"
    conditions = [Condition(UNSTEERED, None)]
    for name, (criterion, intervention, k, strength) in grid.items():
        steering = Steering.of(
            rankings[criterion].top(k), strength, settings.scope, gate, intervention=INTERVENTIONS[intervention]
        )
        conditions += [Condition(name, steering), *([Condition(_gated(name), steering, "auto")] if proportional else [])]
    jobs = {
        condition.name: condition_job(
            model, condition, chosen, greedy, grader, folder / condition.name, prompt=prompt, generator=generator
        )
        for condition in conditions
    }
    executor.run(model, list(jobs.values()), progress)
    outcomes = {name: job.outcomes() for name, job in jobs.items()}
    base = outcomes[UNSTEERED]
    fires = [p_fail[problem.id] >= gate.cutoff for problem in chosen] if gate.reads else [True] * len(chosen)
    points = []
    for name, point in grid.items():
        steered = outcomes[name]
        composed = [s if fire else b for b, s, fire in zip(base, steered, fires, strict=True)]
        gated = outcomes[_gated(name)] if proportional else composed
        points.append(TunePoint(*point, len(base), *map(_accuracy, (base, steered, gated))))
    return points


def _gated(name: str) -> str:
    return f"{name}-gated"


def _accuracy(outcomes: Sequence[Outcome]) -> float:
    return sum(outcome.correct for outcome in outcomes) / len(outcomes)


def best_point(points: Sequence[TunePoint], criterion: str | None = None, intervention: str | None = None) -> TunePoint:
    """The point with the highest gated accuracy; on a tie the fewest neurons, then the weakest strength."""
    candidates = [p for p in points if criterion in (None, p.criterion) and intervention in (None, p.intervention)]
    return min(candidates, key=lambda p: (-p.gated, p.k, abs(p.strength), p.criterion, p.intervention))
