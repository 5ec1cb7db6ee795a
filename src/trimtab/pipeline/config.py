"""The configuration of a run: one frozen model per section of ``run.toml``, unknown keys refused, each default in one place."""

import tomllib
from dataclasses import asdict
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from trimtab.errors import ConfigError
from trimtab.evaluation.settings import EvaluationSettings
from trimtab.evaluation.tune import TuneSettings
from trimtab.execution import ExecutorSettings, with_choice
from trimtab.experiments.settings import EXPERIMENT_NAMES, ExperimentName, ExperimentSettings
from trimtab.gating.settings import GateSettings
from trimtab.moments import MOMENTS, TokenScope
from trimtab.ranking import CRITERIA, NEEDS
from trimtab.recording import RecordingSettings
from trimtab.sampling import SamplingSettings, VllmOptions
from trimtab.steering import Steering
from trimtab.store import AnyPath
from trimtab.tasks import Prompt
from trimtab.tasks.benchmarks import BENCHMARKS
from trimtab.tasks.contrast import ContrastSettings
from trimtab.tasks.loading import TaskSettings

Stage = Literal["problems", "sample", "grade", "contrast", "record", "rank", "gate", "tune", "evaluate", "experiments", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)
EngineName = Literal["transformers", "vllm"]


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


class RecordingSection(RecordingSettings):
    """``while_sampling`` sums the moments up in the very forwards that sample the traces, so that ranking needs no second pass.

    All sampled traces are then on disk, not only those that are contrasted.
    """

    while_sampling: bool = False

    @property
    def settings(self) -> RecordingSettings:
        """What is recorded, however that is done."""
        return RecordingSettings(scopes=self.scopes, moments=self.moments, batch_tokens=self.batch_tokens)


class RankingSettings(Section):
    """``scope`` is the token scope whose moments are contrasted; ``k`` neurons of each criterion go into the file."""

    criteria: tuple[str, ...] = ("adaras", "mean-difference")
    scope: TokenScope = "response"
    k: int = Field(default=50, ge=1)


class ArtifactSettings(Section):
    """A steering made before, in place of finding one. ``digest`` is what it was when the run began; a changed one is refused."""

    source: str = ""
    digest: str = ""
    force_model: bool = False


class RunConfig(Section):
    """A whole run. ``experiments`` names what to run after the evaluation, or is ``"all"``.

    ``executor`` says who computes, not what: the run directory does not keep it, so a run may be resumed with another. ``engine``
    is what generates in ``sample``, ``tune`` and ``evaluate``, and rounds in its own way; all that reads activations outside of
    generation is done by transformers.
    """

    model: ModelSettings = ModelSettings()
    task: TaskSettings = TaskSettings()
    prompt: Prompt = Prompt()
    traces: TracesSettings = TracesSettings()
    sampling: SamplingSettings = SamplingSettings()
    contrast: ContrastSettings = ContrastSettings()
    recording: RecordingSection = RecordingSection()
    ranking: RankingSettings = RankingSettings()
    gate: GateSettings = GateSettings()
    tune: TuneSettings = TuneSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    artifact: ArtifactSettings = ArtifactSettings()
    experiments: tuple[ExperimentName, ...] = ()
    experiment: ExperimentSettings = ExperimentSettings()
    executor: ExecutorSettings = ExecutorSettings()
    engine: EngineName = "transformers"
    vllm: VllmOptions = VllmOptions()

    def stored(self) -> dict[str, object]:
        """What a run directory keeps of it, as JSON values; the engine is left out where nothing is said of it."""
        # runs that were begun when there was one engine are resumed as they were
        unsaid = {name for name in ("engine", "vllm") if getattr(self, name) == type(self).model_fields[name].default}
        return self.model_dump(mode="json", exclude={"executor", *unsaid})

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of this run: with an artifact there is nothing to find."""
        if self.artifact.source:
            return ("problems", "evaluate", "report")
        return tuple(stage for stage in STAGES if stage != "experiments" or self.experiments)

    @field_validator("experiments", mode="before")
    @classmethod
    def _all_experiments(cls, value: object) -> object:
        return EXPERIMENT_NAMES if value == "all" else value

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Self:
        """Refuse what a later stage could not use: by then the traces are sampled, and another configuration is another run."""
        if (self.artifact.source or self.traces.path) and self.experiments:
            raise ValueError("experiments need a run that finds its own neurons; leave them out")
        if self.artifact.source and "sft-lora" in self.evaluation.baselines:
            raise ValueError(
                "sft-lora learns from the traces of the train split, which a run on an artifact has not; leave it out"
            )
        if self.engine == "vllm" and "sft-lora" in self.evaluation.baselines:
            raise ValueError("sft-lora is a fine-tune in memory, which engine 'vllm' cannot open; leave one of them out")
        unknown = set(self.ranking.criteria) - set(CRITERIA)
        if unknown or not self.ranking.criteria:
            raise ValueError(f"ranking.criteria names {sorted(unknown) or 'nothing'}; accepted: {', '.join(CRITERIA)}")
        if self.ranking.scope not in self.recording.scopes:
            raise ValueError(
                f"ranking.scope {self.ranking.scope!r} is not recorded; add it to recording.scopes {self.recording.scopes}"
            )
        if self.traces.path and self.recording.while_sampling:
            raise ValueError("recording.while_sampling needs traces that are sampled; leave it out, or traces.path")
        if "sum" not in self.recording.moments:
            raise ValueError(f"recording.moments {self.recording.moments} lacks 'sum', which every criterion reads; add it")
        for criterion in self.ranking.criteria:
            missing = NEEDS[criterion] & set(MOMENTS) - set(self.recording.moments)
            if missing:
                raise ValueError(
                    f"ranking.criteria names {criterion!r}, which reads the moments {sorted(missing)}; "
                    f"add them to recording.moments {self.recording.moments}"
                )
        if not self.tune.k or not self.tune.strengths:
            raise ValueError("tune.k and tune.strengths need at least one value each")
        imported = bool(self.traces.path)  # such a run ends with the ranking
        if not imported and self.gate.fitted and self.tune.scope != "generated":
            raise ValueError(
                f"tune.scope {self.tune.scope!r} needs gate.kind 'always': a gate decides after the prompt was read; "
                "use tune.scope 'generated'"
            )
        if not imported and not 0 < min(self.tune.k) <= max(self.tune.k) <= self.ranking.k:
            raise ValueError(f"tune.k {self.tune.k} must lie between 1 and ranking.k, which is {self.ranking.k}")
        return self


def load_config(path: AnyPath | None) -> RunConfig:
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


def with_executor(config: RunConfig, choice: str | None) -> RunConfig:
    """The configuration with the executor that the command line chose, if it did; see :func:`trimtab.execution.with_choice`."""
    return config if choice is None else config.model_copy(update={"executor": with_choice(config.executor, choice)})


def with_engine(config: RunConfig, choice: str | None) -> RunConfig:
    """The configuration with the engine that the command line chose, if it did: a name, and keys of [vllm] after commas.

    Raises:
        ConfigError: an unknown engine or key, a bad value, or an engine that does not go with the rest.

    Example:
        >>> with_engine(RunConfig(), "vllm,enforce_eager=true").vllm.enforce_eager
        True
    """
    if choice is None:
        return config
    name, *pairs = choice.split(",")
    keys = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
    sections = config.model_dump(mode="json")
    return parse_config({**sections, "engine": name, "vllm": {**sections["vllm"], **keys}}, f"--engine {choice}")


def parse_config(data: dict[str, object], where: str) -> RunConfig:
    """Validate a configuration and name every key that is wrong; what a benchmark declares fills in what is not said."""
    try:
        return RunConfig.model_validate(_with_declared(data))
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in issue['loc'])}: {issue['msg']} (got {issue['input']!r})"
            if issue["loc"]
            else f"  {issue['msg']}"
            for issue in error.errors()
        ]
        raise ConfigError(f"{where} has keys or values that are not accepted:\n" + "\n".join(lines)) from error


def _with_declared(data: dict[str, object]) -> dict[str, object]:
    """The prompt and the sampling of the benchmark, where the configuration does not say otherwise."""
    task, sampling = data.get("task"), data.get("sampling", {})
    benchmark = BENCHMARKS.get(str(task.get("source"))) if isinstance(task, dict) else None
    if benchmark is None or not isinstance(sampling, dict):
        return data
    return {"prompt": benchmark.prompt, **data, "sampling": {**asdict(benchmark.decoding), **sampling}}


def artifact_run(
    *,
    task: dict[str, object],
    model: dict[str, object],
    steering: str,
    force_model: bool,
    evaluation: dict[str, object],
    max_new_tokens: int | None,
) -> RunConfig:
    """The configuration of an evaluation of an artifact, from sections as a file would hold them.

    Raises:
        ConfigError: a bad value, named.
        StoreError: the artifact cannot be read.
    """
    found = Steering.from_pretrained(steering)
    sampling: dict[str, object] = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    sections: dict[str, object] = {
        "task": task,
        "model": model,
        "artifact": {"source": steering, "digest": found.digest, "force_model": force_model},
        "evaluation": evaluation,
        "sampling": sampling,
    }
    return parse_config(sections, "the command line")


DEMO = RunConfig(
    task=TaskSettings(source="testbed", train=500, validation=400, test=1000),
    sampling=SamplingSettings(n=6, temperature=1.0, max_new_tokens=104, batch_tokens=72_000),
    tune=TuneSettings(interventions=("add", "ablate-and-add"), k=(20, 50), strengths=(1.5, 2.0, 4.0), problems=120),
    experiment=ExperimentSettings(other_models=("testbed:tuned", "testbed:second")),
)
"""The demo: the whole pipeline on the bundled reasoner. Fixed before its test split was opened."""
