"""Responses with their tokens, for what reads more of them than their score: greedy ones, and the perplexity of sampled ones."""

from collections.abc import Mapping, Sequence

from trimtab.analysis.perplexity import compare_perplexity, perplexity
from trimtab.errors import MismatchError
from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.search import GateSetting, Search
from trimtab.findings import Cell, Frame
from trimtab.sampling import plan_requests
from trimtab.sampling.sample import as_trace
from trimtab.steering import Steering
from trimtab.traces import Problem, Score, Trace

MOST_TRACES = 300

Attached = Mapping[str, tuple[Steering, GateSetting]]


def greedy_responses(
    search: Search, problems: Sequence[Problem], steering: Steering | None = None, gate: GateSetting = "on"
) -> list[Trace]:
    """Greedy responses to these problems, in their order, generated anew and kept in memory."""
    requests, plan = plan_requests(search.model, problems, search.sampling, search.prompt)
    traces: dict[str, Trace] = {}
    with search.progress("generate responses", len(requests), 0) as advance:
        for part in plan.parts:
            batch = [requests[name] for name in part]
            generations = search.generator.generate(search.model, batch, search.sampling, steering, gate)
            made = [as_trace(search.model, request, generation) for request, generation in zip(batch, generations, strict=True)]
            traces |= {trace.problem_id: trace for trace in made}
            advance(len(batch), sum(len(trace.response_ids) for trace in made))
    return [traces[problem.id] for problem in problems]


def failed_of(traces: Sequence[Trace], answers: Sequence[Outcome]) -> list[bool]:
    """Whether each response's answer is not correct, from answers to the same problems.

    Raises:
        MismatchError: a response is not the one that was graded.
    """
    graded = {outcome.problem_id: outcome for outcome in answers}
    other = [trace.problem_id for trace in traces if graded[trace.problem_id].response != trace.text]
    if other:
        raise MismatchError(
            f"{len(other)} of {len(traces)} responses differ from the graded ones, first for problem {other[0]!r}; "
            "was the run made on another machine? Delete experiments/answers and run it again"
        )
    return [not graded[trace.problem_id].correct for trace in traces]


def outside_contrast(search: Search) -> list[Trace]:
    """Correct sampled responses to the train problems that the contrast leaves out: the neurons were not found on them."""
    contrasted = {row.problem_id for row in search.contrast}
    correct = {grade.trace_id for grade in search.grades if grade.score is Score.CORRECT}
    traces = [trace for trace in search.traces if trace.problem_id not in contrasted and trace.id in correct]
    return sorted(traces, key=lambda trace: trace.id)[:MOST_TRACES]


def perplexity_frame(search: Search, name: str, title: str, traces: Sequence[Trace], attached: Attached) -> Frame:
    """Perplexity of the same tokens with and without steerings, and the ratio with its interval.

    Raises:
        NotEnoughDataError: fewer than two problems.
    """
    bare = perplexity(search.model, traces)
    alone: dict[str, Cell] = dict.fromkeys(("value", "low", "high"))
    rows = [{"label": "unsteered", **alone, "tokens": int(bare.tokens.sum()), "perplexity": bare.perplexity}]
    for label, (steering, gate) in attached.items():
        edited = perplexity(search.model, traces, steering, gate=gate)
        ratio = compare_perplexity(bare, edited, search.settings.seed).ratio
        interval: dict[str, Cell] = {"value": ratio.value, "low": ratio.low, "high": ratio.high}
        rows.append({"label": label, **interval, "tokens": int(edited.tokens.sum()), "perplexity": edited.perplexity})
    return Frame(
        name,
        title,
        [{**row, "n": len(traces), "unit": "number"} for row in rows],
        plot="dots",
        x_label="perplexity over that of the unsteered model",
        reference=1.0,
        note="The same tokens, read and not generated. n counts texts; intervals draw problems.",
        reading="Above 1 the steering makes these tokens less likely.",
    )
