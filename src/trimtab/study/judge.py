"""The evaluation of every condition, with its controls and baselines."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from trimtab.errors import ConfigError, InputError
from trimtab.evaluation.controls import judged_with_controls
from trimtab.evaluation.finetune import sft_lora
from trimtab.evaluation.majority import majority, majority_at_cost
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.rows import (
    ADARAS,
    AGAIN,
    ALWAYS,
    BOTH_GATES,
    DIRECTION,
    FIRST_TOKEN,
    GATED,
    NEGATIVE,
    RANDOM,
    RANDOM_NORM,
    RUNNING,
    RUNNING_RANDOM,
    SAMPLED,
    SFT_LORA,
    SOME_PROBLEMS,
    TRAINED,
    UNSTEERED,
    SteeredRow,
)
from trimtab.evaluation.runner import (
    Condition,
    SteeredTokens,
    first_token,
    other_batches,
    prompt_only,
    read_steered,
    standard_conditions,
)
from trimtab.evaluation.settings import Control, EvaluationSettings, best_point
from trimtab.evaluation.summary import condition_metrics, summarise
from trimtab.execution import LOCAL
from trimtab.gate import ALWAYS as ALWAYS_GATE
from trimtab.gate import Gate, RandomOpening
from trimtab.model import check_identity, down_weights
from trimtab.sampling import SamplingSettings
from trimtab.steering import Steering
from trimtab.store import AnyPath, digest_of, read_table, write_table
from trimtab.study import find
from trimtab.study.tokens import record_tokens
from trimtab.study.values import Evaluation, Tuning
from trimtab.traces import Problem

if TYPE_CHECKING:
    from trimtab.study.study import Study
from trimtab.study.answers import OUTCOMES, Asked, answers, answers_entry, beginning_facts, correct_traces, plain
from trimtab.study.tuning import steering_at

logger = logging.getLogger(__name__)

VERSIONS: Mapping[str, int] = {"evaluate": 1, "experiment": 3, "sft": 1, "trained": 1, "tokens": 2, "places": 1}
"""Of each verb, as :data:`trimtab.study.find.VERSIONS`."""
ADARAS_CRITERION = "adaras"
STEERED_ROWS = "steered.parquet"


def evaluate(study: "Study", steering: Steering, tuning: Tuning | None = None, trained: Steering | None = None) -> Evaluation:
    """Every condition of the settings on the problems of ``evaluation.split``, paired with the unsteered model.

    Args:
        study: whose problems are answered.
        steering: under test.
        tuning: where it was chosen, if it was: AdaRAS's own point is a condition then.
        trained: the baseline ``trained``, if it was asked for.

    Raises:
        NotEnoughDataError, InputError: no problem, or a baseline that cannot be run.
        MismatchError: a steering made for other weights; before anything is generated or noted in the ledger.
    """
    settings = study.settings.evaluation
    check_identity(steering.model, study.model.identity)
    problems = study.problems().split(settings.split)
    if not problems:
        raise InputError(
            f"evaluate needs problems of the {settings.split} split, and there are none; ask for {settings.split}=N",
            code="no-problems-in-split",
        )
    conditions = _conditions(study, steering, tuning)
    if trained is not None:
        conditions.append(Condition(TRAINED, trained, "on" if trained.gate.kind == ALWAYS_GATE.kind else "auto"))
    unused = set[str]() if trained is not None else {"trained"}  # a training that nobody asked for moves no key
    facts = {
        "steering": steering.digest,
        "conditions": {condition.name: _condition_digest(condition) for condition in conditions},
        "settings": settings.model_dump(mode="json", exclude=unused if settings.gates else {*unused, "gates"}),
        "problems": study.problems().digests[settings.split],
        "sampling": study.settings.sampling.model_dump(mode="json"),
        "prompt": study.settings.prompt.model_dump(mode="json"),
        **study.grader_facts,
    }
    entry = study.entry("evaluate", {**facts, **study.engine_facts()})

    def work(folder: AnyPath) -> None:
        asked = [
            _asked(study, condition, problems, sampling) for condition in conditions for sampling in response_settings(study)
        ]
        outcomes = _by_condition(answers(study, asked, what="evaluate"))
        if settings.gates:
            watched = [condition for condition in conditions if condition.name in (RUNNING, BOTH_GATES)]
            if RUNNING_RANDOM in settings.gates:
                watched.append(_at_random(study, watched[0], problems))
                random = [_asked(study, watched[-1], problems, sampling) for sampling in response_settings(study)]
                outcomes |= _by_condition(answers(study, random, what="evaluate"))
            write_table(folder / STEERED_ROWS, [_steered_row(study, each, problems) for each in watched], SteeredRow)
        outcomes |= _baselines(study, problems, outcomes)
        write_table(folder / OUTCOMES, [row for rows in outcomes.values() for row in rows], Outcome)

    rows = study.compute("evaluate", entry, work, lambda folder: read_table(folder / OUTCOMES, Outcome))
    outcomes, clusters = _by_condition([rows]), study.problems().clusters
    condition = ALWAYS if steering.gate.kind == "always" or GATED not in outcomes else GATED
    judged = next(each for each in conditions if each.name == condition)
    bare = Condition(UNSTEERED)
    entries = {
        each.name: [answers_entry(study, _asked(study, plain(each), problems, sampling)) for sampling in response_settings(study)]
        for each in (bare, judged)
    }
    verdict, controls = judged_with_controls(
        outcomes, condition, settings.alpha, first_token(steering, settings.first_tokens).first_tokens, clusters
    )
    return Evaluation(
        outcomes=outcomes,
        rows=summarise(outcomes, settings.alpha, clusters),
        condition=condition,
        verdict=verdict,
        controls=controls,
        problems={problem.id: problem for problem in problems},
        split=settings.split,
        openings=study.openings(),
        steering=replace(
            steering, facts={**steering.facts, "metrics": condition_metrics(summarise(outcomes, clusters=clusters))}
        ),
        key=entry.name,
        steered=tuple(read_table(entry.folder / STEERED_ROWS, SteeredRow)) if settings.gates else (),
        tokens=record_tokens(study, judged, {name: outcomes[name] for name in entries}, entries, problems),
    )


def _running_conditions(study: "Study", steering: Steering) -> list[Condition]:
    """The steering behind a running gate, alone and together with its own."""
    asked = study.settings.evaluation.gates
    if not asked:
        return []
    gate = find.fit_running_gate(study)
    found = [Condition(RUNNING, steering.with_gate(gate), "auto")] if RUNNING in asked else []
    if BOTH_GATES in asked:
        question = steering.gate
        if not isinstance(question, Gate) or not question.reads:
            raise InputError(
                f"evaluation.gates names 'both-gates', and the steering's own gate, {question.label}, is not a linear one that "
                "reads the question; leave it out, or fit gate.kind 'logistic'"
            )
        found.append(Condition(BOTH_GATES, steering.with_gate(gate.joined(question, study.settings.running_gate.join)), "auto"))
    return found


def _at_random(study: "Study", running: Condition, problems: Sequence[Problem]) -> Condition:
    """The control of a running gate that was evaluated."""
    assert running.steering is not None
    opened = [row.opened for row in _steered(study, running, problems)]
    gate = RandomOpening(np.array(opened, np.int64), study.settings.evaluation.seed)
    return Condition(RUNNING_RANDOM, running.steering.with_gate(gate), "auto")


def _steered(study: "Study", condition: Condition, problems: Sequence[Problem]) -> list[SteeredTokens]:
    entries = [answers_entry(study, _asked(study, condition, problems, sampling)) for sampling in response_settings(study)]
    return [row for entry in entries for row in read_steered(entry.folder)]


def _steered_row(study: "Study", condition: Condition, problems: Sequence[Problem]) -> SteeredRow:
    rows = _steered(study, condition, problems)
    opened = [row.opened for row in rows if row.opened]
    first = float(np.median(opened)) if opened else None
    steered = float(np.mean([row.steered for row in rows]))
    return SteeredRow(condition.name, len(rows), len(opened) / len(rows), steered, first)


def response_settings(study: "Study") -> list[SamplingSettings]:
    """How the responses of every condition are generated: one setting a seed."""
    settings = study.settings.evaluation
    return [
        study.settings.sampling.model_copy(
            update={"n": settings.n, "temperature": settings.temperature, "seed": seed}
            | ({} if settings.temperature else {"top_p": 1.0})
        )
        for seed in settings.seeds
    ]


def _asked(study: "Study", condition: Condition, problems: Sequence[Problem], sampling: SamplingSettings) -> Asked:
    """A condition on the problems; ``again`` and ``first-token`` on some of them where the settings say so, ``again`` in other
    batches.

    Which ones is decided by their ids, so that more of them include those asked before.

    Raises:
        ConfigError: ``evaluation.batch_tokens`` is that of the run.
    """
    settings = study.settings.evaluation
    if condition.name not in SOME_PROBLEMS:
        return Asked(condition, problems, sampling)
    chosen = problems
    if settings.control_problems:
        ranked = sorted(problems, key=lambda problem: digest_of(problem.id))[: settings.control_problems]
        kept = {problem.id for problem in ranked}
        chosen = [problem for problem in problems if problem.id in kept]
    if condition.name == AGAIN:
        sampling = sampling.model_copy(update={"batch_tokens": _batch_tokens_again(study, chosen, sampling)})
    return Asked(condition, chosen, sampling)


def _batch_tokens_again(study: "Study", problems: Sequence[Problem], sampling: SamplingSettings) -> int:
    wanted = study.settings.evaluation.batch_tokens
    if wanted == sampling.batch_tokens:
        raise ConfigError(
            f"evaluation.batch_tokens {wanted} is sampling.batch_tokens, so the unsteered model would be asked again in the same "
            "batches; give another number, or 0 for batches of half as many rows"
        )
    prompts = find.prompts(study, study.settings.evaluation.split)
    return wanted or other_batches(
        [len(prompts[problem.id]) + sampling.max_new_tokens for problem in problems for _ in range(sampling.n)],
        sampling.batch_tokens,
    )


def _conditions(study: "Study", steering: Steering, tuning: Tuning | None) -> list[Condition]:
    """The conditions that attach a steering, their controls, and the prompt-only baseline."""
    settings = study.settings.evaluation
    down = down_weights(study.model, np.unique(steering.layer).tolist())
    conditions = standard_conditions(steering, down, settings.random_sets, settings.seed)
    conditions += [Condition(AGAIN), first_token(steering, settings.first_tokens)]
    conditions += _running_conditions(study, steering)
    controls = set(settings.controls)
    conditions = [c for c in conditions if _control(c.name) in (None, *controls)]
    if tuning is not None and ADARAS_CRITERION in {point.criterion for point in tuning.points}:
        points = [point for point in tuning.points if (point.criterion, point.intervention) == (ADARAS_CRITERION, "add")]
        if points and best_point(points) != tuning.best:
            conditions.append(Condition(ADARAS, steering_at(study, best_point(points), steering.gate)))
    if "direction" in settings.baselines:
        best = study.tune_direction().steering.with_gate(steering.gate)
        conditions.append(Condition(DIRECTION, best, "auto" if steering.gate.reads else "on"))
    if "prompt-only" in settings.baselines:
        conditions.append(prompt_only(study.settings.prompt, settings.instruction, study.model.tokenizer))
    return conditions


def _control(name: str) -> Control | None:
    """Which control of the settings a condition is; None for the others."""
    if name.startswith((f"{RANDOM}-", f"{RANDOM_NORM}-")):
        return "random"
    others: dict[str, Control] = {NEGATIVE: "negative", AGAIN: "again", FIRST_TOKEN: "first-token"}
    return others.get(name)


def _condition_digest(condition: Condition) -> dict[str, object]:
    steering, prompt = condition.steering, condition.prompt
    return {
        "steering": steering.digest if steering else None,
        "gate": condition.gate,
        "prompt": prompt.model_dump(mode="json") if prompt else None,
        **beginning_facts(condition),
    }


def _by_condition(some: Sequence[Sequence[Outcome]]) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for rows in some:
        for row in rows:
            found.setdefault(row.condition, []).append(row)
    return found


def _baselines(
    study: "Study", problems: Sequence[Problem], outcomes: Mapping[str, Sequence[Outcome]]
) -> dict[str, list[Outcome]]:
    """What the same tokens, or the same traces, buy without steering."""
    settings, found = study.settings.evaluation, {}
    if "majority" in settings.baselines:
        sampling = study.settings.sampling
        votes = sampling.model_copy(update={"n": settings.votes, "seed": sampling.seed + 1})
        if not votes.temperature:
            raise InputError(
                "a majority vote needs responses that differ; set sampling.temperature above 0, or leave 'majority' out"
            )
        (sampled,) = answers(study, [Asked(Condition(SAMPLED), problems, votes)], what="evaluate")
        budget: dict[str, int] = {}
        for outcome in outcomes.get(GATED) or outcomes[ALWAYS]:
            budget[outcome.problem_id] = budget.get(outcome.problem_id, 0) + outcome.tokens
        found |= {rows[0].condition: rows for rows in (sampled, majority(sampled), majority_at_cost(sampled, budget))}
    if "sft-lora" in settings.baselines:
        found |= _fine_tuned(study, problems, settings)
    return found


def _fine_tuned(study: "Study", problems: Sequence[Problem], settings: EvaluationSettings) -> dict[str, list[Outcome]]:
    """A LoRA on the same correct traces; in this process, where its weights are."""
    traces = correct_traces(study)
    facts = {"traces": [study.keys["sample"], study.keys["contrast"]], "settings": settings.sft.model_dump(mode="json")}
    if study.kept_prompts is not None:
        study.kept_prompts.forget()
    entry = study.entry("sft", {**facts, **study.forward_facts()})
    with entry.claim(), sft_lora(study.model, traces, settings.sft, entry.folder / "adapter", progress=study.progress) as tuned:
        asked = [Asked(Condition(SFT_LORA), problems, sampling, tuned) for sampling in response_settings(study)]
        return _by_condition(answers(study, asked, LOCAL, what="evaluate"))
