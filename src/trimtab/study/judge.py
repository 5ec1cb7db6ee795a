"""From neurons to a verdict: answers under a steering, the grid on the validation split, the evaluation of every condition."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trimtab.analysis.dose import CALIBRATION, measure_doses
from trimtab.dose import FACT, Dose
from trimtab.errors import ConfigError, InputError, ModelError
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
    ConditionJob,
    SteeredTokens,
    condition_job,
    first_token,
    other_batches,
    prompt_only,
    read_steered,
    standard_conditions,
)
from trimtab.evaluation.settings import Control, EvaluationSettings, TunePoint, best_point
from trimtab.evaluation.summary import condition_metrics, summarise
from trimtab.execution import LOCAL, Executor
from trimtab.gate import ALWAYS as ALWAYS_GATE
from trimtab.gate import AnyGate, Gate, PromptGate, RandomOpening
from trimtab.interventions import INTERVENTIONS
from trimtab.model import LanguageModel, check_identity, down_weights
from trimtab.sampling import SamplingSettings
from trimtab.sampling.prefills import Prefills
from trimtab.steering import Steering
from trimtab.store import AnyPath, Entry, digest_of, openings, read_json, read_table, record_opening, write_json, write_table
from trimtab.study import find, gather
from trimtab.study.settings import check_grid
from trimtab.study.tokens import record_tokens
from trimtab.study.values import Evaluation, Tuning
from trimtab.tasks import Prompt
from trimtab.traces import Problem, Split, Trace

if TYPE_CHECKING:
    from trimtab.study.study import Study

logger = logging.getLogger(__name__)

VERSIONS: Mapping[str, int] = {
    "answers": 2,
    "tune": 1,
    "dose": 1,
    "evaluate": 1,
    "experiment": 3,
    "sft": 1,
    "trained": 1,
    "tokens": 2,
    "places": 1,
}
"""Of each verb, as :data:`trimtab.study.find.VERSIONS`."""
ADARAS_CRITERION = "adaras"
STEERED = "steered"
"""What a file of answers calls its condition: who asks for them gives it a name of its own."""
OUTCOMES, POINTS, DOSES, STEERED_ROWS = "outcomes.parquet", "points.parquet", "doses.json", "steered.parquet"


class Asked(NamedTuple):
    """One condition on some problems with one way to sample.

    Args:
        condition: what is attached; its name is only for the eye.
        problems: in order; all of one split, or some of them.
        sampling: greedy, or with a seed.
        model: None for the study's own.
        prompt: None for the study's own, where the condition has none.
    """

    condition: Condition
    problems: Sequence[Problem]
    sampling: SamplingSettings
    model: LanguageModel | None = None
    prompt: Prompt | None = None


def answers(
    study: "Study", asked: Sequence[Asked], executor: Executor | None = None, what: str = "answers"
) -> list[list[Outcome]]:
    """Outcomes of every condition asked for, in order; those that any verb has made before are read.

    A result is named by what was attached and to which problems, so ``tune``, ``evaluate`` and every experiment share it. New
    answers to test problems are an opening of that split, noted in the ledger before the first of them.
    """
    asked = [each._replace(condition=_plain(each.condition)) for each in asked]
    entries = [_answers_entry(study, each) for each in asked]
    study.note_keys({entry.name: entry for entry in entries})
    by_name = dict(zip((entry.name for entry in entries), asked, strict=True))
    with study.cache.claim_all(entries) as missing:
        jobs: list[tuple[LanguageModel, ConditionJob]] = []
        opened = [p for entry in missing for p in by_name[entry.name].problems if p.split is Split.TEST]
        if missing and study.settings.executor.kind == "local":
            gather.check_grading(study, [p for entry in missing for p in by_name[entry.name].problems])
        if opened:
            study.open_test(what, list({problem.id: problem for problem in opened}.values()))
        here = executor is LOCAL or (executor is None and study.settings.executor.kind == "local")
        prefills: dict[int, Prefills] = {}
        for entry in missing:
            each = by_name[entry.name]
            model = each.model or study.model
            kept = prefills.setdefault(id(model), Prefills(each.sampling.batch_tokens)) if here else None
            job = condition_job(
                model,
                replace(each.condition, name=UNSTEERED if each.condition.steering is None else STEERED),
                each.problems,
                each.sampling,
                study.grader,
                entry.folder,
                prompt=each.prompt or study.settings.prompt,
                checker=study.checker,
                generator=study.generator,
                label=f"{what}: {each.condition.name}",
                prefills=kept,
            )
            jobs.append((model, job))
        for model in {id(model): model for model, _ in jobs}.values():
            study.run([job for other, job in jobs if other is model], model, executor)
        for _, job in jobs:
            write_table(job.parts.folder / OUTCOMES, job.outcomes(), Outcome)
    stored = [study.remember(entry, lambda entry=entry: read_table(entry.folder / OUTCOMES, Outcome)) for entry in entries]
    return [[replace(o, condition=each.condition.name) for o in rows] for each, rows in zip(asked, stored, strict=True)]


def _plain(condition: Condition) -> Condition:
    """The same answers under one form: without a steering there is no gate to ask, and a gate held open does not count."""
    if condition.steering is None:
        return replace(condition, gate="on")
    if condition.gate == "on":
        return replace(condition, steering=condition.steering.with_gate(ALWAYS_GATE))
    return condition


def _answers_entry(study: "Study", asked: Asked) -> Entry:
    steering, prompt = asked.condition.steering, asked.condition.prompt or asked.prompt or study.settings.prompt
    model = asked.model or study.model
    facts = {
        "steering": steering.digest if steering else None,
        "gate": asked.condition.gate,
        "problems": gather.problems_digest(asked.problems),
        "sampling": asked.sampling.model_dump(mode="json"),
        "prompt": prompt.model_dump(mode="json"),
        "tokenizer": model.tokenizer_fingerprint,
        **_beginning(asked.condition),
        **study.grader_facts,
    }
    return study.entry("answers", {**facts, **study.engine_facts()}, model)


def _beginning(condition: Condition) -> dict[str, object]:
    """What a key says of a beginning alone; nothing of whole responses, whose keys are older."""
    return {"first_tokens": condition.first_tokens} if condition.first_tokens else {}


def steering_at(study: "Study", point: TunePoint, gate: AnyGate) -> Steering:
    """The steering of a grid point, behind the gate."""
    settings = study.settings
    neurons = find.rankings(study, [point.criterion], settings.ranking.k)[point.criterion]
    facts: dict[str, object] = {
        "criterion": point.criterion,
        "intervention": point.intervention,
        "k": point.k,
        "share": point.k / neurons.model.n_neurons,
        "tune": {"n": point.n, "unsteered": point.unsteered, "always": point.always, "gated": point.gated},
        "task": settings.task.source,
        "seed": settings.sampling.seed,
        **neurons.facts,
    }
    return Steering.of(neurons.top(point.k), point.strength, settings.tune.scope, gate, facts, INTERVENTIONS[point.intervention])


def tune(study: "Study") -> Tuning:
    """Run the grid of the settings on the validation split, and take the point with the highest gated accuracy.

    With a hard gate a problem's response is the steered one when the gate fires and the unsteered one when it does not, so one
    steered run serves both columns. A proportional gate steers each problem with its own strength and is run on its own.
    """
    settings, grid = study.settings, study.settings.tune
    check_grid(settings)
    gate = find.fit_gate(study)
    found = find.rankings(study, settings.ranking.criteria, settings.ranking.k)
    chosen = study.problems().split(Split.VALIDATION)[: grid.problems]
    if not chosen:
        raise ConfigError(
            "tune needs problems of the validation split, and there are none; ask for some with validation=N",
            code="no-validation-problems",
        )
    points = list(product(settings.ranking.criteria, grid.interventions, grid.k, grid.strengths))
    facts = {
        "gate": Steering.of(found[points[0][0]].top(1), 1.0, grid.scope, gate).digest if gate.reads else gate.kind,
        "neurons": {criterion: study.keys[f"rank-{criterion}"] for criterion in settings.ranking.criteria},
        "settings": grid.model_dump(mode="json"),
        "sampling": settings.sampling.greedy().model_dump(mode="json"),
        "prompt": settings.prompt.model_dump(mode="json"),
        "problems": gather.problems_digest(chosen),
        **study.grader_facts,
    }
    entry = study.entry("tune", {**facts, **study.engine_facts()})

    def work(folder: AnyPath) -> None:
        p_fail = find.p_fail(study, gate, Split.VALIDATION) if gate.reads else {}
        write_table(folder / POINTS, _grid_points(study, points, gate, p_fail, chosen), TunePoint)

    table = tuple(study.compute("tune", entry, work, lambda folder: read_table(folder / POINTS, TunePoint)))
    best = best_point(table)
    doses = _doses(study, dict.fromkeys((point.criterion, point.intervention, point.k) for point in table))
    steering = steering_at(study, best, gate)
    if (dose := doses.get((best.criterion, best.intervention, best.k))) is not None:
        steering = replace(steering, facts={**steering.facts, FACT: dose.facts()})
    return Tuning(table, best, steering, entry.name, doses)


def _doses(study: "Study", choices: Collection[tuple[str, str, int]]) -> dict[tuple[str, str, int], Dose]:
    """The dose of each choice at unit strength, on the first traces of the train split; empty where the model has none."""
    settings, found = study.settings, study.traces()
    traces = [trace for trace in found.traces if len(trace.response_ids) > 1][:CALIBRATION]
    if not traces:
        return {}
    facts = {
        "traces": [found.key, CALIBRATION],
        "neurons": {criterion: study.keys[f"rank-{criterion}"] for criterion in settings.ranking.criteria},
        "choices": [list(choice) for choice in choices],
    }
    entry = study.entry("dose", {**facts, **study.forward_facts()})

    def work(folder: AnyPath) -> None:
        ranked = find.rankings(study, settings.ranking.criteria, settings.ranking.k)
        steerings = [Steering.of(ranked[c].top(k), 1.0, intervention=INTERVENTIONS[edit]) for c, edit, k in choices]
        try:
            measured = [dose.facts() for dose in measure_doses(study.model, steerings, traces)]
        except ModelError as error:
            logger.info("the doses of %s are not measured: %s", study.model.identity.name, error)
            measured = []
        write_json(folder / DOSES, {"unit": measured})

    def read(folder: AnyPath) -> list[Dose | None]:
        return [Dose.of({FACT: each}) for each in read_json(folder / DOSES)["unit"]]  # type: ignore[call-overload, index]

    found_doses = study.compute("dose", entry, work, read)
    return {choice: dose for choice, dose in zip(choices, found_doses, strict=False) if dose is not None}


def _grid_points(
    study: "Study",
    points: Sequence[tuple[str, str, int, float]],
    gate: PromptGate,
    p_fail: Mapping[str, float],
    chosen: Sequence[Problem],
) -> list[TunePoint]:
    found = find.rankings(study, study.settings.ranking.criteria, study.settings.ranking.k)
    steerings = {
        f"{criterion}-{intervention}-{k}-{strength:g}": Steering.of(
            found[criterion].top(k), strength, study.settings.tune.scope, gate, intervention=INTERVENTIONS[intervention]
        )
        for criterion, intervention, k, strength in points
    }
    return [
        TunePoint(*point, len(chosen), *accuracies)
        for point, accuracies in zip(points, grid_accuracies(study, steerings, gate, p_fail, chosen), strict=True)
    ]


class GridAccuracies(NamedTuple):
    """Of one point of a grid: the bare model, steered on every problem, and behind the gate."""

    unsteered: float
    always: float
    gated: float


def grid_accuracies(
    study: "Study",
    steerings: Mapping[str, Steering],
    gate: AnyGate,
    p_fail: Mapping[str, float],
    chosen: Sequence[Problem],
    what: str = "tune",
) -> list[GridAccuracies]:
    """The accuracies of every point of a grid on the same problems, see :func:`tune`.

    Args:
        steerings: by the name of the point, each behind ``gate``.
        p_fail: by problem; read where the gate reads.
        what: for progress and the ledger.
    """
    greedy, proportional = study.settings.sampling.greedy(), gate.reads and gate.mode == "proportional"
    conditions = [Condition(UNSTEERED)]
    for name, steering in steerings.items():
        conditions.append(Condition(name, steering))
        if proportional:
            conditions.append(Condition(f"{name}-gated", steering, "auto"))
    base, *rest = answers(study, [Asked(condition, chosen, greedy) for condition in conditions], what=what)
    fires = [p_fail[problem.id] >= gate.cutoff for problem in chosen] if gate.reads else [True] * len(chosen)
    table = []
    for i in range(len(steerings)):
        steered = rest[2 * i] if proportional else rest[i]
        gated = rest[2 * i + 1] if proportional else [s if fire else b for b, s, fire in zip(base, steered, fires, strict=True)]
        table.append(GridAccuracies(*map(_accuracy, (base, steered, gated))))
    return table


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
        each.name: [
            _answers_entry(study, _asked(study, _plain(each), problems, sampling)) for sampling in response_settings(study)
        ]
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
    entries = [_answers_entry(study, _asked(study, condition, problems, sampling)) for sampling in response_settings(study)]
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
        **_beginning(condition),
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
    entry = study.entry("sft", {**facts, **study.forward_facts()})
    with entry.claim(), sft_lora(study.model, traces, settings.sft, entry.folder / "adapter", progress=study.progress) as tuned:
        asked = [Asked(Condition(SFT_LORA), problems, sampling, tuned) for sampling in response_settings(study)]
        return _by_condition(answers(study, asked, LOCAL, what="evaluate"))


def correct_traces(study: "Study") -> list[Trace]:
    """The correct side of the contrast: what found the neurons, and what fine-tuning may learn from."""
    rows, _, _ = gather.contrast(study)
    wanted = {row.trace_id for row in rows if row.correct}
    return [trace for trace in study.traces().traces if trace.id in wanted]


def open_test(study: "Study", what: str, problems: Sequence[Problem]) -> None:
    """Note in the ledger that a verb opens test problems, once for each key it comes to."""
    record_opening(
        study.cache.ledger, what, f"{len(problems)} problems of {test_digest(study)}", study.model.identity.fingerprint
    )


def test_digest(study: "Study") -> str:
    """The digest that the ledger counts by, of the test problems and the model's weights."""
    return f"{study.problems().digests[Split.TEST][:16]}-{study.model.identity.fingerprint[:16]}"


def ledger_openings(study: "Study") -> int:
    """How often these test problems were opened with this model."""
    return openings(study.cache.ledger, test_digest(study))


def _accuracy(outcomes: Sequence[Outcome]) -> float:
    return sum(outcome.correct for outcome in outcomes) / len(outcomes)
