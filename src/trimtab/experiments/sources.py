"""Neurons, strength and gate that one group of problems gives by itself."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np

from trimtab.errors import NotEnoughDataError
from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.choosing import best_strength
from trimtab.experiments.grouping import Grouping
from trimtab.experiments.workbench import STATISTICS, Workbench
from trimtab.gate import Gate
from trimtab.gating import RecordedRows, columns, fit_logistic, youden
from trimtab.gating.probe import check_classes
from trimtab.gating.reading import predict
from trimtab.neurons import Neurons
from trimtab.ranking import CRITERIA, ClassMoments
from trimtab.steering import Steering
from trimtab.tasks import render_prompt
from trimtab.traces import Split

MIN_TUNE = 20
"""On fewer tune problems of its own a group chooses no strength: it takes the run's."""


@dataclass(frozen=True, slots=True)
class Source:
    """What the problems of one group give.

    Args:
        steering: at its strength, behind its gate.
        tuned_on: tune problems that the strength was chosen on; 0 where it is the run's.
        own_gate: whether the gate is the group's own; else it is the run's.
    """

    name: str
    neurons: Neurons
    steering: Steering
    tuned_on: int
    own_gate: bool


def moments_of_group(bench: Workbench, grouping: Grouping, name: str) -> ClassMoments:
    """Moments of the part of the contrast that is of one group; every criterion can read them."""
    rows = [row for row in bench.contrast if grouping.of.get(row.problem_id) == name]
    return replace(bench.moments_of(rows, STATISTICS), column_norm=bench.class_moments.column_norm)


def neurons_of(bench: Workbench, moments: ClassMoments, criterion: str, k: int) -> Neurons | None:
    """The best k neurons of some moments, or all that the criterion can select where these are fewer; None for none."""
    order = CRITERIA[criterion](moments).order
    eligible = int(moments.comparable.ravel()[order].sum())
    return bench.neurons(criterion, min(k, eligible), moments, bench.settings.seed) if eligible else None


def find_source(bench: Workbench, grouping: Grouping, name: str) -> Source | None:
    """Find neurons on the contrast of a group, choose their strength on its tune problems without a gate, and fit its gate.

    Criterion, intervention and K are those that the run chose. Too little data for a strength or a gate falls back to the run's,
    and the source says so. None where the criterion can select no neuron.
    """
    neurons = neurons_of(bench, moments_of_group(bench, grouping, name), bench.criterion, bench.k)
    if neurons is None:
        return None
    steering = bench.always(neurons)
    tune = grouping.among(bench.split(Split.VALIDATION), name)[: bench.tune.problems]
    tuned_on = len(tune) if len(tune) >= MIN_TUNE else 0
    if tuned_on:
        steering = best_strength(bench, steering, label=f"{name}, strength", problems=tune)
    gate = fit_gate(bench, grouping, name)
    return Source(name, neurons, steering.with_gate(gate or bench.steering.gate), tuned_on, gate is not None)


def fit_gate(bench: Workbench, grouping: Grouping, name: str) -> Gate | None:
    """A logistic gate fitted on a group's find problems with its threshold from the group's tune problems.

    It reads as many neurons as the run's gate, of the same prompt tokens. None where the run has no gate, or the group has fewer
    than 10 failed or 10 solved problems in either split.
    """
    if not bench.prompts:
        return None
    run_gate = bench.steering.gate
    rows, failed = {}, {}
    for split, recording in bench.prompts.items():
        ids = [problem.id for problem in bench.split(split)]
        inside = np.array([grouping.of.get(problem_id) == name for problem_id in ids])
        rows[split] = RecordedRows(recording, run_gate.scope, list(compress(ids, inside)))
        failed[split] = bench.failed[split][inside]
    pooling = "mean" if run_gate.scope == "prompt" else "last"
    try:
        check_classes(failed[Split.VALIDATION])
        gate = fit_logistic(rows[Split.TRAIN], failed[Split.TRAIN], n_features=bench.gate_features, pooling=pooling)
    except NotEnoughDataError:
        return None
    probability = gate.probability(columns(rows[Split.VALIDATION], gate.layer, gate.index))
    return replace(gate, mode=run_gate.mode, threshold=youden(failed[Split.VALIDATION], probability))


def gated_answers(bench: Workbench, steering: Steering, base: Sequence[Outcome], always: Sequence[Outcome]) -> list[Outcome]:
    """Answers to the test split behind a gate.

    A hard gate needs no run of its own: the answer is the steered one where the gate fires and the unsteered one elsewhere.
    """
    gate = steering.gate
    if gate.mode != "hard":
        return bench.answers(Split.TEST, steering, "auto", label="gated")
    questions = {p.id: render_prompt(bench.model.tokenizer, p.question, bench.prompt) for p in bench.split(Split.TEST)}
    p_fail = predict(bench.model, gate, questions)
    return [after if p_fail[before.problem_id] >= gate.cutoff else before for before, after in zip(base, always, strict=True)]
