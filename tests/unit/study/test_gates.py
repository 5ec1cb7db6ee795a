"""Studies with each kind of gate: recorded what it reads, fitted, saved, read again in the prefill, reported."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from study_samples import with_sections
from trimtab.errors import ConfigError
from trimtab.evaluation.rows import GATED
from trimtab.gate import ALWAYS, AttentionGate, Gate
from trimtab.gating import attention, columns
from trimtab.study import Settings, Study, find, parse_settings, run_stage
from trimtab.study.report_data import build_report
from trimtab.traces import Split


@pytest.fixture(scope="module")
def with_attention(tmp_path_factory: pytest.TempPathFactory, settings: Settings, coin: pytest.MonkeyPatch) -> Iterator[Study]:
    chosen = with_sections(settings, gate={"kind": "attention"}, tune={"k": (5,)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "EPOCHS", 4)
        study = Study(settings=chosen, path=Path(tmp_path_factory.mktemp("attention")) / "run")
        study.evaluate()
        yield study


def test_attention_from_the_recording_to_the_report(with_attention: Study) -> None:
    study = with_attention
    gate, tuning = study.fit_gate(), study.tuned()
    assert isinstance(gate, AttentionGate)
    assert len(gate.layer) == 16
    assert tuning.steering.gate.settings == gate.settings  # type: ignore[union-attr]
    for split, recording in study.prompt_recordings().items():
        order = [problem.id for problem in study.problems().split(split)]
        assert recording.means("prompt", order).shape == recording.means("last-prompt", order).shape
    report = build_report(study, study.evaluate(), tuning)
    assert report.gate is not None
    assert (report.gate.label, report.verdict.condition) == ("attention over the prompt", GATED)
    assert run_stage(study, "gate")["gate"] == "attention over the prompt"


def test_p_fail_of_any_split_is_what_the_prefill_reads(with_attention: Study) -> None:
    expected = find.p_fail(with_attention, with_attention.fit_gate(), Split.TEST)
    outcomes = with_attention.evaluate().outcomes[GATED]
    assert len({outcome.p_fail for outcome in outcomes}) > 20
    for outcome in outcomes:
        assert outcome.p_fail == pytest.approx(expected[outcome.problem_id], abs=1e-4)


def test_the_threshold_curve_passes_through_the_gated_condition(study: Study) -> None:
    report = build_report(study, study.evaluate(), study.tuned())
    assert report.gate is not None
    curve, rows = report.gate.thresholds, {row.condition: row for row in report.conditions}
    here = next(row for row in curve if row.threshold >= report.gate.threshold)
    assert (here.steered, here.accuracy) == (report.gate.firing_rate, rows[GATED].accuracy)
    assert (here.gain, here.low, here.high) == pytest.approx((rows[GATED].gain, rows[GATED].gain_low, rows[GATED].gain_high))
    assert (curve[0].accuracy, curve[-1].gain) == (rows["always"].accuracy, 0.0)


def test_mean_pooling_under_l1(small: Callable[..., Study]) -> None:
    study = small(gate={"kind": "logistic", "pooling": "mean", "penalty": "l1"}, task={"train": 30, "validation": 20})
    gate = study.fit_gate()
    assert isinstance(gate, Gate)
    assert (gate.pooling, gate.facts["penalty"]) == ("mean", "l1")
    stored = find.p_fail(study, gate, Split.VALIDATION)
    means = columns(find.prompt_features(study, Split.VALIDATION, "prompt"), gate.layer, gate.index)
    np.testing.assert_allclose(list(stored.values()), gate.probability(means))


def test_a_gate_that_was_not_recorded_for_is_read_in_a_forward(study: Study, settings: Settings) -> None:
    gate = study.fit_gate()
    assert isinstance(gate, Gate)
    recorded = find.p_fail(study, gate, Split.VALIDATION)
    elsewhere = Study(settings=with_sections(settings, gate={"kind": "always"}), path=study.path)
    assert recorded == pytest.approx(find.p_fail(elsewhere, gate, Split.VALIDATION), abs=1e-5)
    assert set(find.p_fail(elsewhere, ALWAYS, Split.TEST).values()) == {1.0}


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
        parse_settings(sections, "the test")
    assert parse_settings({"gate": {"kind": "always"}, "tune": {"scope": "all"}}, "the test").tune.scope == "all"
