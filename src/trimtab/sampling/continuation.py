"""Responses that go on from a beginning: its tokens are given, and the bare model writes the rest."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from trimtab.errors import InputError
from trimtab.model import LanguageModel
from trimtab.sampling.batch import Request
from trimtab.sampling.decoding import SamplingSettings, row_seed
from trimtab.sampling.generate import Generation
from trimtab.sampling.generator import TRANSFORMERS, Generator
from trimtab.sampling.sample import SampleJob
from trimtab.steering import Steering
from trimtab.store import AnyPath, Parts, make_plan
from trimtab.traces import Trace


def after_beginning(
    generator: Generator,
    model: LanguageModel,
    requests: Sequence[Request],
    settings: SamplingSettings,
    steering: Steering | None,
    gate: Literal["auto", "on", "off"],
    tokens: int,
) -> list[Generation]:
    """The first tokens of each response under a steering, all others by the bare model.

    The bare model reads question and beginning anew, so nothing of the steering but these tokens reaches what follows.

    Args:
        generator: the engine.
        model: the model.
        requests: prompts and seeds; what follows a beginning draws from a seed of its own.
        settings: of the whole responses.
        steering, gate: of the beginning.
        tokens: how many it has; a response that ends before is left as it is.

    Raises:
        InputError: a beginning of no token, or one that leaves no room for another.
    """
    if not 1 <= tokens < settings.max_new_tokens:
        raise InputError(
            f"a beginning of {tokens} tokens must have at least one and fewer than max_new_tokens, {settings.max_new_tokens}; "
            "lower evaluation.first_tokens or raise sampling.max_new_tokens"
        )
    begun = generator.generate(model, requests, settings.model_copy(update={"max_new_tokens": tokens}), steering, gate)
    unfinished = [
        Request(request.id, request.prompt_ids + start.response_ids, row_seed(request.seed, "continuation", 0))
        for request, start in zip(requests, begun, strict=True)
        if start.finish == "length"
    ]
    rest = settings.model_copy(update={"max_new_tokens": settings.max_new_tokens - tokens})
    ends = {one.id: one for one in generator.generate(model, unfinished, rest)} if unfinished else {}
    return [
        replace(ends[start.id], response_ids=start.response_ids + ends[start.id].response_ids, p_fail=start.p_fail)
        if start.id in ends
        else start
        for start in begun
    ]


def beginning(trace: Trace, share: float) -> tuple[int, ...]:
    """The first tokens of a response: a share of them, at least one and never the last.

    Example:
        >>> beginning(Trace("p/0", "p", 0, (1,), (5, 6, 7, 8, 2), "", "stop"), 0.5)
        (5, 6)
    """
    return trace.response_ids[: max(1, min(int(share * len(trace.response_ids)), len(trace.response_ids) - 1))]


def continuations_job(
    model: LanguageModel,
    traces: Sequence[Trace],
    share: float,
    times: int,
    settings: SamplingSettings,
    folder: AnyPath,
    *,
    generator: Generator = TRANSFORMERS,
    label: str = "continue",
) -> SampleJob:
    """Plan to continue each trace ``times`` times from the same beginning; see :func:`whole_traces`.

    Args:
        model: the model, unsteered.
        traces: of two tokens or more.
        share: of a trace's tokens that are kept.
        times: continuations a trace, each with a seed of its own.
        settings: temperature and limits.
        folder: of the parts.
        generator: the engine.
        label: for the person who waits.

    Raises:
        InputError: temperature 0, at which all continuations are the same, or a trace of one token.
    """
    if not settings.temperature:
        raise InputError("continuations at temperature 0 are all the same; set sampling.temperature above 0")
    if short := [trace.id for trace in traces if len(trace.response_ids) < 2]:
        raise InputError(f"trace {short[0]!r} has one token, so there is nothing to continue; leave such traces out")
    requests = {
        name: Request(name, trace.prompt_ids + beginning(trace, share), row_seed(settings.seed, f"continue/{trace.id}", i))
        for trace in traces
        for i in range(times)
        for name in [f"{trace.id}/{i}"]
    }
    plan = make_plan(
        list(requests),
        [len(request.prompt_ids) + settings.max_new_tokens for request in requests.values()],
        settings.batch_tokens,
        {
            "sampling": settings.model_dump(),
            "share": share,
            "model": model.identity.fingerprint,
            "tokenizer": model.tokenizer_fingerprint,
            **generator.facts,
        },
    )
    parts = Parts(folder)
    parts.ensure_plan(plan)
    return SampleJob(requests, settings, parts, generator=generator, label=label)


def whole_traces(
    model: LanguageModel, traces: Sequence[Trace], continuations: Sequence[Trace], limit: int
) -> list[tuple[Trace, Trace]]:
    """Each continuation with the trace it began as, and as a whole response to that trace's problem.

    Args:
        model: whose tokenizer decodes.
        traces: that were continued.
        continuations: what a job of :func:`continuations_job` sampled.
        limit: tokens of a whole response; a longer one is cut there and counts as truncated.
    """
    by_id = {trace.id: trace for trace in traces}
    found = []
    for one in continuations:
        trace = by_id[one.problem_id]
        ids = one.prompt_ids[len(trace.prompt_ids) :] + one.response_ids
        cut = len(ids) > limit
        ids = ids[:limit] if cut else ids
        text = str(model.tokenizer.decode(list(ids), skip_special_tokens=True))
        finish = "length" if cut else one.finish
        found.append((trace, Trace(one.id, trace.problem_id, one.sample, trace.prompt_ids, ids, text, finish)))
    return found
