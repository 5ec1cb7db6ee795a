"""Settings of the experiments, as read from a configuration."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from trimtab.tasks.settings import TaskSettings

ExperimentName = Literal["ablate", "sweep", "transfer", "causal", "domains", "stability", "transfer-model", "monitor", "analyse"]
EXPERIMENT_NAMES: tuple[ExperimentName, ...] = get_args(ExperimentName)


class SweepSettings(BaseModel):
    """The values that ``sweep`` tries around the chosen point; values of the grid and published ones are tried as well.

    Args:
        problems: of the validation split, behind each point.
        k: numbers of neurons.
        strengths: as multiples of the chosen strength.
        thresholds: ratios above which ``activation-ratio`` selects.
        factors: by which ``scale`` amplifies.
        layer_bands: layers are taken alone and left out one by one, or in this many bands where the model has more.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    problems: int = Field(default=400, ge=1)
    k: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100, 200)
    strengths: tuple[float, ...] = (0.5, 0.75, 1.5, 2.0, 3.0)
    thresholds: tuple[float, ...] = (1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 2.0)
    factors: tuple[float, ...] = (1.02, 1.05, 1.1, 1.2, 1.5, 2.0, 3.0)
    layer_bands: int = Field(default=8, ge=2)


class StabilitySettings(BaseModel):
    """How often ``stability`` draws; all of it from stored activations, except where a gain is measured.

    Args:
        halves: random splits of the problems into two halves.
        bootstraps: draws of as many problems with replacement.
        sizes: numbers of contrast problems to search with; those that there are not are left out.
        draws: random draws of each size, for the overlap.
        runs: how many of them, and of the length control's, are run on the test split for the gain.
        length_tolerance: lengths of a matched pair differ by at most this share of the longer one.
        permutations: of the labels within problems.
        shuffles: labellings that are themselves shuffled, on which the false-discovery estimate is checked.
        memory_gb: bound on what per-trace means may take; problems beyond it, drawn at random, are left out and counted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    halves: int = Field(default=50, ge=2)
    bootstraps: int = Field(default=200, ge=2)
    sizes: tuple[int, ...] = (15, 30, 60, 120, 240)
    draws: int = Field(default=20, ge=2)
    runs: int = Field(default=2, ge=1)
    length_tolerance: float = Field(default=0.1, ge=0.0, lt=1.0)
    permutations: int = Field(default=200, ge=2)
    shuffles: int = Field(default=50, ge=2)
    memory_gb: float = Field(default=4.0, gt=0.0)


class MonitorSettings(BaseModel):
    """Settings of ``monitor``: features of the probe, and texts on which harm is measured.

    Args:
        features: neurons that the running probe reads.
        after: no warning before this token.
        texts: a text file, one text a line, for the perplexity on plain text; empty where there is none.
        other_tasks: on whose test problems the steering is tried, though it was not found on them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: int = Field(default=256, ge=1)
    after: int = Field(default=4, ge=1)
    texts: str = ""
    other_tasks: tuple[TaskSettings, ...] = ()


class AblateSettings(BaseModel):
    """What of ``ablate`` takes long.

    Args:
        trained_layers: layers of which all neurons are trained, evenly spread from the first to the last; the best on the
            validation split is shown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trained_layers: int = Field(default=8, ge=1)


class ExperimentSettings(BaseModel):
    """Settings of all experiments.

    Args:
        random_sets: sets of random neurons behind each random row.
        domains: at most this many domains get neurons of their own, those with the most problems in the contrast.
        other_models: what ``transfer-model`` carries the neurons to: hub ids, folders, or bundled models.
        seed: of everything drawn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    random_sets: int = Field(default=5, ge=1)
    domains: int = Field(default=10, ge=2)
    other_models: tuple[str, ...] = ()
    seed: int = 0
    ablate: AblateSettings = AblateSettings()
    sweep: SweepSettings = SweepSettings()
    stability: StabilitySettings = StabilitySettings()
    monitor: MonitorSettings = MonitorSettings()
