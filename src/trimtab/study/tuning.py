"""The grid on the validation split: which criterion, intervention, number of neurons and strength."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from trimtab.analysis.dose import CALIBRATION, measure_doses
from trimtab.dose import FACT, Dose
from trimtab.errors import ConfigError, ModelError
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.rows import (
    UNSTEERED,
)
from trimtab.evaluation.runner import (
    Condition,
)
from trimtab.evaluation.settings import TunePoint, best_point
from trimtab.gate import AnyGate, PromptGate
from trimtab.interventions import INTERVENTIONS
from trimtab.steering import Steering
from trimtab.store import AnyPath, read_json, read_table, write_json, write_table
from trimtab.study import find, gather
from trimtab.study.settings import check_grid
from trimtab.study.values import Tuning
from trimtab.traces import Problem, Split

if TYPE_CHECKING:
    from trimtab.study.study import Study
from trimtab.study.answers import Asked, answers

logger = logging.getLogger(__name__)

VERSIONS: Mapping[str, int] = {"tune": 1, "dose": 1}
"""Of each verb, as :data:`trimtab.study.find.VERSIONS`."""
POINTS, DOSES = "points.parquet", "doses.json"


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


def _accuracy(outcomes: Sequence[Outcome]) -> float:
    return sum(outcome.correct for outcome in outcomes) / len(outcomes)
