"""The stage ``evaluate``: every condition on the same problems, from the unsteered model to the cheap baselines of steering."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from trimtab.errors import InputError
from trimtab.evaluation.conditions import Condition, prompt_only, standard_conditions
from trimtab.evaluation.finetune import sft_lora
from trimtab.evaluation.majority import majority, majority_at_cost
from trimtab.evaluation.names import ADARAS, GATED, SAMPLED, SFT_LORA
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.runner import ConditionJob, condition_job
from trimtab.evaluation.summary import condition_metrics, summarise
from trimtab.evaluation.tune import best_point
from trimtab.execution import LOCAL, Executor
from trimtab.model import LanguageModel, down_weights
from trimtab.pipeline.line import SAMPLED as FIND_TRACES
from trimtab.pipeline.line import Line
from trimtab.sampling import SamplingSettings
from trimtab.store import record_opening, save_steering, write_table
from trimtab.traces import Problem, Split, Trace

ADARAS_CRITERION = "adaras"

RunConditions = Callable[[LanguageModel, Sequence[Condition], Sequence[SamplingSettings], Executor], dict[str, list[Outcome]]]
"""Outcomes by condition, of some conditions with some ways to make chains."""


def evaluate(line: Line) -> None:
    """Open the split, run every condition and write outcomes.parquet; the metrics join the artifact that the run found."""
    settings = line.config.evaluation
    problems = line.problems(settings.split)
    if settings.split is Split.TEST:
        record_opening(line.directory.ledger, "evaluate", f"{len(problems)} problems", line.directory.digest)
    run = _runner(line, problems)
    chains = chain_settings(line)
    outcomes = run(line.model, _conditions(line), chains, line.executor)
    outcomes |= _baselines(line, run, outcomes)
    if not line.config.artifact.source:
        metrics = condition_metrics(summarise(outcomes))
        steering = line.steering()
        save_steering(replace(steering, facts={**steering.facts, "metrics": metrics}), line.directory.steering, force=True)
    # last, since this file says that the stage is done
    write_table(line.directory.outcomes, [outcome for rows in outcomes.values() for outcome in rows])


def chain_settings(line: Line) -> list[SamplingSettings]:
    """How the responses of every condition are generated: one setting a seed."""
    settings = line.config.evaluation
    return [
        line.config.sampling.model_copy(
            update={"n": settings.n, "temperature": settings.temperature, "seed": seed}
            | ({} if settings.temperature else {"top_p": 1.0})
        )
        for seed in settings.seeds
    ]


def _conditions(line: Line) -> list[Condition]:
    """The conditions that attach a steering, their controls, and the prompt-only baseline."""
    config, steering = line.config, line.steering()
    down = down_weights(line.model, np.unique(steering.layer).tolist())
    conditions = standard_conditions(steering, down, config.evaluation.random_sets, config.evaluation.seed)
    if not config.artifact.source and ADARAS_CRITERION in config.ranking.criteria:
        points = line.tune_points()
        adaras = best_point(points, ADARAS_CRITERION, "add") if "add" in config.tune.interventions else None
        if adaras and adaras != best_point(points):
            conditions.append(Condition(ADARAS, line.steering_at(adaras)))
    if "prompt-only" in config.evaluation.baselines:
        conditions.append(prompt_only(config.prompt, config.evaluation.instruction, line.model.tokenizer))
    return conditions


def _baselines(line: Line, run: RunConditions, outcomes: dict[str, list[Outcome]]) -> dict[str, list[Outcome]]:
    """What the same tokens, or the same traces, buy without steering."""
    settings, found = line.config.evaluation, {}
    if "majority" in settings.baselines:
        sampling = line.config.sampling
        votes = sampling.model_copy(update={"n": settings.votes, "seed": sampling.seed + 1})
        if not votes.temperature:
            raise InputError(
                "a majority vote needs chains that differ; set sampling.temperature above 0, or leave 'majority' out"
            )
        sampled = run(line.model, [Condition(SAMPLED)], [votes], line.executor)[SAMPLED]
        budget: dict[str, int] = {}
        for outcome in outcomes[GATED]:
            budget[outcome.problem_id] = budget.get(outcome.problem_id, 0) + outcome.tokens
        found |= {rows[0].condition: rows for rows in (sampled, majority(sampled), majority_at_cost(sampled, budget))}
    if "sft-lora" in settings.baselines:
        with sft_lora(line.model, correct_traces(line), settings.sft, line.directory.sft, progress=line.progress) as tuned:
            # here, since its weights are in this process alone
            found |= run(tuned, [Condition(SFT_LORA)], chain_settings(line), LOCAL)
    return found


def correct_traces(line: Line) -> list[Trace]:
    """The correct side of the contrast: what found the neurons, and what fine-tuning may learn from."""
    wanted = {row.trace_id for row in line.contrast() if row.correct}
    return [trace for trace in line.traces(FIND_TRACES) if trace.id in wanted]


def _runner(line: Line, problems: Sequence[Problem]) -> RunConditions:
    """Run conditions with every seed, each into its own folder of parts, all of them as one piece of work."""

    def run(
        model: LanguageModel, conditions: Sequence[Condition], chains: Sequence[SamplingSettings], executor: Executor
    ) -> dict[str, list[Outcome]]:
        jobs: dict[str, list[ConditionJob]] = {}
        for condition in conditions:
            for settings in chains:
                name = condition.name if len(chains) == 1 else f"{condition.name}-seed-{settings.seed}"
                job = condition_job(
                    model,
                    condition,
                    problems,
                    settings,
                    line.grader,
                    line.directory.outcome_parts(name),
                    prompt=line.config.prompt,
                    checker=line.checker,
                    generator=line.generator,
                )
                jobs.setdefault(condition.name, []).append(job)
        executor.run(model, [job for some in jobs.values() for job in some], line.progress)
        return {name: [row for job in some for row in job.outcomes()] for name, some in jobs.items()}

    return run
