"""The method's part of a report: which neurons, and how criterion, intervention, K and strength were chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product

import numpy as np

from trimtab.evaluation.names import ADARAS, ALWAYS
from trimtab.evaluation.rows import ConditionSummary
from trimtab.evaluation.tune import TunePoint, best_point
from trimtab.pipeline.line import Line
from trimtab.report import CriterionRow, DoseRow, NeuronRow, NeuronsReport, TuneReport, TuneRow
from trimtab.store import read_json

# what the paper's own method is made of
ADARAS_CRITERION, ADARAS_INTERVENTION = "adaras", "add"


def found_neurons(line: Line) -> NeuronsReport:
    """The neurons that this run found and tuned."""
    best = best_point(line.tune_points())
    neurons = line.neurons(best.criterion).top(best.k)
    expert, index = divmod(neurons.index, neurons.model.d_expert)
    columns = {
        "layer": neurons.layer,
        "index": index,
        "correct_mean": neurons.correct_mean,
        "incorrect_mean": neurons.incorrect_mean,
        "mean_difference": neurons.mean_difference,
    }
    columns |= {"score": neurons.score} | ({"expert": expert} if neurons.model.n_experts > 1 else {})
    return NeuronsReport(
        criterion=best.criterion,
        intervention=best.intervention,
        k=best.k,
        share=neurons.share,
        strength=best.strength,
        scope=line.config.tune.scope,
        layer_counts=tuple(np.bincount(neurons.layer, minlength=neurons.model.n_layers).tolist()),
        top=tuple(
            NeuronRow.model_validate(dict(zip(columns, row, strict=True)))
            for row in zip(*(column[:20].tolist() for column in columns.values()), strict=True)
        ),
        contrast=read_json(line.directory.contrast.with_suffix(".json")),  # type: ignore[arg-type]
    )


def artifact_neurons(line: Line) -> NeuronsReport:
    """The neurons of a finished artifact, which holds what is done to them and not the class means they were found from."""
    steering = line.steering()
    return NeuronsReport(
        criterion=str(steering.facts.get("criterion", "not recorded")),
        intervention=str(steering.facts.get("intervention", "not recorded")),
        k=len(steering),
        share=len(steering) / steering.model.n_neurons,
        strength=steering.strength,
        scope=steering.scope,
        layer_counts=tuple(np.bincount(steering.layer, minlength=steering.model.n_layers).tolist()),
        top=(),
        contrast={},
    )


def tune_report(line: Line) -> TuneReport:
    """The grid, its best point, and that point's dose and response."""
    points = line.tune_points()
    best = best_point(points)
    return TuneReport(points=tuple(_point(point) for point in points), chosen=_point(best), dose=_dose(points, best))


def criteria_report(line: Line, rows: Mapping[str, ConditionSummary]) -> tuple[CriterionRow, ...]:
    """The best point of each criterion with each intervention, and its row on the problems of the verdict where it has one."""
    points = line.tune_points()
    conditions = {best_point(points): ALWAYS}
    if ADARAS in rows:
        conditions[best_point(points, ADARAS_CRITERION, ADARAS_INTERVENTION)] = ADARAS
    table = []
    for criterion, intervention in product(line.config.ranking.criteria, line.config.tune.interventions):
        best = best_point(points, criterion, intervention)
        table.append(CriterionRow(best=_point(best), test=rows.get(conditions.get(best, ""))))
    return tuple(table)


def _point(point: TunePoint) -> TuneRow:
    return TuneRow.model_validate(asdict(point))


def _dose(points: Sequence[TunePoint], best: TunePoint) -> tuple[DoseRow, ...]:
    same = [p for p in points if (p.criterion, p.intervention, p.k) == (best.criterion, best.intervention, best.k)]
    rows = [DoseRow(strength=p.strength, accuracy=p.always, n=p.n) for p in same]
    rows.append(DoseRow(strength=0.0, accuracy=best.unsteered, n=best.n))
    return tuple(sorted(rows, key=lambda row: row.strength))
