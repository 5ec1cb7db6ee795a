"""vLLM as a generator: all requests of a call in one continuous batch, steered by the plugin."""

import gc
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from trimtab.errors import EngineError, InputError, ModelError, TrimtabError
from trimtab.gate import ALWAYS, RandomOpening, RunningGate
from trimtab.model import LanguageModel
from trimtab.model.plan import question_of
from trimtab.model.running import Course
from trimtab.moments import MOMENTS, Moments, TokenScope
from trimtab.sampling.batch import Request, end_tokens
from trimtab.sampling.decoding import SamplingSettings
from trimtab.sampling.generate import Generation
from trimtab.sampling.generator import RecordedGenerations
from trimtab.sampling.prefills import Prefills
from trimtab.steering import Steering
from trimtab.vllm_plugin.config import PLUGIN, Moment, PluginConfig, RecordConfig, check_version
from trimtab.vllm_plugin.courses import KEPT, places
from trimtab.vllm_plugin.offline import courses, gate_outputs, load, open_llm, unload
from trimtab.vllm_plugin.offline import moments as fetch_moments
from trimtab.vllm_plugin.options import RequestOptions
from trimtab.vllm_plugin.requests import RING
from trimtab.vllm_plugin.tables import linear_gates


class VllmOptions(BaseModel):
    """The user's settings of the engine; the rest follows from the model and the sampling settings.

    Args:
        gpu_memory: share of the GPU's memory for weights and cache. The transformers model stays open beside it, on the device of
            the configuration. On a CPU the cache is what VLLM_CPU_KVCACHE_SPACE says, in GiB.
        max_length: longest prompt with response, in tokens; 0 is the model's own limit, whose cache may not fit.
        enforce_eager: compile nothing, which starts in seconds and generates slower.
        tensor_parallel_size: GPUs that share each layer.
        neurons_per_layer, features_per_layer: room in each layer for what steerings change and gates read. A steering that needs
            more makes the engine start again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpu_memory: float = Field(default=0.9, gt=0.0, le=1.0)
    max_length: int = Field(default=0, ge=0)
    enforce_eager: bool = False
    tensor_parallel_size: int = Field(default=1, ge=1)
    neurons_per_layer: int = Field(default=64, ge=0)
    features_per_layer: int = Field(default=64, ge=0)


_SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process, where it schedules the same way every time
    "VLLM_RAISE_ON_LOGIT_NANS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


@contextmanager
def vllm_environment() -> Iterator[None]:
    """Make engines that start within run in this process, log errors only, and refuse logits that are NaN.

    What the user has set stays as it is. Enter it before vLLM is imported, for it reads the log level then.
    """
    added = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def starting_vllm() -> Iterator[None]:
    """Silence deprecation warnings while vLLM is imported and an engine starts: they address its authors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@dataclass(frozen=True, slots=True)
class Needs:
    """The properties that an engine must be started with.

    Args:
        model: fingerprint and dtype.
        neurons, features: columns of the fullest layer.
        record: None where nothing is recorded.
    """

    model: str
    neurons: int = 1
    features: int = 0
    record: RecordConfig | None = None

    def covers(self, other: "Needs") -> bool:
        """Tell whether an engine that was started for these needs also serves the others."""
        room = self.neurons >= other.neurons and self.features >= other.features
        return self.model == other.model and room and other.record in (None, self.record)

    def joined(self, other: "Needs") -> "Needs":
        """Return the other's needs, with at least the room of these."""
        return Needs(other.model, max(self.neurons, other.neurons), max(self.features, other.features), other.record)


def attached(steering: Steering | None, gate: Literal["auto", "on", "off"]) -> Steering | None:
    """Return the steering to load: without its gate where the caller decides by request, None where it never steers."""
    if steering is None or gate == "off":
        return None
    if not len(steering):
        raise ModelError(
            "this steering has no neurons, so attaching it would change nothing; select at least one neuron",
            code="nothing-to-steer",
        )
    if steering.has_directions:
        raise ModelError(
            "vLLM steers neurons, and this steering adds a direction to the residual stream; use engine transformers"
        )
    alone = gate == "on" or isinstance(steering.gate, RandomOpening)  # which is drawn by request, see first_tokens
    chosen = steering.with_gate(ALWAYS) if alone else steering
    return None if chosen.gate.kind == "never" else chosen


def first_tokens(steering: Steering | None, gate: Literal["auto", "on", "off"], requests: Sequence[Request]) -> list[int] | None:
    """Return the token of each response from which a control that opens at random steers, 0 for none; None without one."""
    if steering is None or gate != "auto" or not isinstance(steering.gate, RandomOpening):
        return None
    return [steering.gate.draw(request.prompt_ids) for request in requests]


def needs_of(model: str, steering: Steering | None) -> Needs:
    """Return the needs of a steering; None stands for the bare model."""
    if steering is None:
        return Needs(model)
    read = [(gate.layer, gate.index) for gate in linear_gates(steering.gate)]
    places = np.unique(np.concatenate([np.stack(each, 1) for each in read]), axis=0) if read else np.zeros((0, 2), np.int64)
    features = int(np.bincount(places[:, 0]).max()) if read else 0
    return Needs(model, int(np.bincount(steering.layer).max()), features)


_CPU_CACHE_BYTES, _CPU_STEP_TOKENS = 4 * 2**30, 4096


class VllmEngine:
    """One vLLM engine in this process. It starts at the first call, and again when a call needs more than it was started with.

    Steerings come and go with the calls. A gate is read and decided in the engine. Greedy responses are those of the transformers
    loop up to the first near tie; sampled ones draw from vLLM's random numbers, seeded by request. Each call begins with an empty
    prefix cache, so that a part holds the same whatever was generated before it. Threads that share an engine take turns, a call
    at a time: vLLM's own LLM is for one thread.

    Example:
        >>> with VllmEngine() as engine:  # doctest: +SKIP
        ...     generations = engine.generate(model, requests, settings, steering, "auto")
        >>> generations[0].p_fail  # doctest: +SKIP
        0.81
    """

    def __init__(
        self,
        options: VllmOptions | None = None,
        trust_remote_code: bool = False,
        expected: Mapping[str, object] | None = None,
    ) -> None:
        """Configure an engine that is not started yet.

        Args:
            options: of the engine.
            trust_remote_code: allow a model's repository to bring its own configuration code.
            expected: the facts that plans were made with, where an engine of another process made them.
        """
        self.options = options or VllmOptions()
        self._trust_remote_code, self._expected = trust_remote_code, expected
        self._turn = threading.RLock()
        self._running = ExitStack()
        self._llm: Any = None
        self._started: Needs | None = None
        self._loaded: str | None = None
        self._folder = Path()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        """Start anew in another process, and refuse another version there."""
        return type(self), (self.options, self._trust_remote_code, self.facts)

    @property
    def facts(self) -> Mapping[str, object]:
        """The engine, its version and the settings that decide how it rounds."""
        return {
            "engine": {
                "name": "vllm",
                "version": check_version(),
                "plugin": PLUGIN,
                "enforce_eager": self.options.enforce_eager,
                "tensor_parallel_size": self.options.tensor_parallel_size,
            }
        }

    def generate(
        self,
        model: LanguageModel,
        requests: Sequence[Request],
        settings: SamplingSettings,
        steering: Steering | None = None,
        gate: Literal["auto", "on", "off"] = "auto",
        prefills: Prefills | None = None,  # noqa: ARG002 vLLM has a prefix cache of its own
        drafts: Mapping[str, Sequence[int]] | None = None,  # noqa: ARG002 and batches rows of any length
    ) -> list[Generation]:
        """Answer all requests; see :meth:`Generator.generate`.

        Raises:
            InputError: a prompt with its response is longer than the engine takes.
            ModelError: vLLM is not installed, cannot run or steer this model, or gave NaN logits.
        """
        with self._turn:
            chosen = attached(steering, gate)
            self._start(model, needs_of(_model(model), chosen))
            self._hold(chosen)
            opened = first_tokens(steering, gate, requests)
            firsts = dict(zip([request.id for request in requests], opened or [1] * len(requests), strict=True))
            reads = chosen is not None and question_of(chosen.gate) is not None
            runs = chosen is not None and isinstance(chosen.gate, RunningGate)
            found: list[Generation] = []
            remembered = RING if reads else len(requests)
            if runs:
                remembered = min(remembered, max(1, KEPT // places(settings.max_new_tokens)))
            for some in _slices(requests, remembered):
                asked = [self._options(firsts[request.id]) for request in some]
                answers = self._answer(model, some, settings, asked)
                p_fail = self._probabilities(answers) if reads else [None] * len(answers)
                courses = self._courses(answers) if runs else [None] * len(answers)
                if opened is not None:
                    courses = [opening(firsts[request.id], settings.max_new_tokens) for request in some]
                found += _generations(end_tokens(model, settings.stop), some, answers, p_fail, courses)
            return found

    def _options(self, first: int) -> RequestOptions:
        """Return the options of a request that is steered from this token on, 0 for none."""
        return RequestOptions(steering=self._loaded, first_token=first if first > 1 else None) if first else RequestOptions()

    def generate_recorded(
        self,
        model: LanguageModel,
        requests: Sequence[Request],
        settings: SamplingSettings,
        scopes: Sequence[TokenScope],
        moments: Sequence[str],
    ) -> RecordedGenerations:
        """Answer all requests and sum up activations in the engine; see :meth:`Generator.generate_recorded`.

        Raises:
            InputError: unknown moments, or none; and as :meth:`generate`.
            ModelError: as :meth:`generate`, or activations that are not finite.
        """
        unknown = set(moments) - set(MOMENTS)
        if unknown or not moments:
            raise InputError(f"unknown moments {sorted(unknown)}; accepted: {', '.join(MOMENTS)}")
        with self._turn:
            names = cast("tuple[Moment, ...]", tuple(moments))
            record = RecordConfig(moments=names, scopes=tuple(scopes))
            self._start(model, Needs(_model(model), record=record))
            self._hold(None)
            answers = self._answer(model, requests, settings, [RequestOptions(record=True)] * len(requests))
            nothing = [None] * len(answers)
            generations = _generations(end_tokens(model, settings.stop), requests, answers, nothing, nothing)
            recorded = fetch_moments(self._llm, [answer.request_id for answer in answers])
            return RecordedGenerations(generations, cast("dict[TokenScope, Moments]", recorded))

    def close(self) -> None:
        """Stop the engine and free its memory; does nothing the second time."""
        with self._turn:
            self._running.close()
            self._llm = self._started = self._loaded = None
            gc.collect()  # the engine's objects refer to each other

    def _answer(
        self,
        model: LanguageModel,
        requests: Sequence[Request],
        settings: SamplingSettings,
        options: Sequence[RequestOptions],
    ) -> list[Any]:
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

        longest = max(len(request.prompt_ids) for request in requests) + settings.max_new_tokens
        room = self._llm.llm_engine.model_config.max_model_len
        if longest > room:
            raise InputError(
                f"a prompt with {settings.max_new_tokens} new tokens comes to {longest} tokens, and this engine takes {room}; "
                "lower sampling.max_new_tokens, or raise vllm.max_length where the model allows it",
                code="prompt-too-long",
            )
        ends, sampled = list(end_tokens(model, settings.stop)), settings.temperature > 0.0
        parameters = [
            SamplingParams(
                temperature=settings.temperature,
                top_p=settings.top_p,
                seed=request.seed if sampled else None,
                max_tokens=settings.max_new_tokens,
                stop_token_ids=ends,
                detokenize=False,
                extra_args=own.extra_args(),
            )
            for request, own in zip(requests, options, strict=True)
        ]
        prompts = [{"prompt_token_ids": list(request.prompt_ids)} for request in requests]
        self._llm.reset_prefix_cache()
        try:
            return self._llm.generate(prompts, parameters, use_tqdm=False)
        except RuntimeError as cause:
            if "NaN" not in str(cause):
                raise
            raise ModelError(f"{model.identity.name} gave NaN logits in vLLM; try dtype float32", code="nan-logits") from cause

    def _probabilities(self, answers: Sequence[Any]) -> list[float]:
        """Return p(fail) of each answer, as the engine's gate has read it."""
        told = gate_outputs(self._llm, [answer.request_id for answer in answers])
        found = [None if one is None else one["p_fail"] for one in told]
        if None in found:
            raise ModelError(
                f"vLLM remembers no gate of request {found.index(None)} of {len(found)}; run it again, and report this"
            )
        return cast("list[float]", found)

    def _courses(self, answers: Sequence[Any]) -> list[Course]:
        """Return what the running gate did in each response; a token more where the engine has scheduled one ahead."""
        found = courses(self._llm, [answer.request_id for answer in answers])
        if any(one is None for one in found):
            raise ModelError("vLLM remembers no course of a response; run it again, and report this")
        return [Course(*torch.from_numpy(one.T.copy())) for one in found if one is not None]

    def _hold(self, steering: Steering | None) -> None:
        """Load this steering and unload the one before it."""
        name = None if steering is None else steering.digest
        if name == self._loaded:
            return
        if self._loaded is not None:
            unload(self._llm, self._loaded)
            self._loaded = None
        if steering is not None and name is not None:
            folder = self._folder / name
            steering.save_pretrained(folder, force=True)
            load(self._llm, name, folder)
            self._loaded = name

    def _start(self, model: LanguageModel, needs: Needs) -> None:
        if self._started is not None and self._started.covers(needs):
            return
        if self._expected not in (None, self.facts):
            raise EngineError(
                f"this engine is {self.facts}, and the run was planned with {self._expected}; install the same vLLM"
            )
        least = Needs(needs.model, self.options.neurons_per_layer, self.options.features_per_layer)
        needs = (self._started or least).joined(least.joined(needs))
        self.close()
        with ExitStack() as stack:
            stack.enter_context(vllm_environment())
            self._folder = Path(stack.enter_context(TemporaryDirectory(prefix="trimtab-")))
            with starting_vllm():
                self._llm = self._open(model, needs)
            stack.callback(self._llm.llm_engine.engine_core.shutdown)
            self._running = stack.pop_all()
        self._started = needs

    def _open(self, model: LanguageModel, needs: Needs) -> Any:
        room = PluginConfig(
            max_steerings=2,
            neurons_per_layer=needs.neurons,
            features_per_layer=needs.features,
            record=needs.record,
            self_test=True,
        )
        longest = self.options.max_length or model.hf_model.config.get_text_config().max_position_embeddings
        on_device = _on_cpu(longest) if model.device.type == "cpu" else {"gpu_memory_utilization": self.options.gpu_memory}
        try:
            return open_llm(
                str(model.hf_model.name_or_path),
                room,
                revision=model.identity.revision,
                dtype=str(model.hf_model.dtype).removeprefix("torch."),
                max_model_len=longest,
                enforce_eager=self.options.enforce_eager,
                tensor_parallel_size=self.options.tensor_parallel_size,
                trust_remote_code=self._trust_remote_code,
                generation_config="vllm",
                skip_tokenizer_init=True,
                use_tqdm_on_load=False,
                **on_device,
            )
        except TrimtabError as cause:
            raise EngineError(str(cause)) from cause
        except (ImportError, OSError, ValueError, RuntimeError) as cause:
            reason = " ".join(str(cause).split())[:600]
            raise EngineError(
                f"vLLM cannot run {model.identity.name}: {reason}. Fix: see docs/vllm.md, or use engine transformers",
                code="cannot-run",
            ) from cause


def _on_cpu(longest: int) -> dict[str, object]:
    """Return the engine arguments that only a CPU needs."""
    arguments: dict[str, object] = {
        # a prompt read in pieces makes its sampler set back a seeded generator, which those of CPUs cannot
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(longest, _CPU_STEP_TOKENS),
    }
    if "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
        arguments["kv_cache_memory_bytes"] = _CPU_CACHE_BYTES
    return arguments


def _model(model: LanguageModel) -> str:
    return f"{model.identity.fingerprint} {model.hf_model.dtype}"


def _slices(requests: Sequence[Request], most: int) -> list[Sequence[Request]]:
    return [requests[start : start + most] for start in range(0, len(requests), most)]


def opening(first: int, tokens: int) -> Course:
    """Return the course of a response that is steered from a token on, 0 for none, as far as it can go."""
    number = torch.arange(1, tokens + 1)
    return Course(torch.full((tokens,), torch.nan), ((first > 0) & (number >= first)).float())


def _generations(
    ends: tuple[int, ...],
    requests: Sequence[Request],
    answers: Sequence[Any],
    p_fail: Sequence[float | None],
    courses: Sequence[Course | None],
) -> list[Generation]:
    found = []
    for request, answer, probability, course in zip(requests, answers, p_fail, courses, strict=True):
        ids = tuple(answer.outputs[0].token_ids)
        done = None if course is None else course.upto(len(ids) - 1)
        found.append(Generation(request.id, ids, "stop" if ids[-1] in ends else "length", probability, done))
    return found
