"""The verb ``sample``: problems to traces, in parts that a killed run keeps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from trimtab.execution import LOCAL, Executor
from trimtab.model import LanguageModel
from trimtab.progress import Advance, Progress, silent
from trimtab.recording import StreamedParts
from trimtab.sampling.batch import Request
from trimtab.sampling.decoding import SamplingSettings, row_seed
from trimtab.sampling.generate import Generation
from trimtab.sampling.generator import TRANSFORMERS, Generator
from trimtab.store import AnyPath, Parts, Plan, make_plan, read_table
from trimtab.tasks.prompts import CHAT, Prompt, check_prompts, render_prompt
from trimtab.traces import Problem, Trace


def requests_of(
    model: LanguageModel, problems: Sequence[Problem], settings: SamplingSettings, prompt: Prompt = CHAT
) -> dict[str, Request]:
    """One request per problem and sample, by trace id.

    Raises:
        InputError: the chat template fails, or leaves the question out.
    """
    prompts = [render_prompt(model.tokenizer, problem.question, prompt) for problem in problems]
    check_prompts([problem.question for problem in problems], prompts)
    return {
        (name := f"{problem.id}/{i}"): Request(name, prompt_ids, row_seed(settings.seed, problem.id, i))
        for problem, prompt_ids in zip(problems, prompts, strict=True)
        for i in range(settings.n)
    }


def plan_requests(
    model: LanguageModel,
    problems: Sequence[Problem],
    settings: SamplingSettings,
    prompt: Prompt = CHAT,
    facts: Mapping[str, object] | None = None,
    requests: Mapping[str, Request] | None = None,
) -> tuple[Mapping[str, Request], Plan]:
    """One request per problem and sample, and the length-sorted batches they run in.

    ``facts`` join what the plan's digest covers: a folder that was begun with others is not resumed. ``requests`` are those of
    :func:`requests_of` where they are known already; a chat template takes half a millisecond a prompt.
    """
    requests = requests_of(model, problems, settings, prompt) if requests is None else requests
    plan = make_plan(
        list(requests),
        [len(request.prompt_ids) + settings.max_new_tokens for request in requests.values()],
        settings.batch_tokens,
        {
            "sampling": settings.model_dump(),
            "prompt": prompt.model_dump(),
            "model": model.identity.fingerprint,
            "tokenizer": model.tokenizer_fingerprint,
            **(facts or {}),
        },
    )
    return requests, plan


@dataclass(frozen=True)
class SampleJob:
    """One folder of traces. ``moments`` are the parts that record the same forwards, where there are any; ``watch`` is shown the
    traces of every part that is sampled in this process."""

    requests: Mapping[str, Request]
    settings: SamplingSettings
    parts: Parts
    moments: StreamedParts | None = None
    generator: Generator = TRANSFORMERS
    label: str = "sample"
    watch: Callable[[Sequence[Trace]], None] | None = None

    @property
    def plan(self) -> Plan:
        return self.parts.plan

    def missing(self) -> list[int]:
        return sorted({*self.parts.missing(), *(self.moments.missing() if self.moments else ())})

    def run(self, model: LanguageModel, parts: Iterable[int], advance: Advance) -> None:
        for part in parts:
            ids = self.plan.parts[part]
            batch = [self.requests[trace_id] for trace_id in ids]
            if self.moments is None:
                generations = self.generator.generate(model, batch, self.settings)
            else:
                wanted = self.moments.settings
                generations, recorded = self.generator.generate_recorded(
                    model, batch, self.settings, wanted.scopes, wanted.moments
                )
                self.moments.write(part, recorded)
            traces = [as_trace(model, request, generation) for request, generation in zip(batch, generations, strict=True)]
            self.parts.write_table(part, traces)
            if self.watch is not None:
                self.watch(traces)
            advance(len(batch), sum(len(g.response_ids) for g in generations))


def sample_job(
    model: LanguageModel,
    problems: Sequence[Problem],
    settings: SamplingSettings,
    folder: AnyPath,
    *,
    prompt: Prompt = CHAT,
    moments: StreamedParts | None = None,
    generator: Generator = TRANSFORMERS,
    label: str = "sample",
    watch: Callable[[Sequence[Trace]], None] | None = None,
) -> SampleJob:
    """Plan what :func:`sample_traces` does, store the plan, and sample nothing yet."""
    requests, plan = plan_requests(model, problems, settings, prompt, generator.facts)
    parts = Parts(folder)
    parts.ensure_plan(plan)
    if moments is not None:
        moments.ensure_plan(plan)
    return SampleJob(requests, settings, parts, moments, generator, label, watch)


def sample_traces(
    model: LanguageModel,
    problems: Sequence[Problem],
    settings: SamplingSettings,
    folder: AnyPath,
    *,
    prompt: Prompt = CHAT,
    moments: StreamedParts | None = None,
    generator: Generator = TRANSFORMERS,
    executor: Executor = LOCAL,
    progress: Progress = silent,
) -> list[Trace]:
    """Sample ``settings.n`` traces for each problem into ``folder`` and return them in the order of the problems.

    Killed at any moment and called again, it goes on with the batches that are missing and ends with the same bytes.

    Args:
        model: the model.
        problems: what is asked.
        settings: how many responses, and how they are drawn.
        folder: of the traces.
        prompt: how a question becomes tokens.
        moments: also record every trace while it is sampled, into these parts.
        generator: the engine that answers.
        executor: who computes the parts.
        progress: shows how far the sampling is.

    Raises:
        ConfigError: the folder holds parts of another plan.
        ModelError: a logit is NaN.
    """
    job = sample_job(model, problems, settings, folder, prompt=prompt, moments=moments, generator=generator)
    executor.run(model, [job], progress)
    return read_traces(folder, list(job.requests))


def read_traces(folder: AnyPath, order: Sequence[str] | None = None) -> list[Trace]:
    """All traces of a folder, in the given order of ids or as they are stored."""
    parts = Parts(folder)
    traces = [trace for part in range(len(parts.plan.parts)) for trace in read_table(parts.path(part), Trace)]
    if order is None:
        return traces
    by_id = {trace.id: trace for trace in traces}
    return [by_id[trace_id] for trace_id in order]


def as_trace(model: LanguageModel, request: Request, generation: Generation) -> Trace:
    """A trace of a generation; its text leaves out the end token and the padding."""
    text = model.tokenizer.decode(list(generation.response_ids), skip_special_tokens=True)
    problem_id, _, sample = request.id.rpartition("/")
    return Trace(request.id, problem_id, int(sample), request.prompt_ids, generation.response_ids, str(text), generation.finish)
