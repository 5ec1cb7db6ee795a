"""Responses with their tokens, for what reads more of them than their score: greedy ones, and the perplexity of sampled ones."""

from collections.abc import Mapping, Sequence

from trimtab.analysis.perplexity import compare_perplexity, perplexity
from trimtab.errors import MismatchError
from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.workbench import GateSetting, Workbench
from trimtab.results import Cell, Column, Table, bounded
from trimtab.sampling import plan_requests
from trimtab.sampling.sample import as_trace
from trimtab.steering import Steering
from trimtab.traces import Problem, Trace, Verdict


def greedy_chains(
    bench: Workbench, problems: Sequence[Problem], steering: Steering | None = None, gate: GateSetting = "on"
) -> list[Trace]:
    """Greedy chains for these problems, in their order, generated anew and kept in memory."""
    requests, plan = plan_requests(bench.model, problems, bench.sampling, bench.prompt)
    chains: dict[str, Trace] = {}
    with bench.progress("generate chains", len(requests), 0) as advance:
        for part in plan.parts:
            batch = [requests[name] for name in part]
            generations = bench.generator.generate(bench.model, batch, bench.sampling, steering, gate)
            made = [as_trace(bench.model, request, generation) for request, generation in zip(batch, generations, strict=True)]
            chains |= {trace.problem_id: trace for trace in made}
            advance(len(batch), sum(len(trace.response_ids) for trace in made))
    return [chains[problem.id] for problem in problems]


def failed_of(chains: Sequence[Trace], answers: Sequence[Outcome]) -> list[bool]:
    """Whether each response's answer is not correct, from answers to the same problems.

    Raises:
        MismatchError: a response is not the one that was graded.
    """
    graded = {outcome.problem_id: outcome for outcome in answers}
    other = [chain.problem_id for chain in chains if graded[chain.problem_id].response != chain.text]
    if other:
        raise MismatchError(
            f"{len(other)} of {len(chains)} chains differ from the graded ones, first for problem {other[0]!r}; "
            "was the run made on another machine? Delete experiments/answers and run it again"
        )
    return [not graded[chain.problem_id].correct for chain in chains]


MOST_CHAINS = 300

Attached = Mapping[str, tuple[Steering, GateSetting]]


def other_chains(bench: Workbench) -> list[Trace]:
    """Correct sampled responses of the find problems that the contrast leaves out: the neurons were not found on them."""
    contrasted = {row.problem_id for row in bench.contrast}
    correct = {grade.trace_id for grade in bench.grades if grade.verdict is Verdict.CORRECT}
    chains = [trace for trace in bench.traces if trace.problem_id not in contrasted and trace.id in correct]
    return sorted(chains, key=lambda trace: trace.id)[:MOST_CHAINS]


def perplexity_table(bench: Workbench, name: str, title: str, chains: Sequence[Trace], attached: Attached) -> Table:
    """Perplexity of the same tokens with and without steerings, and the ratio with its interval.

    Raises:
        NotEnoughDataError: fewer than two problems.
    """
    bare = perplexity(bench.model, chains)
    rows: list[tuple[Cell, ...]] = [("unsteered", len(chains), int(bare.tokens.sum()), bare.perplexity, None, None, None)]
    for label, (steering, gate) in attached.items():
        edited = perplexity(bench.model, chains, steering, gate=gate)
        ratio = compare_perplexity(bare, edited, bench.settings.seed).ratio
        rows.append((label, len(chains), int(edited.tokens.sum()), edited.perplexity, ratio.value, ratio.low, ratio.high))
    return Table(
        name=name,
        title=title,
        columns=_PERPLEXITY_COLUMNS,
        rows=tuple(rows),
        note="The same tokens, read and not generated. Above a ratio of 1 the steering makes them less likely. Intervals draw "
        "problems.",
    )


_PERPLEXITY_COLUMNS = (
    Column(name="what"),
    Column(name="texts", unit="count"),
    Column(name="tokens", unit="count"),
    Column(name="perplexity", unit="number"),
    *bounded("ratio to unsteered", "number"),
)
