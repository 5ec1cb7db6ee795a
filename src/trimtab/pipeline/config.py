"""The configuration of a run: one frozen model per section of ``run.toml``, unknown keys refused, each default in one place."""

import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trimtab.errors import ConfigError
from trimtab.evaluation.tune import TuneSettings
from trimtab.gate import GateMode
from trimtab.moments import TokenScope
from trimtab.ranking import CRITERIA
from trimtab.recording import RecordingSettings
from trimtab.sampling import SamplingSettings
from trimtab.tasks import Prompt
from trimtab.tasks.contrast import ContrastSettings
from trimtab.tasks.problems import TaskSettings

Stage = Literal["problems", "sample", "grade", "contrast", "record", "rank", "gate", "tune", "evaluate", "report"]
STAGES: tuple[Stage, ...] = ("problems", "sample", "grade", "contrast", "record", "rank", "gate", "tune", "evaluate", "report")


class Section(BaseModel):
    """A section of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(Section):
    """``source`` is a hub id, a folder, or ``testbed:NAME`` for a bundled model."""

    source: str = "testbed:reasoner"
    revision: str = ""
    dtype: str = "auto"
    device: str = "auto"
    trust_remote_code: bool = False


class TracesSettings(Section):
    """Traces made elsewhere, in place of sampling. Empty ``path`` samples from the model."""

    path: str = ""
    verdict_column: str = ""
    quality_column: str = ""
    max_tokens: int = Field(default=0, ge=0, description="Cut longer responses; 0 keeps them whole.")


class RankingSettings(Section):
    """``scope`` is the token scope whose moments are contrasted; ``k`` neurons of each criterion go into the file."""

    criteria: tuple[str, ...] = ("mean-difference-polarity", "mean-difference")
    scope: TokenScope = "response"
    k: int = Field(default=50, ge=1)


class GateSettings(Section):
    """``logistic`` is fitted on greedy verdicts of the find split; its threshold is Youden's on the tune split.

    ``hard`` steers with the whole strength where it fires, ``proportional`` with more the surer the failure is.
    """

    kind: Literal["logistic", "always"] = "logistic"
    mode: GateMode = "hard"
    features: int = Field(default=4096, ge=1)


class EvaluationSettings(Section):
    """``random_sets`` random sets of neurons as controls, of each kind; ``alpha`` is the level of the verdict."""

    random_sets: int = Field(default=5, ge=5)
    alpha: float = Field(default=0.05, gt=0.0, lt=1.0)
    seed: int = 0


class RunConfig(Section):
    """A whole run."""

    model: ModelSettings = ModelSettings()
    task: TaskSettings = TaskSettings()
    prompt: Prompt = Prompt()
    traces: TracesSettings = TracesSettings()
    sampling: SamplingSettings = SamplingSettings()
    contrast: ContrastSettings = ContrastSettings()
    recording: RecordingSettings = RecordingSettings()
    ranking: RankingSettings = RankingSettings()
    gate: GateSettings = GateSettings()
    tune: TuneSettings = TuneSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Self:
        """Refuse what a later stage could not use: by then the traces are sampled, and another configuration is another run."""
        unknown = set(self.ranking.criteria) - set(CRITERIA)
        if unknown or not self.ranking.criteria:
            raise ValueError(f"ranking.criteria names {sorted(unknown) or 'nothing'}; accepted: {', '.join(CRITERIA)}")
        if self.ranking.scope not in self.recording.scopes:
            raise ValueError(
                f"ranking.scope {self.ranking.scope!r} is not recorded; add it to recording.scopes {self.recording.scopes}"
            )
        if "sum" not in self.recording.moments:
            raise ValueError(f"recording.moments {self.recording.moments} lacks 'sum', which every criterion reads; add it")
        if not self.tune.k or not self.tune.strengths:
            raise ValueError("tune.k and tune.strengths need at least one value each")
        imported = bool(self.traces.path)  # such a run ends with the ranking
        if not imported and not 0 < min(self.tune.k) <= max(self.tune.k) <= self.ranking.k:
            raise ValueError(f"tune.k {self.tune.k} must lie between 1 and ranking.k, which is {self.ranking.k}")
        return self


def load_config(path: Path | None) -> RunConfig:
    """Read ``run.toml``; None gives the testbed's demo.

    Raises:
        ConfigError: unreadable TOML, an unknown key or a bad value, each named.
    """
    if path is None:
        return DEMO
    try:
        data = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    return parse_config(data, str(path))


def parse_config(data: dict[str, object], where: str) -> RunConfig:
    """Validate a configuration and name every key that is wrong."""
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in issue['loc'])}: {issue['msg']} (got {issue['input']!r})"
            if issue["loc"]
            else f"  {issue['msg']}"
            for issue in error.errors()
        ]
        raise ConfigError(f"{where} has keys or values that are not accepted:\n" + "\n".join(lines)) from error


DEMO = RunConfig(
    task=TaskSettings(source="testbed", find=500, tune=400, test=1000),
    sampling=SamplingSettings(n=6, temperature=1.0, max_new_tokens=96, batch_tokens=72_000),
    tune=TuneSettings(k=(5, 20, 50), strengths=(2.0, 4.0, 6.0), problems=200),
)
"""The demo: the whole line on the bundled reasoner. Fixed before its test split was opened."""
