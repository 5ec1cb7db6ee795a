"""The data of a report: one frozen object from which the HTML is drawn, and its JSON twin on disk."""

from typing import Annotated, Literal

from pydantic import Field, PlainSerializer, PlainValidator

from trimtab.errors import InputError
from trimtab.evaluation.rows import ConditionSummary
from trimtab.findings import Findings
from trimtab.neurons import ModelIdentity
from trimtab.report.data_verdict import BreakdownReport, Section, VerdictReport
from trimtab.store import AnyPath, read_record

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


class EstimateRow(Section):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


class CalibrationRow(Section):
    """Problems of similar p(fail): their mean p, the share that failed, and how many they are."""

    predicted: float
    observed: float
    n: int


class ThresholdRow(Section):
    """:class:`trimtab.evaluation.threshold_curve.ThresholdPoint`, field by field."""

    threshold: float
    steered: float
    accuracy: float
    gain: float
    low: float
    high: float


class GateReport(Section):
    """:class:`trimtab.gating.assess.GateAssessment`, with the threshold and how often the gate fires.

    Args:
        split: of the n problems that it is assessed on.
        roc, text_roc: (false positive rate, true positive rate) of the gate and of the text-only baseline; ``text_roc``
            may be empty.
        text_auroc, difference, text_brier: of the text-only baseline; None where a finished artifact is judged, whose train split
            the baseline would have to be fitted on.
        label: what kind of gate it is.
        thresholds: what a hard gate would gain at every threshold, ascending; empty where it was not computed.

    Example:
        ``GateReport(**asdict(assessment), split="test", threshold=gate.threshold, firing_rate=0.4)``
    """

    split: str
    n: int = Field(ge=1)
    n_failed: int
    auroc: EstimateRow
    text_auroc: EstimateRow | None
    difference: EstimateRow | None
    brier: float
    text_brier: float | None
    threshold: float
    firing_rate: float
    calibration: tuple[CalibrationRow, ...]
    roc: Curve
    text_roc: Curve = ()
    label: str = ""
    thresholds: tuple[ThresholdRow, ...] = ()

    @property
    def beats_text(self) -> bool:
        """Whether the whole interval of the difference lies above 0."""
        return self.difference is not None and self.difference.low > 0


class NeuronRow(Section):
    """One selected neuron; ``delta`` is ``correct_mean - incorrect_mean``. Without experts ``expert`` is None; with them
    ``index`` counts within."""

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


class TuneRow(Section):
    """:class:`trimtab.evaluation.tune.TunePoint`, field by field."""

    criterion: str
    intervention: str
    k: int
    strength: float
    n: int
    unsteered: float
    always: float
    gated: float


class DoseRow(Section):
    """Accuracy on n problems at one strength, with everything else as chosen."""

    strength: float
    accuracy: float
    n: int


class TuneReport(Section):
    """The grid, the point that was chosen from it, and the dose-response curve if one was run."""

    points: tuple[TuneRow, ...] = Field(min_length=1)
    chosen: TuneRow
    dose: tuple[DoseRow, ...] = ()
    dose_split: str = "validation"


class CriterionRow(Section):
    """The best point of a criterion with an intervention on the validation split, and its row on the test split where it was
    evaluated."""

    best: TuneRow
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
    """

    model: ModelIdentity
    task: str
    config_digest: str
    samples: dict[str, int]
    seconds: dict[str, float]
    versions: dict[str, str]
    ledger_openings: int
    command: str


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
    breakdowns: tuple[BreakdownReport, ...] = ()
    random_gains: dict[str, tuple[float, ...]]
    gate: GateReport | None
    neurons: NeuronsReport
    tune: TuneReport | None
    criteria: tuple[CriterionRow, ...]
    flips: FlipsReport
    run: RunReport
    experiments: tuple[Experiment, ...] = ()
    examples: tuple[Example, ...] = Field((), max_length=4)


def read_report(path: AnyPath) -> Report:
    """Read ``report.json``.

    Raises:
        StoreError: the file is missing, truncated, or has a key that is unknown, missing or of the wrong type; each is named.
    """
    return read_record(path, Report)
