"""Neurons, strength and gate that one group of problems gives by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import NotEnoughDataError
from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments.choosing import best_strength
from trimtab.experiments.grouping import Grouping
from trimtab.experiments.workbench import STATISTICS, Workbench
from trimtab.gate import AnyGate, Gate
from trimtab.gating import fit_logistic, youden
from trimtab.gating.cross_validation import check_classes
from trimtab.neurons import NeuronSet
from trimtab.ranking import CRITERIA, ClassMoments
from trimtab.recording import Recording, record_prompts
from trimtab.steering import Steering
from trimtab.tasks import render_prompt
from trimtab.traces import Split

MIN_TUNE = 20
"""On fewer tune problems of its own a group chooses no strength: it takes the run's."""

PromptFeatures = Mapping[Split, NDArray[np.float32]]
"""Activations of the last prompt token of every problem of a split, ``[problem, layer, d_ff]``."""


@dataclass(frozen=True, slots=True)
class Source:
    """What the problems of one group give.

    Args:
        steering: at its strength, behind its gate.
        tuned_on: tune problems that the strength was chosen on; 0 where it is the run's.
        own_gate: whether the gate is the group's own; else it is the run's.
    """

    name: str
    neurons: NeuronSet
    steering: Steering
    tuned_on: int
    own_gate: bool


def moments_of_group(bench: Workbench, grouping: Grouping, name: str) -> ClassMoments:
    """Moments of the part of the contrast that is of one group; every criterion can read them."""
    rows = [row for row in bench.contrast if grouping.of.get(row.problem_id) == name]
    return replace(bench.moments_of(rows, STATISTICS), column_norm=bench.class_moments.column_norm)


def neurons_of(bench: Workbench, moments: ClassMoments, criterion: str, k: int) -> NeuronSet | None:
    """The best k neurons of some moments, or all that the criterion can select where these are fewer; None for none."""
    order = CRITERIA[criterion](moments).order
    eligible = int(moments.comparable.ravel()[order].sum())
    return bench.neurons(criterion, min(k, eligible), moments, bench.settings.seed) if eligible else None


def find_source(bench: Workbench, grouping: Grouping, name: str, prompts: PromptFeatures) -> Source | None:
    """Find neurons on the contrast of a group, choose their strength on its tune problems without a gate, and fit its gate.

    Criterion, operator and K are those that the run chose. Too little data for a strength or a gate falls back to the run's, and
    the source says so. None where the criterion can select no neuron.
    """
    neurons = neurons_of(bench, moments_of_group(bench, grouping, name), bench.criterion, bench.k)
    if neurons is None:
        return None
    steering = bench.always(neurons)
    tune = grouping.among(bench.split(Split.TUNE), name)[: bench.tune.problems]
    tuned_on = len(tune) if len(tune) >= MIN_TUNE else 0
    if tuned_on:
        steering = best_strength(bench, steering, label=f"{name}, strength", problems=tune)
    gate = fit_gate(bench, grouping, name, prompts)
    return Source(name, neurons, steering.with_gate(gate or bench.steering.gate), tuned_on, gate is not None)


def fit_gate(bench: Workbench, grouping: Grouping, name: str, prompts: PromptFeatures) -> Gate | None:
    """A logistic gate fitted on a group's find problems with its threshold from the group's tune problems.

    None where the run has no gate, or the group has fewer than 10 failed or 10 solved problems in either split.
    """
    if not bench.failed:
        return None
    features, failed = {}, {}
    for split in (Split.FIND, Split.TUNE):
        inside = np.array([grouping.of.get(problem.id) == name for problem in bench.split(split)])
        features[split], failed[split] = prompts[split][inside], bench.failed[split][inside]
    run_gate = bench.steering.gate
    try:
        check_classes(failed[Split.TUNE])
        gate = fit_logistic(features[Split.FIND], failed[Split.FIND], n_features=len(run_gate.layer))
    except NotEnoughDataError:
        return None
    probability = gate.probability(features[Split.TUNE][:, gate.layer, gate.index])
    return replace(gate, mode=run_gate.mode, threshold=youden(failed[Split.TUNE], probability))


def prompt_features(bench: Workbench) -> PromptFeatures:
    """The prompts of every split as a gate reads them; those of the test split are recorded here, once."""
    if not bench.failed:
        return {}
    recordings: dict[Split, Recording] = dict(bench.prompts)
    if Split.TEST not in recordings:
        problems = bench.split(Split.TEST)
        prompts = {p.id: render_prompt(bench.opened.tokenizer, p.question, bench.prompt) for p in problems}
        recordings[Split.TEST] = record_prompts(bench.opened, prompts, bench.folder / "prompts-test", progress=bench.progress)
    return {
        split: recording.means("last-prompt", [problem.id for problem in bench.split(split)])
        for split, recording in recordings.items()
    }


def gated_answers(
    bench: Workbench, steering: Steering, base: Sequence[Outcome], always: Sequence[Outcome], prompts: PromptFeatures
) -> list[Outcome]:
    """Answers to the test split behind a gate.

    A hard gate on the last prompt token needs no run of its own: a problem's answer is the steered one where the gate fires and
    the unsteered one elsewhere.
    """
    gate: AnyGate = steering.gate
    if gate.kind != "logistic" or gate.mode != "hard" or gate.scope != "last-prompt":
        return bench.answers(Split.TEST, steering, "auto", label="gated")
    probability = gate.probability(prompts[Split.TEST][:, gate.layer, gate.index])
    fires = (probability >= gate.threshold).tolist()
    return [after if fire else before for before, after, fire in zip(base, always, fires, strict=True)]
