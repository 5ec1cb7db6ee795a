"""The verb ``evaluate``: one arm on its problems, resumable."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trimtab.evaluation.arms import Arm
from trimtab.evaluation.outcomes import Outcome
from trimtab.execution import LOCAL, Executor
from trimtab.model import OpenModel
from trimtab.progress import Advance, Progress, silent
from trimtab.sampling import TRANSFORMERS, Generation, Generator, Request, SamplingSettings, plan_requests
from trimtab.sampling.sample import as_trace
from trimtab.steering import Steering
from trimtab.store import AnyPath, Parts, Plan, read_table
from trimtab.tasks import CHAT, Grader, Prompt, grade_traces
from trimtab.tasks.grading.grade import StepChecker
from trimtab.traces import Problem


@dataclass(frozen=True)
class ArmJob:
    """One arm on its problems: what is asked, what is attached, and who grades."""

    arm: Arm
    label: str
    requests: Mapping[str, Request]
    problems: Mapping[str, Problem]
    settings: SamplingSettings
    grader: Grader
    checker: StepChecker | None
    parts: Parts
    generator: Generator = TRANSFORMERS

    @property
    def plan(self) -> Plan:
        return self.parts.plan

    def missing(self) -> list[int]:
        return self.parts.missing()

    def run(self, opened: OpenModel, parts: Iterable[int], advance: Advance) -> None:
        for part in parts:
            batch = [self.requests[i] for i in self.plan.parts[part]]
            generations = self.generator.generate(opened, batch, self.settings, self.arm.steering, self.arm.gate)
            self.parts.write_table(part, self._outcomes(opened, batch, generations))
            advance(len(batch), sum(len(g.response_ids) for g in generations))

    def outcomes(self) -> list[Outcome]:
        """Once every part is written: the outcomes in the order of the problems and their samples."""
        outcomes = [row for part in range(len(self.plan.parts)) for row in read_table(self.parts.path(part), Outcome)]
        order = {problem_id: i for i, problem_id in enumerate(self.problems)}
        return sorted(outcomes, key=lambda outcome: (order[outcome.problem_id], outcome.sample))

    def _outcomes(self, opened: OpenModel, batch: Sequence[Request], generations: Sequence[Generation]) -> list[Outcome]:
        traces = [as_trace(opened, request, generation) for request, generation in zip(batch, generations, strict=True)]
        grades = grade_traces(traces, self.problems, self.grader, checker=self.checker)
        rows = []
        for trace, grade, generation in zip(traces, grades, generations, strict=True):
            problem = self.problems[trace.problem_id]
            rows.append(
                Outcome(
                    arm=self.arm.name,
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
                    fired=_fired(self.arm, generation.p_fail),
                    sample=trace.sample,
                    seed=self.settings.seed,
                )
            )
        return rows


def arm_job(
    opened: OpenModel,
    arm: Arm,
    problems: Sequence[Problem],
    settings: SamplingSettings,
    grader: Grader,
    folder: AnyPath,
    *,
    prompt: Prompt = CHAT,
    checker: StepChecker | None = None,
    generator: Generator = TRANSFORMERS,
    label: str = "",
) -> ArmJob:
    """Plan what :func:`evaluate_arm` does, store the plan, and generate nothing yet."""
    facts = {"arm": arm.name, "gate": arm.gate, "steering": arm.steering.digest if arm.steering else None}
    requests, plan = plan_requests(opened, problems, settings, arm.prompt or prompt, {**facts, **generator.facts})
    parts = Parts(folder)
    parts.ensure_plan(plan)
    by_id = {problem.id: problem for problem in problems}
    return ArmJob(arm, label or f"evaluate {arm.name}", requests, by_id, settings, grader, checker, parts, generator)


def evaluate_arm(
    opened: OpenModel,
    arm: Arm,
    problems: Sequence[Problem],
    settings: SamplingSettings,
    grader: Grader,
    folder: AnyPath,
    *,
    prompt: Prompt = CHAT,
    checker: StepChecker | None = None,
    generator: Generator = TRANSFORMERS,
    executor: Executor = LOCAL,
    progress: Progress = silent,
    label: str = "",
) -> list[Outcome]:
    """Outcomes of one arm in the order of the problems and their samples; parts already on disk are kept.

    ``label`` names the arm for the person who waits, where its own name is not made for people.

    Raises:
        ConfigError: the folder holds parts of another arm or plan.
    """
    job = arm_job(
        opened, arm, problems, settings, grader, folder, prompt=prompt, checker=checker, generator=generator, label=label
    )
    executor.run(opened, [job], progress)
    return job.outcomes()


def _fired(arm: Arm, p_fail: float | None) -> bool | None:
    steering: Steering | None = arm.steering
    if steering is None or arm.gate != "auto":
        return None
    if steering.gate.reads:
        return p_fail is not None and p_fail >= steering.gate.threshold
    return steering.gate.kind == "always"
