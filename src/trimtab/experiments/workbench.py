"""What every experiment works with: the model, the found steering, the stored activations, and answers that are run only once."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.evaluation.conditions import Condition
from trimtab.evaluation.names import UNSTEERED
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.runner import evaluate_condition
from trimtab.evaluation.tune import TunePoint, TuneSettings
from trimtab.experiments.settings import ExperimentSettings
from trimtab.gate import ALWAYS
from trimtab.interventions import INTERVENTIONS, Intervention
from trimtab.model import LanguageModel, down_weights
from trimtab.moments import TokenScope
from trimtab.neurons import Neurons
from trimtab.progress import Progress, silent
from trimtab.ranking import (
    CRITERIA,
    DEFAULT_STATISTICS,
    NEEDS,
    ClassMoments,
    Ranking,
    Statistic,
    column_norms,
    rank,
    recorded_class_moments,
)
from trimtab.recording import Recording
from trimtab.sampling import TRANSFORMERS, Generator, SamplingSettings
from trimtab.steering import PositionScope, Steering
from trimtab.store import AnyPath
from trimtab.tasks import Grader, Prompt
from trimtab.tasks.contrast import ContrastRow
from trimtab.tasks.grading.grade import StepChecker
from trimtab.traces import Grade, Problem, Split, Trace

GateSetting = Literal["auto", "on"]
STATISTICS: frozenset[Statistic] = frozenset(("magnitude", "square", "difference", "auroc"))


@dataclass(frozen=True)
class Workbench:
    """A finished search: what was found, on what, and how answers are made and graded.

    Args:
        problems: by split; a split that an experiment must not read is left out.
        steering: what ``tune`` chose, behind its gate.
        points: the grid that it was chosen from.
        contrast, recording: the traces that are compared, and their stored moments in ``scope``.
        traces, grades: all sampled traces of the train split and their grades, the contrast's among them.
        sampling: greedy; one response a problem.
        folder: where answers are kept. They are named by what was attached, so experiments share them.
        known: answers that an earlier stage left, by split and :func:`answer_key`.
        prompts: recorded prompts of the train and validation problems; empty where the run fitted no gate.
        failed: bool ``[problem]`` of the same splits, the gate's labels: the unsteered model's greedy answer is not correct.
        gate_features: how many neurons the run lets a gate read.
        generator: what answers; the same that gave the known answers.
    """

    model: LanguageModel
    problems: Mapping[Split, Sequence[Problem]]
    steering: Steering
    points: Sequence[TunePoint]
    contrast: Sequence[ContrastRow]
    recording: Recording
    scope: TokenScope
    traces: Sequence[Trace]
    grades: Sequence[Grade]
    sampling: SamplingSettings
    prompt: Prompt
    tune: TuneSettings
    settings: ExperimentSettings
    grader: Grader
    folder: AnyPath
    checker: StepChecker | None = None
    progress: Progress = silent
    known: Mapping[tuple[Split, str], Sequence[Outcome]] = field(default_factory=dict)
    prompts: Mapping[Split, Recording] = field(default_factory=dict)
    failed: Mapping[Split, NDArray[np.bool_]] = field(default_factory=dict)
    gate_features: int = 4096
    generator: Generator = TRANSFORMERS

    @property
    def criterion(self) -> str:
        """The criterion that ``tune`` chose."""
        return str(self.steering.facts["criterion"])

    @property
    def intervention(self) -> Intervention:
        """The intervention that ``tune`` chose."""
        return INTERVENTIONS[str(self.steering.facts["intervention"])]

    @property
    def k(self) -> int:
        return len(self.steering)

    def split(self, split: Split) -> Sequence[Problem]:
        """The problems of a split.

        Raises:
            InputError: this experiment may not read it.
        """
        if split not in self.problems:
            raise InputError(f"this experiment must not read the {split} split; it may read {', '.join(self.problems)}")
        return self.problems[split]

    @cached_property
    def class_moments(self) -> ClassMoments:
        """Moments of the whole contrast, with everything that any criterion reads and that was recorded."""
        moments = self.moments_of(self.contrast, STATISTICS)
        columns = down_weights(self.model, range(self.model.n_layers))
        return replace(moments, column_norm=column_norms(columns))

    def moments_of(self, rows: Sequence[ContrastRow], statistics: Collection[Statistic] = DEFAULT_STATISTICS) -> ClassMoments:
        """Moments of some of the contrast's traces, or of other labels for them; read from disk, no forward."""
        return recorded_class_moments(self.recording, self.scope, rows, statistics)

    def ranking(self, criterion: str) -> Ranking | None:
        """All neurons that a criterion can select from the whole contrast; None where it reads what was not recorded."""
        recorded = {"difference", "auroc"}
        recorded |= {"magnitude"} if self.class_moments.correct_magnitude is not None else set()
        recorded |= {"square"} if self.class_moments.correct_norm is not None else set()
        return CRITERIA[criterion](self.class_moments) if NEEDS[criterion] <= recorded else None

    def neurons(
        self,
        criterion: str,
        k: int,
        moments: ClassMoments | None = None,
        seed: int = 0,
        layers: Collection[int] | None = None,
    ) -> Neurons:
        """The best k neurons by a criterion, from the whole contrast unless moments are given."""
        return rank(moments or self.class_moments, criterion, k, self.model.identity, seed=seed, layers=layers)

    def always(
        self,
        neurons: Neurons,
        strength: float | None = None,
        intervention: Intervention | None = None,
        scope: PositionScope | None = None,
    ) -> Steering:
        """Neurons under the chosen intervention and strength unless others are given, without a gate."""
        return Steering.of(
            neurons,
            self.steering.strength if strength is None else strength,
            scope or self.steering.scope,
            intervention=intervention or self.intervention,
        )

    def answers(
        self,
        split: Split,
        steering: Steering | None,
        gate: GateSetting = "on",
        problems: Sequence[Problem] | None = None,
        label: str = "",
    ) -> list[Outcome]:
        """Greedy answers to a split, or to some of its problems, with a steering attached (None: the bare model).

        Run once and kept: the same steering on the same problems is read from disk by every later experiment.

        Args:
            gate: ``on`` steers every problem, ``auto`` those for which the steering's gate fires.
            problems: of the split; all of them by default.
            label: for the progress bar.
        """
        allowed = self.split(split)
        chosen = allowed if problems is None else problems
        if problems is not None and {p.id for p in problems} - {p.id for p in allowed}:
            raise InputError(f"answers were asked for problems outside the {split} split")
        key = answer_key(steering, gate)
        if (split, key) in self.known:
            by_id = {outcome.problem_id: outcome for outcome in self.known[split, key]}
            if by_id.keys() >= {problem.id for problem in chosen}:
                return [by_id[problem.id] for problem in chosen]
        if steering is None:
            gate = "on"  # the bare model has no gate to ask, and its answers are the same either way
        elif gate == "on":
            steering = steering.with_gate(ALWAYS)
        condition = Condition(UNSTEERED if steering is None else key, steering, gate)
        return evaluate_condition(
            self.model,
            condition,
            chosen,
            self.sampling,
            self.grader,
            self.folder / f"{split}-{_ids_key(chosen)}-{key}",
            prompt=self.prompt,
            checker=self.checker,
            generator=self.generator,
            progress=self.progress,
            label=label,
        )

    def on(self, model: LanguageModel, folder: AnyPath) -> "Workbench":
        """The same problems and settings on another model, its answers in a folder of their own."""
        return replace(self, model=model, folder=folder, known={})


def _ids_key(problems: Sequence[Problem]) -> str:
    return hashlib.blake2b("\n".join(problem.id for problem in problems).encode(), digest_size=4).hexdigest()


def answer_key(steering: Steering | None, gate: GateSetting) -> str:
    """What names the answers under a steering: its digest; with the gate held open the gate does not count."""
    if steering is None:
        return UNSTEERED
    return f"{gate}-{steering.digest if gate == 'auto' else steering.with_gate(ALWAYS).digest}"
