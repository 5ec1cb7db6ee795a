"""The input of every experiment: a study, the best point of its grid, and the splits that this experiment may read."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.rows import UNSTEERED
from trimtab.evaluation.runner import Condition
from trimtab.evaluation.settings import TunePoint, TuneSettings
from trimtab.experiments.settings import ExperimentSettings
from trimtab.interventions import INTERVENTIONS, Intervention
from trimtab.model import LanguageModel, down_weights
from trimtab.moments import TokenScope
from trimtab.neurons import Neurons
from trimtab.progress import Progress
from trimtab.ranking import (
    CRITERIA,
    DEFAULT_STATISTICS,
    NEEDS,
    ClassMoments,
    Ranking,
    Statistic,
    column_norms,
    rank,
)
from trimtab.recording import Recording
from trimtab.sampling import Generator, SamplingSettings
from trimtab.steering import PositionScope, Steering
from trimtab.tasks import Grader, Prompt
from trimtab.tasks.contrast import ContrastRow
from trimtab.traces import Problem, ScoredTrace, Split, Trace

if TYPE_CHECKING:
    from trimtab.study.along import DirectionTuning
    from trimtab.study.study import Study
    from trimtab.study.values import Tuning

GateSetting = Literal["auto", "on"]
STATISTICS: frozenset[Statistic] = frozenset(("magnitude", "square", "difference", "auroc", "contribution"))


@dataclass(frozen=True)
class Search:
    """A finished search, as an experiment sees it.

    Args:
        study: whose cache answers are kept in.
        tuning: the grid, and the steering that it chose.
        reads: the splits that this experiment may read.
        name: of the experiment, for progress and the ledger.
    """

    study: "Study"
    tuning: "Tuning"
    reads: frozenset[Split] = field(default_factory=lambda: frozenset(Split))
    name: str = "experiment"

    @property
    def model(self) -> LanguageModel:
        return self.study.model

    @property
    def steering(self) -> Steering:
        """The steering that ``tune`` chose, behind its gate."""
        return self.tuning.steering

    @cached_property
    def direction(self) -> "DirectionTuning":
        """The difference of class means of the residual stream, at the layer and strength that are best on the validation split.

        Raises:
            InputError: this experiment may not read it.
        """
        self.split(Split.VALIDATION)
        return self.study.tune_direction()

    @property
    def points(self) -> Sequence[TunePoint]:
        """The grid that it was chosen from."""
        return self.tuning.points

    @property
    def problems(self) -> Mapping[Split, Sequence[Problem]]:
        """By split, those that may be read."""
        return {split: self.study.problems().split(split) for split in Split if split in self.reads}

    @property
    def clusters(self) -> Mapping[str, str]:
        """The cluster of near-duplicates of each problem that is in one; each counts once in a paired test."""
        return self.study.problems().clusters

    @cached_property
    def contrast(self) -> Sequence[ContrastRow]:
        """The traces that are compared."""
        return self.study.contrast()

    @cached_property
    def recording(self) -> Recording:
        """Their stored moments."""
        return self.study.recording()

    @property
    def scope(self) -> TokenScope:
        """The tokens whose moments are contrasted."""
        return self.study.settings.ranking.scope

    @cached_property
    def traces(self) -> Sequence[Trace]:
        """All sampled traces of the train split, those of the contrast among them."""
        return self.study.traces().traces

    @cached_property
    def grades(self) -> Sequence[ScoredTrace]:
        """Their grades."""
        return self.study.traces().grades

    @property
    def sampling(self) -> SamplingSettings:
        """Greedy, one response a problem."""
        return self.study.settings.sampling.greedy()

    @property
    def prompt(self) -> Prompt:
        return self.study.settings.prompt

    @property
    def tune(self) -> TuneSettings:
        return self.study.settings.tune

    @property
    def settings(self) -> ExperimentSettings:
        return self.study.settings.experiment

    @property
    def grader(self) -> Grader:
        return self.study.grader

    @property
    def generator(self) -> Generator:
        return self.study.generator

    @property
    def progress(self) -> Progress:
        return self.study.progress

    @cached_property
    def prompts(self) -> Mapping[Split, Recording]:
        """Recorded prompts of the train and validation problems; none where no gate was fitted."""
        return self.study.prompt_recordings()

    @cached_property
    def failed(self) -> Mapping[Split, NDArray[np.bool_]]:
        """bool ``[problem]`` of the same splits, the gate's labels: the unsteered model's greedy answer is not correct."""
        return {split: self.study.failed(split) for split in self.prompts}

    @property
    def gate_features(self) -> int:
        """How many neurons a gate may read."""
        return self.study.settings.gate.features

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
        if split not in self.reads:
            raise InputError(f"this experiment must not read the {split} split; it may read {', '.join(sorted(self.reads))}")
        return self.study.problems().split(split)

    @cached_property
    def class_moments(self) -> ClassMoments:
        """Moments of the whole contrast, with everything that any criterion reads and that was recorded."""
        moments = self.moments_of(self.contrast, STATISTICS)
        columns = down_weights(self.model, range(self.model.n_layers))
        return replace(moments, column_norm=column_norms(columns))

    def moments_of(self, rows: Sequence[ContrastRow], statistics: Collection[Statistic] = DEFAULT_STATISTICS) -> ClassMoments:
        """Moments of some of the contrast's traces, or of other labels for them; read from disk, no forward."""
        return self.study.moments(rows, tuple(statistics))

    def ranking(self, criterion: str) -> Ranking | None:
        """All neurons that a criterion can select from the whole contrast; None where it reads what was not recorded."""
        recorded = {"difference", "auroc"}
        recorded |= {"magnitude"} if self.class_moments.correct_magnitude is not None else set()
        recorded |= {"square"} if self.class_moments.correct_norm is not None else set()
        recorded |= {"contribution"} if self.class_moments.contributions is not None else set()
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

        Args:
            gate: ``on`` steers every problem, ``auto`` those for which the steering's gate fires.
            problems: of the split; all of them by default.
            label: for the progress bar.
        """
        allowed = self.split(split)
        chosen = allowed if problems is None else problems
        if problems is not None and {p.id for p in problems} - {p.id for p in allowed}:
            raise InputError(f"answers were asked for problems outside the {split} split")
        condition = Condition(label or (UNSTEERED if steering is None else "steered"), steering, gate)
        return self.study.answers(condition, chosen, self.sampling, what=self.name)

    def trained(self, steering: Steering, learning_rate: float | None = None) -> Steering:
        """Gains and shifts of a steering's neurons learned by gradient, at one rate or the best of the settings."""
        return self.study.trained(steering, learning_rate)

    def answers_to(
        self, problems: Sequence[Problem], prompt: Prompt, steering: Steering | None, gate: GateSetting, label: str
    ) -> list[Outcome]:
        """Greedy answers to problems of another task."""
        return self.study.answers(Condition(label, steering, gate), problems, self.sampling, prompt=prompt, what=self.name)

    def on(self, model: LanguageModel) -> "Search":
        """The same problems and settings on another model."""
        return replace(self, study=self.study.on(model))
