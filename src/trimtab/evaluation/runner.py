"""The verb ``evaluate``: conditions (the same problems under different interventions, controls included), each run in parts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from trimtab.errors import InputError
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.rows import ALWAYS, FIRST_TOKEN, GATED, NEGATIVE, PROMPT_ONLY, RANDOM, RANDOM_NORM, UNSTEERED
from trimtab.execution import LOCAL, Executor
from trimtab.gate import RandomOpening, RunningGate
from trimtab.model import LanguageModel
from trimtab.progress import Advance, Progress, silent
from trimtab.ranking import norm_matched, random_like
from trimtab.sampling import TRANSFORMERS, Generation, Generator, Request, SamplingSettings, plan_requests
from trimtab.sampling.continuation import after_beginning
from trimtab.sampling.prefills import Prefills
from trimtab.sampling.sample import as_trace
from trimtab.steering import Steering
from trimtab.store import AnyPath, Parts, Plan, read_table, write_table
from trimtab.tasks import CHAT, Grader, Prompt, grade_traces
from trimtab.tasks.grading.grade import StepChecker
from trimtab.traces import Problem


@dataclass(frozen=True, slots=True)
class ResponseIds:
    """The tokens of one response as they were generated, end token included; a text does not always give its own tokens back."""

    trace_id: str
    response_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SteeredTokens:
    """What a running gate steered of one response.

    Args:
        trace_id: of the response.
        steered: how many of its tokens.
        opened: number of the first of them, from 1; 0 where there is none.
    """

    trace_id: str
    steered: int
    opened: int


@dataclass(frozen=True, slots=True)
class Condition:
    """A name, what to attach and how the gate is set.

    Args:
        name: for tables, not for keys.
        steering: None is the bare model.
        gate: ``auto`` asks the steering's gate, ``on`` steers every problem, ``off`` none.
        prompt: None is the task's own.
        first_tokens: only this many tokens of a response are chosen under the steering, the others by the bare model; 0 for all.
    """

    name: str
    steering: Steering | None = None
    gate: Literal["auto", "on", "off"] = "on"
    prompt: Prompt | None = None
    first_tokens: int = 0


def first_token(steering: Steering, tokens: int) -> Condition:
    """Is steering more than the choice of a beginning? Its first tokens are forced, the rest is the bare model's.

    Source: arXiv 2509.06608. The first token of a response comes out of the prompt: where the scope leaves
    the prompt alone (``generated``), it is the bare model's, and the second is the first that steering decides.

    Args:
        steering: under test; its gate decides on which problems.
        tokens: how many tokens that it decides are forced.
    """
    untouched = 1 if steering.scope == "generated" else 0
    gate = "on" if steering.gate.kind == "always" else "auto"
    return Condition(FIRST_TOKEN, steering, gate, first_tokens=tokens + untouched)


def other_batches(sizes: Sequence[int], batch_tokens: int) -> int:
    """A ``batch_tokens`` that makes batches of half as many rows; of two rows, where batches hold one.

    Args:
        sizes: tokens of each row, response included.
        batch_tokens: of the run.
    """
    rows = max(1, min(batch_tokens // max(sizes), len(sizes)))
    return max(sizes) * (rows // 2 if rows > 1 else 2)


def standard_conditions(
    steering: Steering, down: Mapping[int, NDArray[np.float32]], random_sets: int, seed: int
) -> list[Condition]:
    """The conditions of a verdict.

    Unsteered, always, gated, negative strength, and ``random_sets`` sets of random neurons twice: the same shifts permuted with
    random signs, and those scaled to the found set's norm of ``W[:, S] @ shift`` in each layer. Random sets are always on, like
    ``always``.

    Args:
        steering: the found steering, with its gate.
        down: down projection weights ``[d_model, d_ff]`` of the steered layers.
        random_sets: how many random sets of each kind.
        seed: of the random sets.
    """
    conditions = [
        Condition(UNSTEERED, None),
        Condition(ALWAYS, steering),
        Condition(GATED, steering, "auto"),
        Condition(NEGATIVE, steering.with_strength(-steering.strength)),
    ]
    for i in range(random_sets):
        drawn = random_like(steering, seed=seed + i)
        conditions.append(Condition(f"{RANDOM}-{i}", drawn))
        conditions.append(Condition(f"{RANDOM_NORM}-{i}", norm_matched(drawn, steering, down)))
    return conditions


def prompt_only(prompt: Prompt, instruction: str, tokenizer: PreTrainedTokenizerBase) -> Condition:
    """The cheapest baseline: the bare model, asked with an instruction such as ``{question}\\nCheck each step.``

    Raises:
        InputError: the tokenizer does not know a word of the instruction, so the model would not be asked what was meant.
    """
    words = instruction.replace("{question}", "")
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in tokenizer.encode(words, add_special_tokens=False):
        raise InputError(
            f"this model's tokenizer does not know all words of the instruction {words.strip()!r}; set evaluation.instruction to "
            "words that it knows, or leave 'prompt-only' out of evaluation.baselines"
        )
    return Condition(
        PROMPT_ONLY, prompt=prompt.model_copy(update={"template": prompt.template.replace("{question}", instruction)})
    )


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
    prefills: Prefills | None = None
    drafts: AnyPath | None = None

    @property
    def plan(self) -> Plan:
        return self.parts.plan

    def missing(self) -> list[int]:
        return self.parts.missing()

    def run(self, model: LanguageModel, parts: Iterable[int], advance: Advance) -> None:
        drafts = None if self.drafts is None else read_response_ids(self.drafts)
        for part in parts:
            batch = [self.requests[i] for i in self.plan.parts[part]]
            generations = self._generations(model, batch, drafts)
            # before the part, which says that both are there
            write_table(_ids_path(self.parts, part), [ResponseIds(g.id, g.response_ids) for g in generations], ResponseIds)
            courses = [(one.id, one.course) for one in generations if one.course is not None]
            if courses:
                rows = [SteeredTokens(name, course.steered_tokens, course.opened_at or 0) for name, course in courses]
                write_table(_steered_path(self.parts, part), rows, SteeredTokens)
            self.parts.write_table(part, self._outcomes(model, batch, generations))
            advance(len(batch), sum(len(g.response_ids) for g in generations))

    def _generations(
        self, model: LanguageModel, batch: Sequence[Request], drafts: Mapping[str, Sequence[int]] | None
    ) -> list[Generation]:
        asked = self.condition
        if not asked.first_tokens:
            return self.generator.generate(model, batch, self.settings, asked.steering, asked.gate, self.prefills, drafts)
        return after_beginning(self.generator, model, batch, self.settings, asked.steering, asked.gate, asked.first_tokens)

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
                    score=grade.score,
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


def read_response_ids(folder: AnyPath) -> dict[str, tuple[int, ...]] | None:
    """The tokens of every response of a finished condition by trace id; None where it was evaluated before these were kept."""
    parts = Parts(folder)
    paths = [_ids_path(parts, part) for part in range(len(parts.plan.parts))]
    if not all(path.exists() for path in paths):
        return None
    return {row.trace_id: row.response_ids for path in paths for row in read_table(path, ResponseIds)}


def read_steered(folder: AnyPath) -> list[SteeredTokens]:
    """What a running gate steered of each response of a finished condition."""
    parts = Parts(folder)
    return [row for part in range(len(parts.plan.parts)) for row in read_table(_steered_path(parts, part), SteeredTokens)]


def _steered_path(parts: Parts, part: int) -> AnyPath:
    return parts.folder / f"steered-{part:05d}.parquet"


def _ids_path(parts: Parts, part: int) -> AnyPath:
    return parts.folder / f"ids-{part:05d}.parquet"


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
    requests: Mapping[str, Request] | None = None,
    prefills: Prefills | None = None,
    drafts: AnyPath | None = None,
) -> ConditionJob:
    """Store the plan of :func:`evaluate_condition` and generate nothing yet.

    ``requests`` are those of :func:`trimtab.sampling.requests_of`, if they are known. ``prefills`` are shared with jobs of other
    conditions, of one model and in one process. ``drafts`` is the folder of the bare model's answers to the same requests,
    finished when this job runs; see :mod:`trimtab.sampling.drafts`.
    """
    facts = {
        "condition": condition.name,
        "gate": condition.gate,
        "steering": condition.steering.digest if condition.steering else None,
        **({"first_tokens": condition.first_tokens} if condition.first_tokens else {}),
    }
    asked = condition.prompt or prompt
    requests, plan = plan_requests(model, problems, settings, asked, {**facts, **generator.facts}, requests)
    parts = Parts(folder)
    parts.ensure_plan(plan)
    by_id = {problem.id: problem for problem in problems}
    return ConditionJob(
        condition,
        label or f"evaluate {condition.name}",
        requests,
        by_id,
        settings,
        grader,
        checker,
        parts,
        generator,
        prefills,
        drafts,
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

    ``label`` names the condition in progress messages; by default its own name does.

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
    if steering is None or condition.gate != "auto" or isinstance(steering.gate, RunningGate | RandomOpening):
        return None
    if steering.gate.reads:
        return p_fail is not None and p_fail >= steering.gate.cutoff
    return steering.gate.kind == "always"
