"""The verb ``sample``: problems to traces, in parts that a killed run keeps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from trimtab.model import OpenModel
from trimtab.progress import Progress, silent
from trimtab.recording import StreamedParts
from trimtab.sampling.draw import row_seed
from trimtab.sampling.generate import Generation, Request, generate_batch
from trimtab.sampling.recorder import Recorder
from trimtab.sampling.settings import SamplingSettings
from trimtab.store import Parts, Plan, make_plan, read_table
from trimtab.tasks.prompts import CHAT, Prompt, render_prompt
from trimtab.traces import Problem, Trace


def plan_requests(
    opened: OpenModel,
    problems: Sequence[Problem],
    settings: SamplingSettings,
    prompt: Prompt = CHAT,
    facts: Mapping[str, object] | None = None,
) -> tuple[dict[str, Request], Plan]:
    """One request per problem and sample, and the length-sorted batches they run in.

    ``facts`` join what the plan's digest covers: a folder that was begun with others is not resumed.
    """
    requests = {}
    for problem in problems:
        prompt_ids = render_prompt(opened.tokenizer, problem.question, prompt)
        for sample in range(settings.n):
            trace_id = f"{problem.id}/{sample}"
            requests[trace_id] = Request(trace_id, prompt_ids, row_seed(settings.seed, problem.id, sample))
    plan = make_plan(
        list(requests),
        [len(request.prompt_ids) + settings.max_new_tokens for request in requests.values()],
        settings.batch_tokens,
        {
            "sampling": settings.model_dump(),
            "prompt": prompt.model_dump(),
            "model": opened.identity.fingerprint,
            "tokenizer": opened.tokenizer_fingerprint,
            **(facts or {}),
        },
    )
    return requests, plan


def sample_traces(
    opened: OpenModel,
    problems: Sequence[Problem],
    settings: SamplingSettings,
    folder: Path,
    *,
    prompt: Prompt = CHAT,
    moments: StreamedParts | None = None,
    progress: Progress = silent,
) -> list[Trace]:
    """Sample ``settings.n`` traces for each problem into ``folder`` and return them in the order of the problems.

    Killed at any moment and called again, it goes on with the batches that are missing and ends with the same bytes.

    Args:
        opened: the model.
        problems: what is asked.
        settings: how many chains, and how they are drawn.
        folder: of the traces.
        prompt: how a question becomes tokens.
        moments: also record every trace while it is sampled, into these parts.
        progress: for the person who waits.

    Raises:
        ConfigError: the folder holds parts of another plan.
        ModelError: a logit is NaN.
    """
    requests, plan = plan_requests(opened, problems, settings, prompt)
    parts = Parts(folder)
    parts.ensure_plan(plan)
    missing = parts.missing()
    if moments is not None:
        moments.ensure_plan(plan)
        missing = sorted({*missing, *moments.missing()})
    done = len(requests) - sum(len(plan.parts[part]) for part in missing)
    with progress(f"sample {folder.name}", len(requests), done) as advance:
        for part in missing:
            batch = [requests[trace_id] for trace_id in plan.parts[part]]
            recorder = (
                None if moments is None else Recorder(opened, plan.parts[part], moments.settings.scopes, moments.settings.moments)
            )
            generations = generate_batch(opened, batch, settings, recorder=recorder)
            traces = [as_trace(opened, request, generation) for request, generation in zip(batch, generations, strict=True)]
            if moments is not None and recorder is not None:
                moments.write(part, recorder.moments())
            parts.write_table(part, traces)
            advance(len(batch), sum(len(g.response_ids) for g in generations))
    return read_traces(folder, list(requests))


def read_traces(folder: Path, order: Sequence[str] | None = None) -> list[Trace]:
    """All traces of a folder, in the given order of ids or as they are stored."""
    parts = Parts(folder)
    traces = [trace for part in range(len(parts.plan.parts)) for trace in read_table(parts.path(part), Trace)]
    if order is None:
        return traces
    by_id = {trace.id: trace for trace in traces}
    return [by_id[trace_id] for trace_id in order]


def as_trace(opened: OpenModel, request: Request, generation: Generation) -> Trace:
    """A trace of a generation; its text leaves out the end token and the padding."""
    text = opened.tokenizer.decode(list(generation.response_ids), skip_special_tokens=True)
    problem_id, _, sample = request.id.rpartition("/")
    return Trace(request.id, problem_id, int(sample), request.prompt_ids, generation.response_ids, str(text), generation.finish)
