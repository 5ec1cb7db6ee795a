"""Runs with each kind of gate: recorded what it reads, fitted, saved, read again in the prefill, reported."""

from pathlib import Path

import numpy as np
import pytest
from trimtab.pipeline import Line, RunConfig, run
from trimtab.pipeline.config import parse_config
from trimtab.pipeline.reporting import build_report
from trimtab.pipeline.summaries import stage_summary

from trimtab.errors import ConfigError
from trimtab.evaluation.names import GATED
from trimtab.gate import ALWAYS, AttentionGate, Gate
from trimtab.gating import attention, columns
from trimtab.recording import Recording
from trimtab.store import RunDirectory
from trimtab.traces import Split


def _with_gate(config: RunConfig, **gate: object) -> RunConfig:
    sections = config.model_dump(mode="json")
    return parse_config({**sections, "gate": {**sections["gate"], **gate}}, "the test")


@pytest.fixture(scope="module")
def with_attention(tmp_path_factory: pytest.TempPathFactory, config: RunConfig, coin: pytest.MonkeyPatch) -> Line:
    settings = _with_gate(config, kind="attention")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "EPOCHS", 4)
        folder = run(settings, Path(tmp_path_factory.mktemp("attention")) / "run")
    return Line(settings, RunDirectory.open(folder))


def test_attention_from_the_recording_to_the_report(with_attention: Line) -> None:
    line = with_attention
    gate = line.gate()
    assert isinstance(gate, AttentionGate)
    assert len(gate.layer) == 16
    assert line.steering().gate.settings == gate.settings
    for split in (Split.TRAIN, Split.VALIDATION):
        order = [problem.id for problem in line.problems(split)]
        recording = Recording(line.directory.activations(f"prompts-{split}"))
        assert recording.means("prompt", order).shape == recording.means("last-prompt", order).shape
    report = build_report(line)
    assert report.gate is not None
    assert (report.gate.label, report.verdict.condition) == ("attention over the prompt", GATED)
    assert stage_summary(line.directory.path, "gate")["gate"] == "attention over the prompt"


def test_p_fail_of_any_split_is_what_the_prefill_reads(with_attention: Line) -> None:
    expected = with_attention.p_fail(with_attention.gate(), Split.TEST)
    outcomes = with_attention.outcomes()[GATED]
    assert len({outcome.p_fail for outcome in outcomes}) > 20
    for outcome in outcomes:
        assert outcome.p_fail == pytest.approx(expected[outcome.problem_id], abs=1e-4)


def test_the_threshold_curve_passes_through_the_gated_condition(finished: Path, config: RunConfig) -> None:
    report = build_report(Line(config, RunDirectory.open(finished)))
    assert report.gate is not None
    curve, rows = report.gate.thresholds, {row.condition: row for row in report.conditions}
    here = next(row for row in curve if row.threshold >= report.gate.threshold)
    assert (here.steered, here.accuracy) == (report.gate.firing_rate, rows[GATED].accuracy)
    assert (here.gain, here.low, here.high) == pytest.approx((rows[GATED].gain, rows[GATED].gain_low, rows[GATED].gain_high))
    assert (curve[0].accuracy, curve[-1].gain) == (rows["always"].accuracy, 0.0)


def test_mean_pooling_under_l1(tmp_path: Path, config: RunConfig, coin: pytest.MonkeyPatch) -> None:
    settings = _with_gate(config, pooling="mean", penalty="l1")
    folder = run(settings, tmp_path / "run", until="gate")
    with Line(settings, RunDirectory.open(folder)) as line:
        gate = line.gate()
        assert isinstance(gate, Gate)
        assert (gate.pooling, gate.facts["penalty"]) == ("mean", "l1")
        stored = line.p_fail(gate, Split.VALIDATION)
        means = columns(line.prompt_features(Split.VALIDATION, "prompt"), gate.layer, gate.index)
        np.testing.assert_allclose(list(stored.values()), gate.probability(means))


def test_a_gate_that_was_not_recorded_for_is_read_in_a_forward(finished: Path, config: RunConfig) -> None:
    with Line(config, RunDirectory.open(finished)) as line:
        gate = line.gate()
        assert isinstance(gate, Gate)
        recorded = line.p_fail(gate, Split.VALIDATION)
        elsewhere = Line(_with_gate(config, kind="always"), line.directory)
        forwarded = elsewhere.p_fail(gate, Split.VALIDATION)
        assert recorded == pytest.approx(forwarded, abs=1e-5)
        assert set(elsewhere.p_fail(ALWAYS, Split.TEST).values()) == {1.0}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"gate": {"kind": "attention", "penalty": "l1"}}, "gate.penalty are of a logistic gate"),
        ({"gate": {"kind": "attention", "pooling": "mean"}}, "gate.pooling"),
        ({"gate": {"pooling": "max"}}, "gate.pooling"),
        ({"tune": {"scope": "all"}}, "tune.scope 'all' needs gate.kind 'always'"),
    ],
)
def test_settings_that_do_not_go_together(sections: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(sections, "the test")
    assert parse_config({"gate": {"kind": "always"}, "tune": {"scope": "all"}}, "the test").tune.scope == "all"
