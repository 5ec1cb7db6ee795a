"""Chains with their tokens, for what reads more of a response than its verdict."""

from collections.abc import Sequence

from trimtab.errors import MismatchError
from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.workbench import GateSetting, Workbench
from trimtab.sampling import plan_requests
from trimtab.sampling.sample import as_trace
from trimtab.steering import Steering
from trimtab.traces import Problem, Trace


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
