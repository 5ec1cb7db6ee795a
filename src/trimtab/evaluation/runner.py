"""The verb ``evaluate``: one arm on its problems, resumable."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from trimtab.evaluation.arms import Arm
from trimtab.evaluation.outcomes import Outcome
from trimtab.model import OpenModel
from trimtab.progress import Progress, silent
from trimtab.sampling import Generation, Request, SamplingSettings, generate_batch, plan_requests
from trimtab.sampling.sample import as_trace
from trimtab.steering import Steering
from trimtab.store import Parts, read_table
from trimtab.tasks import CHAT, Grader, Prompt, grade_traces
from trimtab.tasks.steps import StepChecker
from trimtab.traces import Problem


def evaluate_arm(
    opened: OpenModel,
    arm: Arm,
    problems: Sequence[Problem],
    settings: SamplingSettings,
    grader: Grader,
    folder: Path,
    *,
    prompt: Prompt = CHAT,
    checker: StepChecker | None = None,
    progress: Progress = silent,
    label: str = "",
) -> list[Outcome]:
    """Outcomes of one arm in the order of the problems and their samples; parts already on disk are kept.

    ``label`` names the arm for the person who waits, where its own name is not made for people.

    Raises:
        ConfigError: the folder holds parts of another arm or plan.
    """
    facts = {"arm": arm.name, "gate": arm.gate, "steering": arm.steering.digest if arm.steering else None}
    requests, plan = plan_requests(opened, problems, settings, arm.prompt or prompt, facts)
    by_id = {problem.id: problem for problem in problems}
    parts = Parts(folder)
    parts.ensure_plan(plan)
    missing = parts.missing()
    done = len(requests) - sum(len(plan.parts[part]) for part in missing)
    with progress(label or f"evaluate {arm.name}", len(requests), done) as advance:
        for part in missing:
            batch = [requests[i] for i in plan.parts[part]]
            generations = generate_batch(opened, batch, settings, arm.steering, arm.gate)
            rows = _outcomes(opened, arm, batch, generations, by_id, grader, checker, settings.seed)
            parts.write_table(part, rows)
            advance(len(batch), sum(len(g.response_ids) for g in generations))
    outcomes = [row for part in range(len(plan.parts)) for row in read_table(parts.path(part), Outcome)]
    order = {problem.id: i for i, problem in enumerate(problems)}
    return sorted(outcomes, key=lambda outcome: (order[outcome.problem_id], outcome.sample))


def _outcomes(
    opened: OpenModel,
    arm: Arm,
    batch: Sequence[Request],
    generations: Sequence[Generation],
    problems: Mapping[str, Problem],
    grader: Grader,
    checker: StepChecker | None,
    seed: int,
) -> list[Outcome]:
    traces = [as_trace(opened, request, generation) for request, generation in zip(batch, generations, strict=True)]
    grades = grade_traces(traces, problems, grader, checker=checker)
    rows = []
    for trace, grade, generation in zip(traces, grades, generations, strict=True):
        problem = problems[trace.problem_id]
        rows.append(
            Outcome(
                arm=arm.name,
                problem_id=problem.id,
                domain=problem.domain,
                difficulty=problem.difficulty,
                verdict=grade.verdict,
                reason=grade.reason,
                answer=grade.answer,
                response=trace.text,
                tokens=len(trace.response_ids),
                truncated=trace.truncated,
                steps_right=grade.quality,
                p_fail=generation.p_fail,
                fired=_fired(arm, generation.p_fail),
                sample=trace.sample,
                seed=seed,
            )
        )
    return rows


def _fired(arm: Arm, p_fail: float | None) -> bool | None:
    steering: Steering | None = arm.steering
    if steering is None or arm.gate != "auto":
        return None
    if steering.gate.reads:
        return p_fail is not None and p_fail >= steering.gate.threshold
    return steering.gate.kind == "always"
