"""The data of a report: one frozen object from which the HTML is drawn, and its JSON twin on disk."""

import os
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, PlainSerializer, PlainValidator

from trimtab.errors import InputError
from trimtab.evaluation.control_rows import Controls
from trimtab.evaluation.rows import Breakdown, ConditionSummary, ThresholdPoint, TunePoint
from trimtab.findings import Findings
from trimtab.neurons import ModelIdentity
from trimtab.stats.values import GateAssessment, VerdictWord
from trimtab.store import AnyPath, Record, any_path, read_record

FlipKind = Literal["fixed", "broken", "still wrong", "still right"]
FlipTable = dict[str, dict[FlipKind, int]]
Curve = tuple[tuple[float, float], ...]


def _findings(value: object) -> Findings:
    if isinstance(value, Findings):
        return value
    try:
        return Findings.from_json(value)  # type: ignore[arg-type]  # which checks what it is given
    except InputError as cause:
        raise ValueError(str(cause)) from cause


Experiment = Annotated[Findings, PlainValidator(_findings), PlainSerializer(Findings.to_json)]
"""Findings within a report: read and written by their own methods, which check the frames."""


class Section(Record):
    """Base of every section: frozen, no unknown key, no NaN. Lists are read as tuples, which JSON does not have."""

    model_config = ConfigDict(strict=False)


class UnscoredBounds(Section):
    """Accuracies and gain with every unscored response counted against the condition, and for it."""

    base_low: float
    base_high: float
    condition_low: float
    condition_high: float
    gain_low: float
    gain_high: float


class VerdictReport(Section):
    """The judgement of one condition against the unsteered model.

    Args:
        condition: the condition that is judged.
        sentence: :attr:`trimtab.evaluation.verdict.VerdictSentence.sentence`.
        minimum_detectable_gain: as a fraction; None when n problems could show no gain of any size.
        bounds: None when every response was scored.
    """

    word: VerdictWord
    sentence: str
    n: int = Field(ge=1)
    minimum_detectable_gain: float | None
    condition: str = "gated"
    split: str = "test"
    bounds: UnscoredBounds | None = None


class GateReport(Section):
    """How good the gate is, with its threshold and how often it fires.

    Args:
        split: of the problems that it is assessed on.
        assessment: its figures; those beside a text-only baseline are None where a finished artifact is judged, whose train split
            the baseline would have to be fitted on.
        text_roc: (false positive rate, true positive rate) of that baseline, empty where there is none.
        label: what kind of gate it is.
        thresholds: what a hard gate would gain at every threshold, ascending; empty where it was not computed.
    """

    split: str
    assessment: GateAssessment
    threshold: float
    firing_rate: float
    text_roc: Curve = ()
    label: str = ""
    thresholds: tuple[ThresholdPoint, ...] = ()


class NeuronRow(Section):
    """One selected neuron. In a dense model ``expert`` is None; in a mixture ``index`` counts within the expert."""

    layer: int
    index: int
    correct_mean: float
    incorrect_mean: float
    mean_difference: float
    score: float
    expert: int | None = None


class NeuronsReport(Section):
    """The neurons that are steered.

    Args:
        intervention: what is done to them, a name of :mod:`trimtab.interventions`.
        share: of all neurons of the model, as a fraction.
        strength, scope: of the steering.
        layer_counts: selected neurons per layer, every layer of the model.
        top: the best of them, best first.
        contrast: how many traces and problems they were found from, by name.
        directions: layers after which the steering adds a direction to the residual stream.
    """

    criterion: str
    intervention: str
    k: int
    share: float
    strength: float
    scope: str
    layer_counts: tuple[int, ...] = Field(min_length=1)
    top: tuple[NeuronRow, ...] = Field(max_length=20)
    contrast: dict[str, int]
    directions: tuple[int, ...] = ()


class DoseRow(Section):
    """Accuracy on n problems at one strength, with everything else as chosen."""

    strength: float
    accuracy: float
    n: int


class TuneReport(Section):
    """The grid, the point that was chosen from it, and the dose-response curve if one was run."""

    points: tuple[TunePoint, ...] = Field(min_length=1)
    chosen: TunePoint
    dose: tuple[DoseRow, ...] = ()
    dose_split: str = "validation"


class CriterionRow(Section):
    """The best point of a criterion with an intervention on the validation split, and its row on the test split where it was
    evaluated."""

    best: TunePoint
    test: ConditionSummary | None = None


class FlipsReport(Section):
    """What happened to the problems of each group, from :func:`trimtab.evaluation.summary.flips`; a kind left out is 0."""

    by_domain: FlipTable
    by_difficulty: FlipTable
    by_source: FlipTable | None = None


class RunReport(Section):
    """What is needed to run it again.

    Args:
        samples: how many traces, problems or recordings each stage handled.
        seconds: per stage.
        ledger_openings: how often the test split was opened, this time included.
        command: reproduces the run.
        sampling: how responses were generated, where this model does not prove the usual way; empty where it does.
    """

    model: ModelIdentity
    task: str
    config_digest: str
    samples: dict[str, int]
    seconds: dict[str, float]
    versions: dict[str, str]
    ledger_openings: int
    command: str
    sampling: str = ""


class Example(Section):
    """One problem with the response of the unsteered and of the judged condition."""

    problem_id: str
    question: str
    gold: str
    unsteered: str
    steered: str
    kind: FlipKind
    p_fail: float | None = None


class Report(Section):
    """A whole report.

    Args:
        claims: caveats that stand beside the verdict, one sentence each.
        conditions: in the order of the table; the first is the unsteered model.
        controls: what a sceptic asks of the verdict; None in a report that was written before there were some.
        breakdowns: the verdict by domain and by difficulty, where the problems have several.
        random_gains: the gain of every random set, by kind.
        gate: None when the gate is always or never.
        tune: None where a finished artifact is judged.
        examples: model output, so hostile text.
    """

    format: Literal[2] = 2
    verdict: VerdictReport
    claims: tuple[str, ...]
    conditions: tuple[ConditionSummary, ...] = Field(min_length=1)
    controls: Controls | None = None
    breakdowns: tuple[Breakdown, ...] = ()
    random_gains: dict[str, tuple[float, ...]]
    gate: GateReport | None
    neurons: NeuronsReport
    tune: TuneReport | None
    criteria: tuple[CriterionRow, ...]
    flips: FlipsReport
    run: RunReport
    experiments: tuple[Experiment, ...] = ()
    examples: tuple[Example, ...] = Field((), max_length=4)


def read_report(path: str | os.PathLike[str] | AnyPath) -> Report:
    """Read ``report.json``.

    Args:
        path: of the file; as text also a URL.

    Raises:
        StoreError: the file is missing, truncated, or has a key that is unknown, missing or of the wrong type; each is named.
    """
    return read_record(any_path(path), Report, "")
