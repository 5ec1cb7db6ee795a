"""The verb ``evaluate``: one condition on its problems, resumable."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trimtab.evaluation.conditions import Condition
from trimtab.evaluation.outcomes import Outcome
from trimtab.execution import LOCAL, Executor
from trimtab.model import LanguageModel
from trimtab.progress import Advance, Progress, silent
from trimtab.sampling import TRANSFORMERS, Generation, Generator, Request, SamplingSettings, plan_requests
from trimtab.sampling.sample import as_trace
from trimtab.steering import Steering
from trimtab.store import AnyPath, Parts, Plan, read_table
from trimtab.tasks import CHAT, Grader, Prompt, grade_traces
from trimtab.tasks.grading.grade import StepChecker
from trimtab.traces import Problem


@dataclass(frozen=True)
class ConditionJob:
    """One condition on its problems: what is asked, what is attached, and who grades."""

    condition: Condition
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

    def run(self, model: LanguageModel, parts: Iterable[int], advance: Advance) -> None:
        for part in parts:
            batch = [self.requests[i] for i in self.plan.parts[part]]
            generations = self.generator.generate(model, batch, self.settings, self.condition.steering, self.condition.gate)
            self.parts.write_table(part, self._outcomes(model, batch, generations))
            advance(len(batch), sum(len(g.response_ids) for g in generations))

    def outcomes(self) -> list[Outcome]:
        """Once every part is written: the outcomes in the order of the problems and their samples."""
        outcomes = [row for part in range(len(self.plan.parts)) for row in read_table(self.parts.path(part), Outcome)]
        order = {problem_id: i for i, problem_id in enumerate(self.problems)}
        return sorted(outcomes, key=lambda outcome: (order[outcome.problem_id], outcome.sample))

    def _outcomes(self, model: LanguageModel, batch: Sequence[Request], generations: Sequence[Generation]) -> list[Outcome]:
        traces = [as_trace(model, request, generation) for request, generation in zip(batch, generations, strict=True)]
        grades = grade_traces(traces, self.problems, self.grader, checker=self.checker)
        rows = []
        for trace, grade, generation in zip(traces, grades, generations, strict=True):
            problem = self.problems[trace.problem_id]
            rows.append(
                Outcome(
                    condition=self.condition.name,
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
                    fired=_fired(self.condition, generation.p_fail),
                    sample=trace.sample,
                    seed=self.settings.seed,
                )
            )
        return rows


def condition_job(
    model: LanguageModel,
    condition: Condition,
    problems: Sequence[Problem],
    settings: SamplingSettings,
    grader: Grader,
    folder: AnyPath,
    *,
    prompt: Prompt = CHAT,
    checker: StepChecker | None = None,
    generator: Generator = TRANSFORMERS,
    label: str = "",
) -> ConditionJob:
    """Plan what :func:`evaluate_condition` does, store the plan, and generate nothing yet."""
    facts = {
        "condition": condition.name,
        "gate": condition.gate,
        "steering": condition.steering.digest if condition.steering else None,
    }
    requests, plan = plan_requests(model, problems, settings, condition.prompt or prompt, {**facts, **generator.facts})
    parts = Parts(folder)
    parts.ensure_plan(plan)
    by_id = {problem.id: problem for problem in problems}
    return ConditionJob(
        condition, label or f"evaluate {condition.name}", requests, by_id, settings, grader, checker, parts, generator
    )


def evaluate_condition(
    model: LanguageModel,
    condition: Condition,
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
    """Outcomes of one condition in the order of the problems and their samples; parts already on disk are kept.

    ``label`` names the condition for the person who waits, where its own name is not made for people.

    Raises:
        ConfigError: the folder holds parts of another condition or plan.
    """
    job = condition_job(
        model, condition, problems, settings, grader, folder, prompt=prompt, checker=checker, generator=generator, label=label
    )
    executor.run(model, [job], progress)
    return job.outcomes()


def _fired(condition: Condition, p_fail: float | None) -> bool | None:
    steering: Steering | None = condition.steering
    if steering is None or condition.gate != "auto":
        return None
    if steering.gate.reads:
        return p_fail is not None and p_fail >= steering.gate.cutoff
    return steering.gate.kind == "always"
