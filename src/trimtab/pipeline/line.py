"""One run: its configuration, its directory, the model opened once, and what earlier stages left on disk."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import ConfigError, StoreError
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.tune import TunePoint, best_point
from trimtab.execution import LOCAL, Executor
from trimtab.gate import ALWAYS, AnyGate, AttentionGate, PromptScope
from trimtab.gating import RecordedRows, columns
from trimtab.gating.reading import predict
from trimtab.interventions import INTERVENTIONS
from trimtab.model import LanguageModel, checkpoint_dtype, open_model, rebind
from trimtab.neurons import Neurons
from trimtab.pipeline.config import ModelSettings, RunConfig
from trimtab.progress import Progress, silent
from trimtab.recording import Recording, is_streamed
from trimtab.sampling import TRANSFORMERS, Generator, VllmEngine, read_traces
from trimtab.steering import Steering
from trimtab.store import AnyPath, RunDirectory, load_gate, load_neurons, read_json, read_table, write_json
from trimtab.tasks import Grader, render_prompt
from trimtab.tasks.contrast import ContrastRow
from trimtab.tasks.grading import KindGrader
from trimtab.tasks.grading.grade import StepChecker, testbed_steps
from trimtab.traces import Grade, Problem, Split, Trace

SAMPLED = "sampled"

Note = Callable[[str], None]
"""Told what a person who waits may want to know, such as the address of a dashboard."""


def greedy_name(split: Split) -> str:
    """The folder of the greedy traces of a split."""
    return f"greedy-{split}"


def prompts_name(split: Split) -> str:
    """The folder of the recorded prompts of a split."""
    return f"prompts-{split}"


def open_configured(model: ModelSettings, device: str = "") -> LanguageModel:
    """The model of a configuration; on another device it keeps the dtype that it has on its own."""
    dtype, revision = model.dtype, model.revision or None
    if device not in ("", model.device) and dtype == "auto":
        dtype = checkpoint_dtype(model.source, revision, model.trust_remote_code)
    return open_model(
        model.source,
        revision=revision,
        dtype=dtype,
        device=device or model.device,
        trust_remote_code=model.trust_remote_code,
    )


class Line:
    """What every stage needs. Reading a file of a stage that has not run names the command that makes it."""

    def __init__(
        self,
        config: RunConfig,
        directory: RunDirectory,
        progress: Progress = silent,
        note: Note = lambda text: None,  # noqa: ARG005
    ) -> None:
        self.config = config
        self.directory = directory
        self.progress = progress
        self.note = note
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    @cached_property
    def model(self) -> LanguageModel:
        """The model, opened at the first stage that runs it."""
        return open_configured(self.config.model, self.executor.driver_device)

    @cached_property
    def executor(self) -> Executor:
        """Who computes the parts of ``sample``, ``record``, ``tune`` and ``evaluate``; its cluster is left with the line."""
        settings, model = self.config.executor, self.config.model
        if settings.kind == "local":
            return LOCAL
        from trimtab.execution.ray_executor import RayExecutor

        gpus = self.config.vllm.tensor_parallel_size if self.config.engine == "vllm" else 1
        opening = partial(open_configured, model)
        executor = RayExecutor(settings, opening, on_cpu=model.device == "cpu", gpus=gpus, note=self.note)
        return self._open.enter_context(executor)

    @cached_property
    def generator(self) -> Generator:
        """What answers in ``sample``, ``tune`` and ``evaluate``: started at the first answer, closed with the line."""
        if self.config.engine == "transformers":
            return TRANSFORMERS
        return self._open.enter_context(VllmEngine(self.config.vllm, self.config.model.trust_remote_code))

    @property
    def trace_file(self) -> Path | None:
        """The file of traces made elsewhere, if the run starts from one."""
        return Path(self.config.traces.path) if self.config.traces.path else None

    @property
    def trace_folders(self) -> list[str]:
        """Every folder of traces that the ``sample`` stage makes."""
        if self.trace_file or not self.config.gate.fitted:
            return [SAMPLED]
        return [SAMPLED, greedy_name(Split.TRAIN), greedy_name(Split.VALIDATION)]

    @property
    def recordings(self) -> list[str]:
        """Every folder of moments that the ``record`` stage makes."""
        if self.trace_file or not self.config.gate.fitted:
            return [SAMPLED]
        return [SAMPLED, prompts_name(Split.TRAIN), prompts_name(Split.VALIDATION)]

    @cached_property
    def grader(self) -> Grader:
        """The grader of every kind of answer; it ends with the line."""
        return self._open.enter_context(KindGrader())

    @property
    def checker(self) -> StepChecker | None:
        """The step checker of the task, where it has one."""
        return testbed_steps if self.config.task.source == "testbed" and not self.trace_file else None

    def problems(self, split: Split | None = None) -> list[Problem]:
        """Problems of a split, in order."""
        problems = read_table(self._made(self.directory.problems, "problems"), Problem)
        return [problem for problem in problems if split is None or problem.split is split]

    def traces(self, name: str) -> list[Trace]:
        """Traces of a folder."""
        return read_traces(self._made(self.directory.traces(name), "sample"))

    def grades(self, name: str) -> list[Grade]:
        """Grades of a folder of traces."""
        return read_table(self._made(self.directory.grades(name), "grade"), Grade)

    def contrast(self) -> list[ContrastRow]:
        """The contrast."""
        return read_table(self._made(self.directory.contrast, "contrast"), ContrastRow)

    def recording(self, name: str) -> Recording:
        """A recording."""
        return Recording(self._made(self.directory.activations(name), "record"))

    @property
    def records_while_sampling(self) -> bool:
        """Whether the traces are recorded in the forwards that sample them: asked for, or begun that way."""
        return self.config.recording.while_sampling or is_streamed(self.directory.activations(SAMPLED))

    def neurons(self, criterion: str) -> Neurons:
        """The ranked neurons of a criterion."""
        return load_neurons(self._made(self.directory.ranking(criterion), "rank"))

    def gate(self) -> AnyGate:
        """The gate of the steering: fitted, of the artifact, or ``always``."""
        if self.config.artifact.source:
            return self._artifact.gate
        if not self.config.gate.fitted:
            return ALWAYS
        self._made(self.directory.gate, "gate")
        return load_gate(self.directory.path)

    @cached_property
    def _artifact(self) -> Steering:
        settings = self.config.artifact
        steering = Steering.from_pretrained(settings.source)
        if steering.digest != settings.digest:
            raise ConfigError(
                f"the artifact at {settings.source} is not the one that this run began with (digest {settings.digest[:12]}, now "
                f"{steering.digest[:12]}); start another run, or put the old one back"
            )
        return rebind(steering, self.model.identity) if settings.force_model else steering

    def steering(self) -> Steering:
        """The steering under test: the artifact of the configuration, or the best point of the grid."""
        return self._artifact if self.config.artifact.source else self.steering_at(best_point(self.tune_points()))

    def tune_points(self) -> list[TunePoint]:
        """Every point of the grid."""
        return read_table(self._made(self.directory.tune, "tune"), TunePoint)

    def steering_at(self, point: TunePoint) -> Steering:
        """The steering of a grid point, behind the gate."""
        neurons = self.neurons(point.criterion)
        facts: dict[str, object] = {
            "criterion": point.criterion,
            "intervention": point.intervention,
            "k": point.k,
            "share": point.k / neurons.model.n_neurons,
            "tune": {"n": point.n, "unsteered": point.unsteered, "always": point.always, "gated": point.gated},
            "task": self.config.task.source,
            "seed": self.config.sampling.seed,
            **neurons.facts,
        }
        return Steering.of(
            neurons.top(point.k), point.strength, self.config.tune.scope, self.gate(), facts, INTERVENTIONS[point.intervention]
        )

    def prompts(self, split: Split) -> dict[str, tuple[int, ...]]:
        """The prompts of a split's problems as token ids, by problem id."""
        tokenizer, prompt = self.model.tokenizer, self.config.prompt
        return {problem.id: render_prompt(tokenizer, problem.question, prompt) for problem in self.problems(split)}

    def prompt_features(self, split: Split, scope: PromptScope) -> RecordedRows:
        """Recorded activations of a split's prompts, the last token or the mean over all."""
        return RecordedRows(self.recording(prompts_name(split)), scope, [problem.id for problem in self.problems(split)])

    def p_fail(self, gate: AnyGate, split: Split) -> dict[str, float]:
        """The gate's probability by problem id, from the recording where it holds what this gate reads, else from a forward."""
        settings = self.config
        if isinstance(gate, AttentionGate) or gate.scope not in settings.gate.recorded or split is Split.TEST:
            return predict(self.model, gate, self.prompts(split), batch_tokens=settings.recording.batch_tokens)
        probability = gate.probability(columns(self.prompt_features(split, gate.scope), gate.layer, gate.index))
        return {problem.id: float(p) for problem, p in zip(self.problems(split), probability, strict=True)}

    def outcomes(self) -> dict[str, list[Outcome]]:
        """Outcomes by condition."""
        conditions: dict[str, list[Outcome]] = {}
        for outcome in read_table(self._made(self.directory.outcomes, "evaluate"), Outcome):
            conditions.setdefault(outcome.condition, []).append(outcome)
        return conditions

    def failed(self, split: Split) -> NDArray[np.bool_]:
        """True where the greedy trace of a problem is not correct; the label of the gate."""
        by_problem = {grade.problem_id: grade.verdict != "correct" for grade in self.grades(greedy_name(split))}
        return np.array([by_problem[problem.id] for problem in self.problems(split)])

    @property
    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds by stage, of the calls that finished it."""
        path = self.directory.seconds
        return dict(read_json(path)) if path.exists() else {}  # type: ignore[call-overload]

    def note_seconds(self, stage: str, seconds: float) -> None:
        """Remember how long a stage took; kept apart from the results, which do not depend on time."""
        write_json(self.directory.seconds, {**self.seconds, stage: round(seconds, 3)})

    def _made(self, path: AnyPath, stage: str) -> AnyPath:
        if not path.exists():
            raise StoreError(f"{path} does not exist; run `trimtab {stage} {self.directory.path}` first")
        return path
