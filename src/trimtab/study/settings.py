"""The settings of a study: one frozen model per section of ``run.toml``, unknown keys refused, each default in one place."""

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from difflib import get_close_matches
from typing import Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from trimtab.errors import ConfigError, StoreError
from trimtab.evaluation.settings import DirectionSettings, EvaluationSettings, TuneSettings
from trimtab.execution import ExecutorSettings, with_choice
from trimtab.experiments.settings import EXPERIMENT_NAMES, ExperimentName, ExperimentSettings
from trimtab.gating.settings import GateSettings, RunningGateSettings
from trimtab.moments import ALL_MOMENTS, CONTRIBUTION, TokenScope
from trimtab.ranking import CRITERIA, NEEDS
from trimtab.recording import RecordingSettings
from trimtab.sampling import SamplingSettings, VllmOptions
from trimtab.store import AnyPath, any_path, parse_toml, read_bytes, to_toml, unsealed
from trimtab.store.seal import SEAL
from trimtab.tasks import Prompt
from trimtab.tasks.benchmarks import BENCHMARKS
from trimtab.tasks.contrast import ContrastSettings, RecurrenceSettings
from trimtab.tasks.loading import TaskSettings

logger = logging.getLogger(__name__)

Stage = Literal["problems", "sample", "grade", "contrast", "record", "rank", "gate", "tune", "evaluate", "experiments", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)
EngineName = Literal["transformers", "vllm"]
KEYS = "keys"
"""The table of ``run.toml`` that says which key each stage came to; no setting."""
Model = TypeVar("Model", bound=BaseModel)


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
        """The moments and scopes to record."""
        return RecordingSettings(scopes=self.scopes, moments=self.moments, batch_tokens=self.batch_tokens)


class RankingSettings(Section):
    """``scope`` is the token scope whose moments are contrasted; ``k`` neurons of each criterion go into the file."""

    criteria: tuple[str, ...] = ("adaras", "mean-difference")
    scope: TokenScope = "response"
    k: int = Field(default=50, ge=1)


class Settings(Section):
    """A whole study. ``experiments`` names what to run after the evaluation, or is ``"all"``.

    ``executor`` changes no result: the run directory does not keep it, so a run may be resumed with another. ``engine``
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
    running_gate: RunningGateSettings = RunningGateSettings()
    tune: TuneSettings = TuneSettings()
    direction: DirectionSettings = DirectionSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    experiments: tuple[ExperimentName, ...] = ()
    experiment: ExperimentSettings = ExperimentSettings()
    executor: ExecutorSettings = ExecutorSettings()
    engine: EngineName = "transformers"
    vllm: VllmOptions = VllmOptions()
    repeat: int = Field(
        default=0,
        ge=0,
        description="Another number computes the same samples and answers anew: what differs is the engine's noise.",
    )

    def stored(self) -> dict[str, object]:
        """The settings that ``run.toml`` keeps, as JSON values: all but the executor."""
        return self.model_dump(mode="json", exclude={"executor"})

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of a whole run, in order."""
        if self.traces.path:
            return STAGES[: STAGES.index("rank") + 1]
        return tuple(stage for stage in STAGES if stage != "experiments" or self.experiments)

    @field_validator("experiments", mode="before")
    @classmethod
    def _all_experiments(cls, value: object) -> object:
        return EXPERIMENT_NAMES if value == "all" else value

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Self:
        """Refuse what a later stage could not use: by then the traces are sampled, and another configuration is another run."""
        if self.traces.path and self.experiments:
            raise ValueError("experiments need a run that samples its own traces; leave them out")
        if self.engine == "vllm" and "sft-lora" in self.evaluation.baselines:
            raise ValueError("sft-lora is a fine-tune in memory, which engine 'vllm' cannot open; leave one of them out")
        if self.engine == "vllm" and "direction" in self.evaluation.baselines:
            raise ValueError("engine 'vllm' steers neurons and cannot run the baseline 'direction'; leave one of them out")
        unknown = set(self.ranking.criteria) - set(CRITERIA)
        if unknown or not self.ranking.criteria:
            raise ValueError(f"ranking.criteria names {sorted(unknown) or 'nothing'}; accepted: {', '.join(CRITERIA)}")
        if self.ranking.scope not in self.recording.scopes:
            raise ValueError(
                f"ranking.scope {self.ranking.scope!r} is not recorded; add it to recording.scopes {self.recording.scopes}"
            )
        if self.traces.path and self.recording.while_sampling:
            raise ValueError("recording.while_sampling needs traces that are sampled; leave it out, or traces.path")
        if self.recording.while_sampling and CONTRIBUTION in self.recording.moments:
            raise ValueError(
                f"recording.moments names {CONTRIBUTION!r}, which reads what the FFN writes, and while sampling only "
                "activations are recorded; leave recording.while_sampling out"
            )
        if "sum" not in self.recording.moments:
            raise ValueError(f"recording.moments {self.recording.moments} lacks 'sum', which every criterion reads; add it")
        for criterion in self.ranking.criteria:
            missing = NEEDS[criterion] & set(ALL_MOMENTS) - set(self.recording.moments)
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
        return self


def load_settings(path: str | os.PathLike[str] | AnyPath) -> Settings:
    """Read ``run.toml``, or any TOML file with some of its sections.

    Raises:
        ConfigError: unreadable TOML, an unknown key or a bad value, each named.
    """
    file = any_path(path)
    data = _toml(file)
    if SEAL in data and not is_intact(data, file):
        logger.warning("%s was changed after a run wrote it; its settings hold as they stand now", file)
    return parse_settings({key: value for key, value in data.items() if key not in (KEYS, SEAL)}, str(file))


def stored_keys(file: AnyPath, settings: Settings) -> dict[str, str]:
    """The keys in a ``run.toml`` that holds these settings, as it was written; none where it holds others, or was changed."""
    data = _toml(file)
    if not is_intact(data, file):
        return {}
    keys: dict[str, str] = data.get(KEYS, {})  # type: ignore[assignment]  # as it was written
    own = {key: value for key, value in data.items() if key not in (KEYS, SEAL)}
    return keys if own == parse_toml(to_toml(settings.stored())) else {}


def is_intact(data: Mapping[str, object], file: AnyPath) -> bool:
    """Whether a ``run.toml`` is as a run wrote it."""
    try:
        unsealed(data, file, "")
    except StoreError:
        return False
    return True


def _toml(file: AnyPath) -> dict[str, object]:
    try:
        return parse_toml(read_bytes(file).decode())
    except IsADirectoryError as error:
        raise ConfigError(
            f"{file} holds no run.toml, so it is no run directory; give a folder that `trimtab run` or `trimtab evaluate --out` "
            "wrote, or a settings file",
            code="no-run",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {file}: {error}", code="unreadable") from error
    except ValueError as error:
        raise ConfigError(f"{file} is not TOML: {error}", code="not-toml") from error


def parse_settings(data: Mapping[str, object], where: str) -> Settings:
    """Validate settings and name every key that is wrong; what a benchmark declares fills in what is not said.

    Args:
        data: sections, as a TOML file holds them.
        where: where they come from, for messages.

    Raises:
        ConfigError: an unknown key, with the known one that is closest, or a bad value.
    """
    if wrong := _absurd(data, ()):
        raise ConfigError(f"{where} has keys or values that are not accepted:\n" + "\n".join(wrong), code="not-accepted")
    return checked(Settings, _with_declared(data), where)


def _absurd(value: object, place: tuple[str, ...]) -> list[str]:
    """Numbers that no setting can be, each on a line of its own."""
    if isinstance(value, Mapping):
        return [line for key, item in value.items() for line in _absurd(item, (*place, str(key)))]
    if isinstance(value, list | tuple):
        return [line for item in value for line in _absurd(item, place)]
    if isinstance(value, float) and not math.isfinite(value):
        return [f"  {'.'.join(place)}: {value} is no finite number"]
    if isinstance(value, int) and abs(value) >= 2**63:
        return [f"  {'.'.join(place)}: {str(value)[:20]}{'...' * (abs(value) >= 10**20)} is larger than any setting can be"]
    return []


def checked(kind: type[Model], data: Mapping[str, object], where: str) -> Model:
    """A pydantic model of some data; the one place where pydantic's errors become ours.

    Raises:
        ConfigError: every key or value that is not accepted, on a line of its own.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        lines = [_explained(kind, issue["type"], issue["loc"], issue["msg"], issue["input"]) for issue in error.errors()]
        raise ConfigError(
            f"{where} has keys or values that are not accepted:\n" + "\n".join(lines), code="not-accepted"
        ) from error


def changed(section: Model, changes: Mapping[str, object], where: str) -> Model:
    """A section with some of its values replaced and all of them checked again.

    Raises:
        ConfigError: as :func:`checked`.

    Example:
        >>> changed(SamplingSettings(), {"temprature": 1.0}, "sampling")
        Traceback (most recent call last):
        trimtab.errors.ConfigError: sampling has keys or values that are not accepted:
          temprature: unknown; did you mean temperature?
    """
    return checked(type(section), {**section.model_dump(), **changes}, where) if changes else section


def _explained(kind: type[BaseModel], problem: str, location: tuple[int | str, ...], message: str, given: object) -> str:
    place = ".".join(str(part) for part in location)
    if problem == "extra_forbidden":
        known = sorted(_fields_at(kind, location[:-1]))
        close = get_close_matches(str(location[-1]), known, n=1)
        return f"  {place}: unknown; did you mean {close[0]}?" if close else f"  {place}: unknown; accepted: {', '.join(known)}"
    return f"  {place}: {message} (got {given!r})" if location else f"  {message}"


def _fields_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The names that a section, or a section of a section, has."""
    for part in location:
        field = kind.model_fields.get(str(part))
        inner = field and field.annotation
        if not isinstance(inner, type) or not issubclass(inner, BaseModel):
            return []
        kind = inner
    return list(kind.model_fields)


def with_executor(settings: Settings, choice: str | None) -> Settings:
    """The settings with the executor that the command line chose, if it did; see :func:`trimtab.execution.with_choice`."""
    return settings if choice is None else settings.model_copy(update={"executor": with_choice(settings.executor, choice)})


def with_engine(settings: Settings, choice: str | None) -> Settings:
    """The settings with the engine that the command line chose, if it did: a name, and keys of [vllm] after commas.

    Raises:
        ConfigError: an unknown engine or key, a bad value, or an engine that does not go with the rest.

    Example:
        >>> with_engine(Settings(), "vllm,enforce_eager=true").vllm.enforce_eager
        True
    """
    if choice is None:
        return settings
    name, *pairs = choice.split(",")
    keys = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
    sections = settings.model_dump(mode="json")
    return parse_settings({**sections, "engine": name, "vllm": {**sections["vllm"], **keys}}, f"--engine {choice}")


def _with_declared(data: Mapping[str, object]) -> Mapping[str, object]:
    """The prompt and the sampling of the benchmark, where the settings do not say otherwise."""
    task, sampling = data.get("task"), data.get("sampling", {})
    benchmark = BENCHMARKS.get(str(task.get("source"))) if isinstance(task, dict) else None
    if benchmark is None or not isinstance(sampling, dict):
        return data
    return {"prompt": benchmark.prompt, **data, "sampling": {**asdict(benchmark.decoding), **sampling}}


def check_grid(settings: Settings) -> None:
    """Raise ConfigError where the grid asks for more neurons than are ranked."""
    if not 0 < min(settings.tune.k) <= max(settings.tune.k) <= settings.ranking.k:
        raise ConfigError(
            f"tune.k {settings.tune.k} must lie between 1 and ranking.k, which is {settings.ranking.k}", code="k-beyond-ranking"
        )


def check_until(settings: Settings, until: Stage) -> Stage:
    """Imported traces carry no score of the model itself, so a run on them ends with the ranking. Without experiments in the
    settings there is no such stage.

    Raises:
        ConfigError: a stage was asked for that the study has not.
    """
    if settings.traces.path and STAGES.index(until) > STAGES.index("rank"):
        raise ConfigError(
            "a run on imported traces ends with `rank`: gate, tune and evaluate need problems that this model answers itself; "
            "use --until rank, then evaluate the neurons on a task",
            code="imported-run",
        )
    if STAGES.index(until) >= STAGES.index("tune"):
        check_grid(settings)
    if until == "experiments" and not settings.experiments:
        raise ConfigError(
            'the settings name no experiments; set `experiments = "all"` or a list of names, or run one of them on the finished '
            "run, such as `trimtab experiment ablate RUN`"
        )
    return until


DEMO = Settings(
    task=TaskSettings(source="testbed", train=500, validation=400, test=1000),
    sampling=SamplingSettings(n=6, temperature=1.0, max_new_tokens=104, batch_tokens=72_000),
    tune=TuneSettings(interventions=("add", "ablate-and-add"), k=(20, 50), strengths=(1.5, 2.0, 4.0), problems=120),
    contrast=ContrastSettings(recurrence=RecurrenceSettings(traces=60)),
    evaluation=EvaluationSettings(control_problems=400, gates=("running", "running-random")),
    experiment=ExperimentSettings(other_models=("testbed:tuned", "testbed:second")),
)
"""The demo: the whole pipeline on the bundled reasoner. Fixed before its test split was opened, but for the controls and the
running gate, which came later; two controls ask 400 problems so that the demo stays short."""
