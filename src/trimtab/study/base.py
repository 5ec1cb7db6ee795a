"""The base of a study: settings, model, executor, engine, grader, and the cache that keeps every result under its key."""

import logging
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import torch
import transformers

from trimtab.errors import ConfigError
from trimtab.execution import LOCAL, Executor, Job, ProcessExecutor
from trimtab.model import LanguageModel, checkpoint_dtype, open_model
from trimtab.progress import Progress, silent
from trimtab.sampling import TRANSFORMERS, Generator, VllmEngine
from trimtab.store import (
    AnyPath,
    Cache,
    Entry,
    any_path,
    default_root,
    digest_of,
    parse_toml,
    read_json,
    read_text,
    refuse_foreign,
    sealed_toml,
    to_toml,
    write_json,
    write_text,
)
from trimtab.study import along, answers, find, gather, judge, tuning
from trimtab.study.settings import (
    KEYS,
    ModelSettings,
    Settings,
    changed,
    load_settings,
    parse_settings,
    stored_keys,
)
from trimtab.study.values import Evaluation, Tuning
from trimtab.tasks import Grader
from trimtab.tasks.grading import KindGrader
from trimtab.tasks.grading.grade import StepChecker, testbed_steps
from trimtab.tasks.grading.grader import VERSIONS as GRADER_VERSIONS
from trimtab.tasks.settings import LOCAL as LOCAL_FILE
from trimtab.tasks.settings import TESTBED

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from trimtab.study.answers import KeptPrompts


logger = logging.getLogger(__name__)
Value = TypeVar("Value")
Method = TypeVar("Method", bound=Callable[..., object])

RUN_FILE, SECONDS = "run.toml", "seconds.json"
IN_MEMORY = "memory"


class StudyBase:
    """The inputs of a study and its cache; the verbs are in :class:`trimtab.study.Study`, which says what the arguments mean."""

    def __init__(
        self,
        model: "str | os.PathLike[str] | PreTrainedModel | LanguageModel" = "",
        tokenizer: "PreTrainedTokenizerBase | None" = None,
        *,
        task: "str | Sequence[Mapping[str, object]] | datasets.Dataset | Mapping[str, object]" = "",
        train: int | None = None,
        validation: int | None = None,
        test: int | None = None,
        path: "str | os.PathLike[str] | AnyPath | None" = None,
        settings: Settings | Mapping[str, object] | None = None,
        progress: Progress = silent,
        note: Callable[[str], None] = logger.warning,
    ) -> None:
        self.path = None if path is None else any_path(path)
        self.cache = Cache(self.path if self.path is not None else default_root())
        if self.path is not None:
            refuse_foreign(self.path, (RUN_FILE,))
        self.progress, self.note = progress, note
        self.keys: dict[str, str] = {}
        self._given = _loaded(model, tokenizer)
        self._memo: dict[str, object] = {}
        self._told: set[str] = set()
        self._saved: dict[str, str] = {}
        self._opening: list[str] = []
        self.kept_prompts: KeptPrompts | None = None
        self._tuning: Tuning | None = None
        self._judged: tuple[Evaluation, Tuning | None] | None = None
        self._open = ExitStack()
        self._finalizer = weakref.finalize(self, self._open.close)
        sections = settings.model_dump(mode="json") if isinstance(settings, Settings) else dict(settings or {})
        if isinstance(model, str | os.PathLike) and str(model):
            sections["model"] = {**_section(sections, "model"), "source": str(model)}
        elif self._given is not None:
            sections["model"] = {**_section(sections, "model"), "source": IN_MEMORY}
        counts = {name: n for name, n in (("train", train), ("validation", validation), ("test", test)) if n is not None}
        if not isinstance(task, str) or task or counts:
            sections["task"] = {**_section(sections, "task"), **self._task_section(task), **counts}
        self.settings = parse_settings(sections, "the study")
        if self.settings.model.source == IN_MEMORY and self._given is None:
            raise ConfigError(
                "this study's model was given in memory; open it again and pass it: Study(model, tokenizer, settings=...)",
                code="model-in-memory",
            )

    @classmethod
    def from_toml(
        cls,
        source: "str | os.PathLike[str] | AnyPath",
        *,
        path: "str | os.PathLike[str] | AnyPath | None" = None,
        progress: Progress = silent,
        note: Callable[[str], None] = logger.warning,
    ) -> Self:
        """The study of a settings file, or of a run directory, which is its path then.

        Args:
            source: a TOML file, or a run directory.
            path: where results are kept.
        """
        file = any_path(source)
        if (file / RUN_FILE).exists():
            path, file = file if path is None else path, file / RUN_FILE  # type: ignore[assignment]
        return cls(path=path, settings=load_settings(file), progress=progress, note=note)

    def to_toml(self) -> str:
        """All settings as ``run.toml`` holds them, with the key of each stage as the last table."""
        stages = {stage: name for stage, name in sorted(self.keys.items()) if stage != name}
        return to_toml({**self.settings.stored(), KEYS: stages})

    def close(self) -> None:
        """Leave the executor's cluster, the engine and the graders' processes; a later verb opens them again."""
        self._open.close()
        for name in ("executor", "generator", "grader"):
            self.__dict__.pop(name, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        task = self.settings.task
        where = self.path if self.path is not None else self.cache.root
        counts = f"{task.train} train, {task.validation} validation, {task.test} test"
        return f"Study of {self.settings.model.source} on {task.source} (at most {counts} problems)\nkept in {where}"

    # --- what verbs and experiments work with ------------------------------------------------------------------------------

    @cached_property
    def model(self) -> LanguageModel:
        """The model, opened when it is first needed."""
        if self._given is not None:
            return self._given
        return open_configured(self.settings.model, self.executor.driver_device)

    @cached_property
    def executor(self) -> Executor:
        """The executor of the parts; its cluster is left, and its processes end, when the study is closed."""
        settings, model, vllm = self.settings.executor, self.settings.model, self.settings.engine == "vllm"
        if settings.kind == "local":
            return LOCAL
        if self._given is not None:
            raise ConfigError(
                "a model given in memory cannot be sent to other processes; give a hub id, or a folder that every node can read"
            )
        opening = partial(open_configured, model)
        if settings.kind == "processes":
            if vllm:
                raise ConfigError("an engine of vLLM uses all cores by itself; leave out --executor processes, or use ray")
            return self._open.enter_context(ProcessExecutor(settings, opening, note=self.note))
        from trimtab.execution.ray_executor import RayExecutor

        gpus = self.settings.vllm.tensor_parallel_size if vllm else 1
        executor = RayExecutor(settings, opening, on_cpu=model.device == "cpu", gpus=gpus, note=self.note)
        return self._open.enter_context(executor)

    @cached_property
    def generator(self) -> Generator:
        """The generator: the transformers loop, or a vLLM engine started at the first response."""
        if self.settings.engine == "transformers":
            return TRANSFORMERS
        return self._open.enter_context(VllmEngine(self.settings.vllm, self.settings.model.trust_remote_code))

    @cached_property
    def grader(self) -> Grader:
        """The grader of every kind of answer."""
        return self._open.enter_context(KindGrader())

    @property
    def grader_facts(self) -> dict[str, object]:
        """Facts about the graders, for cache keys."""
        versions = {kind.value: number for kind, number in GRADER_VERSIONS.items()}
        return {"grader": versions, "checker": self.checker is not None}

    @property
    def checker(self) -> StepChecker | None:
        """The step checker of the task, where it has one."""
        return testbed_steps if self.settings.task.source == TESTBED and not self.settings.traces.path else None

    # --- the cache ---------------------------------------------------------------------------------------------------------

    def entry(self, verb: str, facts: Mapping[str, object], model: LanguageModel | None = None) -> Entry:
        """The cache entry of a verb: its version, the model where it reads one, and all that decides the result."""
        versions = {**gather.VERSIONS, **find.VERSIONS, **answers.VERSIONS, **tuning.VERSIONS, **judge.VERSIONS, **along.VERSIONS}
        reads_model = verb not in ("problems", "grade", "contrast")
        named = {"model": self.model_key(model)} if reads_model else {}
        repeat = {"repeat": self.settings.repeat} if verb in ("sample", "answers", "recur") else {}
        return self.cache.entry(verb, {**facts, **named, **repeat, "version": versions[verb]})

    def model_key(self, model: LanguageModel | None = None) -> str:
        """The model's name in keys: its fingerprint, or for one given in memory a digest of all its weights as they are now."""
        used = model or self.model
        if used is not self._given:
            return used.identity.fingerprint
        from trimtab.model.identity import weights_digest

        return weights_digest(used.hf_model)

    def engine_facts(self) -> dict[str, object]:
        """The facts of generation that decide the last bits: engine and versions, dtype, kind of device."""
        return {"engine": {**self.forward_facts(), **self.generator.facts}}

    def forward_facts(self) -> dict[str, object]:
        """The facts of a forward that decide the last bits."""
        return {
            "torch": torch.__version__.partition("+")[0],
            "transformers": transformers.__version__,
            "dtype": str(self.model.hf_model.dtype),
            "device": self.model.device.type,
            "attention": str(self.model.hf_model.config._attn_implementation),
        }

    def compute(self, stage: str, entry: Entry, work: "Callable[[AnyPath], None]", read: "Callable[[AnyPath], Value]") -> Value:
        """The value of an entry, computed where it is missing; the study refers to its key from now on."""
        self.note_key(stage, entry)
        if entry.name not in self._memo:
            start, before = time.perf_counter(), entry.done
            self._memo[entry.name] = self.cache.compute(entry, work, read)  # type: ignore[arg-type]
            if not before:
                self.note_seconds(stage, time.perf_counter() - start)
        return self._memo[entry.name]  # type: ignore[return-value]

    def remember(self, entry: Entry, read: Callable[[], Value]) -> Value:
        """A value that is read once for the life of the study."""
        if entry.name not in self._memo:
            self._memo[entry.name] = read()
        return self._memo[entry.name]  # type: ignore[return-value]

    def tell_once(self, what: str) -> bool:
        """Whether this is the first time that the user is told of something."""
        first = what not in self._told
        self._told.add(what)
        return first

    def note_key(self, stage: str, entry: Entry) -> None:
        """Refer to an entry, so that pruning leaves it alone."""
        self.note_keys({stage: entry})

    def note_keys(self, entries: Mapping[str, Entry]) -> None:
        """Refer to several entries."""
        self.keys |= {stage: entry.name for stage, entry in entries.items()}
        if self._saved != self.keys:
            self.cache.write_study(self.settings.stored(), self.keys)
            self._saved = dict(self.keys)

    def note_seconds(self, stage: str, seconds: float) -> None:
        """Remember how long a stage took; kept apart from the results, which do not depend on time."""
        write_json(self.cache.root / SECONDS, {**self.seconds, stage: round(seconds, 3)}, "")

    @property
    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds by stage, of the calls that finished it."""
        path = self.cache.root / SECONDS
        return dict(read_json(path, "")) if path.exists() else {}  # type: ignore[call-overload]

    def run(self, jobs: Sequence[Job], model: LanguageModel | None = None, executor: Executor | None = None) -> None:
        """Have the executor write the missing parts of some jobs; a model that is open here alone writes its own here."""
        if jobs:
            elsewhere = self.executor if model is None or model is self.model else LOCAL
            (executor or elsewhere).run(model or self.model, jobs, self.progress)

    def save(self) -> None:
        """Leave ``run.toml`` in the study's path: the settings, and the key of each stage, earlier runs' among them."""
        path = self.cache.root / RUN_FILE
        if path.exists():
            self.keys = {**stored_keys(path, self.settings), **self.keys}
        text = sealed_toml(parse_toml(self.to_toml()), path)
        if not path.exists() or read_text(path) != text:
            write_text(path, text)

    # --- settings ----------------------------------------------------------------------------------------------------------

    def _set(self, section: str, settings: Mapping[str, object]) -> None:
        """Remember the settings that a verb was given; all of them are checked together, as ``run.toml`` is."""
        if settings:
            changed(getattr(self.settings, section), settings, section)
            sections = self.settings.model_dump(mode="json")
            sections[section] |= settings
            self.settings = parse_settings(sections, section)

    def _task_section(
        self, task: "str | Sequence[Mapping[str, object]] | datasets.Dataset | Mapping[str, object]"
    ) -> dict[str, object]:
        """The ``[task]`` section of what was given; problems in memory are kept as a file in the cache."""
        if isinstance(task, str):
            return {"source": task} if task else {}
        if isinstance(task, Mapping):
            return dict(task)
        rows = gather.memory_problems(list(task))
        cache = self.cache if isinstance(self.cache.root, Path) else Cache(default_root())
        entry = cache.entry("rows", {"rows": digest_of(rows)})
        cache.compute(entry, lambda folder: gather.write_rows(folder / "problems.jsonl", rows), Cache)
        n = len(rows)
        return {"source": f"{LOCAL_FILE}{entry.folder / 'problems.jsonl'}", "train": n, "validation": n, "test": n}


def open_configured(model: ModelSettings, device: str = "") -> LanguageModel:
    """The model of the settings; on another device it keeps the dtype that it has on its own."""
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


def _loaded(model: object, tokenizer: object) -> LanguageModel | None:
    """The model that was given in memory, with its tokenizer; None where it is to be opened."""
    if isinstance(model, str | os.PathLike):
        if tokenizer is not None:
            raise ConfigError(f"a tokenizer goes with a loaded model; {model!r} is opened with its own: leave the tokenizer out")
        return None
    if isinstance(model, LanguageModel):
        return model
    if tokenizer is None:
        raise ConfigError("a loaded model needs its tokenizer: Study(model, tokenizer, task=...)", code="no-tokenizer")
    return LanguageModel.of(model, tokenizer)  # type: ignore[arg-type]


def _section(sections: Mapping[str, object], name: str) -> dict[str, object]:
    section = sections.get(name, {})
    if not isinstance(section, Mapping):
        raise ConfigError(f"the section [{name}] is a {type(section).__name__}; give a mapping of settings")
    return dict(section)
