"""The section ``[evaluation]`` of a settings file, and the grid that ``tune`` tries on the validation split."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trimtab.evaluation.finetune_training import SftSettings, TrainedSettings
from trimtab.evaluation.rows import TunePoint
from trimtab.steering import PositionScope
from trimtab.traces import Split

Baseline = Literal["prompt-only", "majority", "sft-lora", "direction", "trained"]
Control = Literal["random", "negative", "again", "first-token"]
RunningCondition = Literal["running", "both-gates", "running-random"]


class EvaluationSettings(BaseModel):
    """Settings of an evaluation on the test split.

    Args:
        random_sets: random sets of neurons as controls, of each kind.
        controls: what must not help: ``random`` sets of neurons, and the ``negative`` strength. ``again`` is the unsteered model
            once more in other batches (A/A), ``first-token`` the bare model behind the beginning that steering chose.
        control_problems: at most this many problems for ``again`` and ``first-token``; 0 for all.
        batch_tokens: of ``again``; 0 makes batches of half as many rows.
        first_tokens: how many tokens that steering decides are forced in ``first-token``.
        baselines: cheap alternatives to steering: ``prompt-only`` asks with ``instruction``, ``majority`` votes over
        ``votes``
            sampled responses, ``sft-lora`` fine-tunes on the correct traces of the contrast, ``direction`` adds the difference
            of class means to the residual stream, at the layer and strength that are best on the validation split,
            ``trained`` learns gains and shifts of the steered neurons from the correct traces.
        gates: conditions behind a running gate, which is fitted for them: ``running`` alone, ``both-gates`` together with the
            question's as ``running_gate.join`` says, and their control ``running-random``, which opens at the tokens at which
            ``running`` does, drawn at random.
        n, seeds: responses per problem and seed. One response at ``temperature`` 0 is greedy; a problem has ``n * len(seeds)``.
        split: ``test``, unless an artifact is looked at elsewhere.
        alpha: two-sided level of the verdict.
        seed: of the random sets.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    random_sets: int = Field(default=5, ge=5)
    controls: tuple[Control, ...] = ("random", "negative", "again", "first-token")
    control_problems: int = Field(default=0, ge=0)
    batch_tokens: int = Field(default=0, ge=0)
    first_tokens: int = Field(default=1, ge=1)
    baselines: tuple[Baseline, ...] = ()
    gates: tuple[RunningCondition, ...] = ()
    sft: SftSettings = SftSettings()
    trained: TrainedSettings = TrainedSettings()
    instruction: str = "{question}\nCheck each step."
    votes: int = Field(default=8, ge=2)
    n: int = Field(default=1, ge=1)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    temperature: float = Field(default=0.0, ge=0.0)
    split: Split = Split.TEST
    alpha: float = Field(default=0.05, gt=0.0, lt=1.0)
    seed: int = 0

    @model_validator(mode="after")
    def _responses_differ(self) -> Self:
        if self.n * len(self.seeds) > 1 and not self.temperature:
            raise ValueError(
                f"evaluation.n {self.n} and seeds {self.seeds} ask for several responses a problem, which are all "
                "the same at temperature 0; set evaluation.temperature"
            )
        if "running-random" in self.gates and "running" not in self.gates:
            raise ValueError("evaluation.gates names 'running-random', which draws from the tokens of 'running'; name that too")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"evaluation.seeds {self.seeds} holds one seed twice")
        if self.instruction.count("{question}") != 1:
            raise ValueError(f"evaluation.instruction must hold {{question}} exactly once, got {self.instruction!r}")
        return self


InterventionName = Literal["add", "scale", "ablate", "interpolate", "softplus-add", "ablate-and-add"]


class TuneSettings(BaseModel):
    """The grid, fixed before anything is evaluated. ``problems`` bounds how many of the validation split each point runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    interventions: tuple[InterventionName, ...] = ("add",)
    k: tuple[int, ...] = (5, 20, 50)
    strengths: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0)
    scope: PositionScope = "generated"
    problems: int = Field(default=250, ge=1)


class DirectionSettings(BaseModel):
    """The grid of the baseline ``direction``; scope and problems are those of ``[tune]``.

    Args:
        layers: after which the direction may be added; none are eight of the model's, evenly spaced, or all where it has fewer.
        strengths: multiples of the difference of class means.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: tuple[int, ...] = ()
    strengths: tuple[float, ...] = Field(default=(0.5, 1.0, 2.0, 4.0), min_length=1)


def best_point(points: Sequence[TunePoint], criterion: str | None = None, intervention: str | None = None) -> TunePoint:
    """The point with the highest gated accuracy; on a tie the fewest neurons, then the weakest strength."""
    candidates = [p for p in points if criterion in (None, p.criterion) and intervention in (None, p.intervention)]
    return min(candidates, key=lambda p: (-p.gated, p.k, abs(p.strength), p.criterion, p.intervention))
