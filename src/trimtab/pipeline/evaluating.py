"""The stage ``evaluate``: every arm on the same problems, from the unsteered model to the cheap rivals of steering."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from trimtab.errors import InputError
from trimtab.evaluation.arms import Arm, prompt_only, standard_arms
from trimtab.evaluation.finetune import sft_lora
from trimtab.evaluation.majority import majority, majority_at_cost
from trimtab.evaluation.names import ADARAS, GATED, SAMPLED, SFT_LORA
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.runner import ArmJob, arm_job
from trimtab.evaluation.summary import arm_metrics, summarise
from trimtab.evaluation.tune import best_point
from trimtab.execution import LOCAL, Executor
from trimtab.model import OpenModel, down_weights
from trimtab.pipeline.line import SAMPLED as FIND_TRACES
from trimtab.pipeline.line import Line
from trimtab.sampling import SamplingSettings
from trimtab.store import record_opening, save_steering, write_table
from trimtab.traces import Problem, Split, Trace

ADARAS_CRITERION = "mean-difference-polarity"

RunArms = Callable[[OpenModel, Sequence[Arm], Sequence[SamplingSettings], Executor], dict[str, list[Outcome]]]
"""Outcomes by arm, of some arms with some ways to make chains."""


def evaluate(line: Line) -> None:
    """Open the split, run every arm and write outcomes.parquet; the metrics join the artifact that the run found."""
    settings = line.config.evaluation
    problems = line.problems(settings.split)
    if settings.split is Split.TEST:
        record_opening(line.directory.ledger, "evaluate", f"{len(problems)} problems", line.directory.digest)
    run = _runner(line, problems)
    chains = chain_settings(line)
    outcomes = run(line.opened, _arms(line), chains, line.executor)
    outcomes |= _rivals(line, run, outcomes)
    if not line.config.artifact.source:
        metrics = arm_metrics(summarise(outcomes))
        steering = line.steering()
        save_steering(replace(steering, facts={**steering.facts, "metrics": metrics}), line.directory.steering, force=True)
    # last, since this file says that the stage is done
    write_table(line.directory.outcomes, [outcome for rows in outcomes.values() for outcome in rows])


def chain_settings(line: Line) -> list[SamplingSettings]:
    """How the chains of every arm are generated: one setting a seed."""
    settings = line.config.evaluation
    return [
        line.config.sampling.model_copy(
            update={"n": settings.n, "temperature": settings.temperature, "seed": seed}
            | ({} if settings.temperature else {"top_p": 1.0})
        )
        for seed in settings.seeds
    ]


def _arms(line: Line) -> list[Arm]:
    """The arms that attach a steering, their controls, and the prompt-only rival."""
    config, steering = line.config, line.steering()
    down = down_weights(line.opened, np.unique(steering.layer).tolist())
    arms = standard_arms(steering, down, config.evaluation.random_sets, config.evaluation.seed)
    if not config.artifact.source and ADARAS_CRITERION in config.ranking.criteria:
        points = line.tune_points()
        adaras = best_point(points, ADARAS_CRITERION, "steer") if "steer" in config.tune.operators else None
        if adaras and adaras != best_point(points):
            arms.append(Arm(ADARAS, line.steering_at(adaras)))
    if "prompt-only" in config.evaluation.rivals:
        arms.append(prompt_only(config.prompt, config.evaluation.instruction, line.opened.tokenizer))
    return arms


def _rivals(line: Line, run: RunArms, outcomes: dict[str, list[Outcome]]) -> dict[str, list[Outcome]]:
    """What the same tokens, or the same traces, buy without steering."""
    settings, found = line.config.evaluation, {}
    if "majority" in settings.rivals:
        sampling = line.config.sampling
        votes = sampling.model_copy(update={"n": settings.votes, "seed": sampling.seed + 1})
        if not votes.temperature:
            raise InputError(
                "a majority vote needs chains that differ; set sampling.temperature above 0, or leave 'majority' out"
            )
        sampled = run(line.opened, [Arm(SAMPLED)], [votes], line.executor)[SAMPLED]
        budget: dict[str, int] = {}
        for outcome in outcomes[GATED]:
            budget[outcome.problem_id] = budget.get(outcome.problem_id, 0) + outcome.tokens
        found |= {rows[0].arm: rows for rows in (sampled, majority(sampled), majority_at_cost(sampled, budget))}
    if "sft-lora" in settings.rivals:
        with sft_lora(line.opened, correct_traces(line), settings.sft, line.directory.sft, progress=line.progress) as tuned:
            # here, since its weights are in this process alone
            found |= run(tuned, [Arm(SFT_LORA)], chain_settings(line), LOCAL)
    return found


def correct_traces(line: Line) -> list[Trace]:
    """The correct side of the contrast: what found the neurons, and what fine-tuning may learn from."""
    wanted = {row.trace_id for row in line.contrast() if row.correct}
    return [trace for trace in line.traces(FIND_TRACES) if trace.id in wanted]


def _runner(line: Line, problems: Sequence[Problem]) -> RunArms:
    """Run arms with every seed, each into its own folder of parts, all of them as one piece of work."""

    def run(
        opened: OpenModel, arms: Sequence[Arm], chains: Sequence[SamplingSettings], executor: Executor
    ) -> dict[str, list[Outcome]]:
        jobs: dict[str, list[ArmJob]] = {}
        for arm in arms:
            for settings in chains:
                name = arm.name if len(chains) == 1 else f"{arm.name}-seed-{settings.seed}"
                job = arm_job(
                    opened,
                    arm,
                    problems,
                    settings,
                    line.grader,
                    line.directory.outcome_parts(name),
                    prompt=line.config.prompt,
                    checker=line.checker,
                    generator=line.generator,
                )
                jobs.setdefault(arm.name, []).append(job)
        executor.run(opened, [job for some in jobs.values() for job in some], line.progress)
        return {name: [row for job in some for row in job.outcomes()] for name, some in jobs.items()}

    return run
