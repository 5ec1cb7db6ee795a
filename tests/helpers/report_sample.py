"""A made-up report for the tests of the report package."""

from dataclasses import dataclass, replace

import numpy as np

from trimtab.evaluation.control_rows import (
    AnsweredGain,
    Controls,
    CoveragePoint,
    Extraction,
    ExtractionRow,
    FirstToken,
    GateAlone,
    Noise,
    Recurrence,
)
from trimtab.evaluation.rows import Average, Breakdown, ConditionSummary, GroupRow, Mean, ThresholdPoint, TunePoint
from trimtab.neurons import ModelIdentity
from trimtab.report import (
    CriterionRow,
    DoseRow,
    Example,
    FlipsReport,
    GateReport,
    NeuronRow,
    NeuronsReport,
    Report,
    RunReport,
    TuneReport,
    UnscoredBounds,
    VerdictReport,
)
from trimtab.stats.values import CalibrationBin, Estimate, GateAssessment, PairedComparison

N = 1200


@dataclass(frozen=True)
class Names:
    """Strings that come from outside, to be made hostile by a test."""

    model: str = "testbed:reasoner"
    domain: str = "register programs"
    criterion: str = "mean-difference"
    condition: str = "adaras"
    response: str = "<think> a ~ 4 b ~ 1 c = 5 </think> 5"


def condition(
    name: str,
    accuracy: float,
    gain: float,
    p: float,
    fixed: int,
    broken: int,
    fires: float | None = None,
    p_holm: float | None = None,
) -> ConditionSummary:
    """A row with intervals of plausible width."""
    half = 1.96 * (accuracy * (1 - accuracy) / N) ** 0.5
    return ConditionSummary(
        condition=name,
        n=N,
        k=1,
        accuracy=accuracy,
        low=accuracy - half,
        high=min(1.0, accuracy + half),
        gain=gain,
        gain_low=gain - 0.02,
        gain_high=gain + 0.02,
        p=p,
        test="McNemar",
        p_holm=p_holm,
        minimum_detectable_gain=None if name == "unsteered" else 0.0479,
        fixed=fixed,
        broken=broken,
        pairs=N,
        pass_at_k=None,
        unscored=0,
        truncated=7,
        disagreements=0,
        tokens_per_answer=31.44,
        firing_rate=fires,
        steps_right=accuracy - 0.01,
    )


def make_report(names: Names = Names(), gate: bool = True, unscored: bool = False) -> Report:
    """A whole report; every section is filled."""
    points = [
        TunePoint(
            criterion=criterion, intervention="add", k=k, strength=s, n=250, unsteered=0.632, always=best, gated=best - 0.01
        )
        for criterion, height in ((names.criterion, 0.34), ("adaras", 0.07), ("paired-t", 0.31))
        for k in (5, 20, 50)
        for s in (1.0, 3.0, 10.0, 30.0)
        for best in [round(0.632 + height * np.exp(-((np.log(s / 12) / 1.2) ** 2)) * (1 - abs(k - 20) / 60), 3)]
    ]
    chosen = max(points, key=lambda point: point.gated)
    conditions = [
        condition("unsteered", 0.6325, 0.0, 1.0, 0, 0),
        condition("always", 0.996, 0.3635, 1e-120, 438, 2, p_holm=3e-120),
        condition("gated", 0.9842, 0.3517, 3e-118, 424, 2, fires=0.412, p_holm=6e-118),
        condition("negative", 0.2942, -0.3383, 2e-90, 21, 427),
        condition(names.condition, 0.709, 0.0765, 0.0345678, 130, 38, p_holm=0.0691),
        condition("random", 0.582, -0.0505, 0.25, 61, 122),
        condition("random-norm", 0.611, -0.0215, 0.41, 66, 92),
    ]
    return Report(
        verdict=VerdictReport(
            word="helps",
            sentence="Helps: accuracy went from 63.2 % to 98.4 %, a gain of +35.2 points (95 % interval +32.4 to +37.9; "
            "exact McNemar p < 0.0001; 424 fixed, 2 broken, n = 1200). "
            "With n = 1200 this test finds a true gain of 4.8 points in 80 % of cases.",
            n=N,
            minimum_detectable_gain=0.0479,
            bounds=UnscoredBounds(
                base_low=0.6325, base_high=0.634, condition_low=0.9842, condition_high=0.985, gain_low=0.35, gain_high=0.3525
            )
            if unscored
            else None,
        ),
        claims=(
            "This is a positive control: the failures of this small model were taught by its training text. "
            "It is not evidence that steering helps your model.",
        ),
        conditions=tuple(conditions),
        controls=_controls(names.condition, gate),
        breakdowns=_breakdowns(names.domain),
        random_gains={"random": (-0.124, 0.035, -0.02, -0.09, -0.0535), "random-norm": (-0.05, 0.012, -0.031, -0.0185, -0.02)},
        gate=_gate() if gate else None,
        neurons=_neurons(names.criterion),
        tune=TuneReport(
            points=tuple(points),
            chosen=chosen,
            dose=tuple(
                DoseRow(strength=s, accuracy=a, n=250)
                for s, a in ((-10, 0.29), (-3, 0.41), (-1, 0.55), (0, 0.632), (1, 0.71), (3, 0.88), (10, 0.97), (30, 0.81))
            ),
        ),
        criteria=tuple(
            CriterionRow(
                best=max((p for p in points if p.criterion == name), key=lambda p: p.gated),
                test={names.criterion: conditions[2], "adaras": conditions[4]}.get(name),
            )
            for name in dict.fromkeys(point.criterion for point in points)
        ),
        flips=_flips(names.domain),
        run=_run(names.model),
        examples=(
            Example(
                problem_id="7c1e",
                question="<u> Evaluate 5 a -9 b +6 c -6 </u>",
                gold="5",
                unsteered=names.response,
                steered="<think> a = 6 b = 2 c = 5 </think> 5",
                kind="fixed",
                p_fail=0.871,
            ),
        ),
    )


def with_responses(report: Report) -> Report:
    """The same report with sampled responses and a majority vote, and what goes wrong with them."""
    alone = condition("sampled", 0.6, -0.0325, 0.01, 0, 0, p_holm=0.03)
    sampled = replace(alone, k=8, test="permutation", pairs=0, pass_at_k=0.87, disagreements=1200, unscored=96)
    vote = replace(condition("majority", 0.7, 0.0675, 0.2, 100, 19, p_holm=0.2), unscored=13, disagreements=34)
    return report.model_copy(update={"conditions": (*report.conditions[:3], sampled, vote, *report.conditions[3:])})


def group(name: str, word: str, n: int, accuracy: float, gain: float, p: float, smallest: float | None = 0.1) -> GroupRow:
    """A row of a breakdown."""
    comparison = PairedComparison(
        n=n,
        base_accuracy=accuracy - gain,
        base_low=accuracy - gain - 0.03,
        base_high=accuracy - gain + 0.03,
        accuracy=accuracy,
        low=accuracy - 0.03,
        high=accuracy + 0.03,
        gain=gain,
        gain_low=gain - 0.04,
        gain_high=gain + 0.04,
        p=p,
        fixed=round(n * gain) + 2,
        broken=2,
        test="McNemar",
        base_k=1,
        k=1,
        pairs=n,
        standard_error=0.01,
    )
    return GroupRow(
        group=name,
        word=word,
        comparison=comparison,
        p_holm=min(1.0, 2 * p),
        minimum_detectable_gain=smallest,
        base_unscored=0,
        unscored=1,
    )


def _breakdowns(domain: str) -> tuple[Breakdown, ...]:
    def mean(value: float, half: float | None) -> Mean:
        return Mean(value=value, low=None if half is None else value - half, high=None if half is None else value + half)

    averages = tuple(
        Average(name=name, groups=2, base=mean(0.632, half), condition=mean(0.984, half), gain=mean(0.352, half))
        for name, half in (("micro", 0.02), ("macro", None))
    )
    domains = (group(domain, "helps", 700, 0.99, 0.4, 1e-30), group("cup swaps", "no evidence", 500, 0.9, 0.002, 0.4))
    levels = (group("2", "no verdict", 30, 0.8, 0.1, 0.04), group("10", "hurts", 5, 0.2, -0.4, 0.011, smallest=None))
    return (
        Breakdown(by="domain", rows=domains, averages=averages),
        Breakdown(by="difficulty", rows=levels, averages=()),
    )


def compared(n: int, base: float, gain: float, p: float) -> PairedComparison:
    """Two conditions on n problems, every flip a fix."""
    return group("", "helps", n, base + gain, gain, p).comparison


def _controls(name: str, gate: bool) -> Controls:
    """Every control, each with a figure that stands nowhere else."""
    both = AnsweredGain(1177, 1177, 0.645, 0.989, 0.344, 0.316, 0.371, 1e-100, 0.337)
    alone = GateAlone(
        n=N,
        n_failed=441,
        at_threshold=CoveragePoint(0.588, 706, 0.917, 0.894, 0.935),
        aurc=Estimate(0.123, 0.109, 0.137),
        random=0.3675,
        best=0.0777,
        correlation=Estimate(0.51, 0.46, 0.56),
        among_failed=None,
        curve=tuple(CoveragePoint(i / 10, 120 * i, 1 - i / 27, 0.97 - i / 27, 1.0 - i / 28) for i in range(1, 11)),
        sentence="Where it does not fire, on 58.8 % of the problems, the unsteered model is right on 91.7 %.",
    )
    return Controls(
        extraction=Extraction(
            (
                ExtractionRow("unsteered", N, 1180, 3, 10, 7, 0, None, None),
                ExtractionRow("gated", N, 1191, 0, 2, 7, 0, compared(N, 0.986, 0.007, 0.0078), both),
                ExtractionRow(name, N, 1150, 0, 43, 7, 0, compared(N, 0.986, -0.03, 1e-6), None),
                ExtractionRow("random", N, 1166, 1, 26, 7, 0, None, None),
            ),
            False,
            "17 of 1,200 unsteered responses and 9 of 1,200 under the condition held no answer.",
        ),
        noise=Noise(compared(400, 0.63, 0.0025, 1.0), 7, 400, 0.0123, "No gain of 1.2 points or less is called one."),
        first_token=FirstToken(
            2,
            compared(400, 0.63, 0.012, 0.06),
            compared(400, 0.63, 0.36, 1e-40),
            compared(400, 0.642, 0.348, 1e-39),
            "none",
            "Steering is more than the choice of a beginning.",
        ),
        gate=alone if gate else None,
        recurrence=Recurrence(
            60,
            30,
            0.5,
            4,
            Estimate(0.9, 0.85, 0.94),
            Estimate(0.7, 0.6, 0.8),
            Estimate(0.6, 0.5, 0.7),
            0.5,
            9,
            "Classes come back.",
        ),
    )


def _gate() -> GateReport:
    grid = np.linspace(0, 1, 60)
    return GateReport(
        split="test",
        assessment=GateAssessment(
            n=N,
            n_failed=441,
            auroc=Estimate(0.916, 0.9, 0.931),
            text_auroc=Estimate(0.88, 0.861, 0.898),
            difference=Estimate(0.036, 0.021, 0.051),
            brier=0.101,
            text_brier=0.124,
            calibration=tuple(CalibrationBin(x, min(1, round(x * 1.05, 3)), 120) for x in np.linspace(0.03, 0.95, 10).tolist()),
            roc=tuple((x, x**0.1) for x in grid.tolist()),
        ),
        threshold=0.43,
        firing_rate=0.412,
        text_roc=tuple((x, x**0.16) for x in grid.tolist()),
        label="logistic, last prompt token",
        thresholds=tuple(
            ThresholdPoint(threshold=t, steered=1 - t, accuracy=0.63 + gain, gain=gain, low=gain - 0.04, high=gain + 0.04)
            for t, gain in ((0.2, 0.3), (0.4, 0.29), (0.6, 0.24), (0.8, 0.12), (1.0, 0.0))
        ),
    )


def without_text(gate: GateReport) -> GateReport:
    """The same gate where no text-only baseline was fitted."""
    alone = replace(gate.assessment, text_auroc=None, difference=None, text_brier=None)
    return gate.model_copy(update={"assessment": alone, "text_roc": ()})


def _neurons(criterion: str) -> NeuronsReport:
    return NeuronsReport(
        criterion=criterion,
        intervention="add",
        k=20,
        share=20 / 1536,
        strength=10.0,
        scope="generated",
        layer_counts=(0, 1, 4, 15),
        top=tuple(
            NeuronRow(
                layer=3,
                index=17 * i,
                correct_mean=0.4 - i / 50,
                incorrect_mean=-0.2,
                mean_difference=0.6 - i / 50,
                score=0.6 - i / 50,
            )
            for i in range(20)
        ),
        contrast={"traces": 3000, "problems": 240, "correct": 481, "incorrect": 481, "truncated_left_out": 12},
    )


def _flips(domain: str) -> FlipsReport:
    def row(fixed: int, broken: int, wrong: int, right: int) -> dict[str, int]:
        return {"fixed": fixed, "broken": broken, "still wrong": wrong, "still right": right}

    return FlipsReport(
        by_domain={domain: row(80, 0, 4, 120), "cup swaps": row(150, 1, 3, 260), "dates": row(194, 1, 10, 377)},
        by_difficulty={"10": row(100, 1, 9, 100), "2": row(124, 0, 0, 420), "4": row(200, 1, 8, 237)},
        by_source={"style": row(420, 0, 2, 0), "misconception": {"fixed": 4, "still wrong": 9}, "none": row(0, 2, 0, 757)},
    )


def _run(model: str) -> RunReport:
    return RunReport(
        model=ModelIdentity(
            name=model,
            revision=None,
            architecture="Qwen3ForCausalLM",
            fingerprint="9f1c" * 8,
            n_layers=4,
            d_model=128,
            d_ff=384,
            vocab_size=81,
        ),
        task="testbed",
        config_digest="ab" * 32,
        samples={"sampled": 3000, "greedy-find": 500, "greedy-tune": 400, "contrast": 962},
        seconds={"sample": 61.2, "tune": 95.0, "evaluate": 7500.0, "rank": 0.4},
        versions={"trimtab": "0.1.0", "torch": "2.13.0", "transformers": "5.19.0"},
        ledger_openings=1,
        command="trimtab run --config run.toml --out runs/demo",
    )
