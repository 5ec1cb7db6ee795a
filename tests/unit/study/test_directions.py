"""Directions through the verbs of a study: a steering without a neuron is evaluated, reported and viewed as any other."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from study_samples import with_sections
from trimtab.directions import Directions
from trimtab.errors import ConfigError
from trimtab.evaluation.runner import Condition
from trimtab.report import read_report
from trimtab.study import Settings, Study
from trimtab.study.view_data import build_view


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Study:
    """A new study on a copy of the finished run, whose ledger notes what these tests open."""
    return Study.from_toml(shutil.copytree(finished, tmp_path / "copy"))


def _directions(study: Study) -> Directions:
    model = study.model.identity
    vectors = np.random.default_rng(0).normal(0, 5, (2, model.d_model)).astype(np.float32)
    return Directions(np.array([0, 1]), vectors, "somebody's", model)


def test_a_steering_along_directions_gets_a_verdict_a_report_and_a_view(study: Study, tmp_path: Path) -> None:
    along = _directions(study).steering(2.0)
    evaluation = study.evaluate(along)
    names = set(evaluation.outcomes)
    assert {"unsteered", "always", "negative", "random-0", "random-norm-4", "first-token"} <= names
    base = [row.response for row in evaluation.outcomes["unsteered"]]
    for name in ("always", "negative", "random-0", "random-norm-4"):
        assert [row.response for row in evaluation.outcomes[name]] != base, name
    assert evaluation.steering.digest == along.digest
    found = read_report(study.report(tmp_path / "report.html").with_suffix(".json")).neurons
    assert (found.k, found.directions, found.criterion) == (0, (0, 1), "somebody's")
    page = (tmp_path / "report.html").read_text()
    assert "<dt>direction after layer</dt><dd>0, 1</dd>" in page
    assert "There is no dose to colour by: a direction is added to the residual stream" in (tmp_path / "view.html").read_text()
    view = build_view(study, evaluation, None)
    assert view.contributions
    assert not view.doses
    assert [(each.address, each.index) for each in view.neurons] == [
        ("direction after layer 0", None),
        ("direction after layer 1", None),
    ]
    for each, vector in zip(view.neurons, along.direction, strict=True):
        assert each.norm == pytest.approx(np.linalg.norm(vector))
        assert len(each.promoted) == len(each.demoted) == 8


def test_neurons_and_directions_at_once_are_judged_too(study: Study, tmp_path: Path) -> None:
    both = _directions(study).steering(2.0) + study.rank().top(3).steering(strength=10.0)
    evaluation = study.evaluate(both, controls=["random"])
    assert [each.index is None for each in build_view(study, evaluation, None).neurons] == [False, False, False, True, True]
    found = read_report(study.report(tmp_path / "report.html").with_suffix(".json")).neurons
    assert (found.k, found.directions) == (3, (0, 1))
    assert evaluation.to_pandas()["condition"].tolist() == ["unsteered", "always", "gated", "random", "random-norm"]


def test_directions_are_recorded_once_and_apart_from_the_neurons(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {entry for verb in ("record", "rank", "tune", "evaluate") for entry in (study.cache.root / verb).iterdir()}
    found = study.directions()
    assert len(found) == study.model.n_layers
    assert found.facts["n_correct"] + found.facts["n_incorrect"] == len(study.contrast())  # type: ignore[operator]
    assert "by mean-difference, after layers 0" in repr(found)
    assert found.to_pandas()["layer"].tolist() == found.layer.tolist()
    assert found.plot() is not None
    assert kept == {entry for verb in ("record", "rank", "tune", "evaluate") for entry in (study.cache.root / verb).iterdir()}
    monkeypatch.setattr("trimtab.recording.record.start_batch", lambda *_, **__: pytest.fail("a forward ran"))
    again = Study.from_toml(study.path)  # type: ignore[arg-type]
    assert np.array_equal(again.directions().vector, found.vector)
    assert again.directions().facts == found.facts


def test_layer_and_strength_are_the_best_of_the_validation_split(study: Study) -> None:
    tuning = study.tune_direction(layers=[0, 1], strengths=[3.0, 30.0])
    assert [(p.layer, p.strength) for p in tuning.points] == [(0, 3.0), (0, 30.0), (1, 3.0), (1, 30.0)]
    best = max(tuning.points, key=lambda p: (p.gated, -p.strength, -p.layer))
    assert tuning.best == best
    chosen = study.directions().at(best.layer)
    assert np.array_equal(tuning.steering.direction, chosen.vector)
    assert (tuning.steering.strength, tuning.steering.scope) == (best.strength, study.settings.tune.scope)
    assert tuning.steering.gate.settings == study.fit_gate().settings
    # a point is what answers under it come to
    problems = study.problems().split("validation")[: study.settings.tune.problems]
    always = study.answers(Condition("x", chosen.steering(best.strength)), problems, study.settings.sampling.greedy())
    assert best.always == sum(outcome.correct for outcome in always) / len(problems) > 0
    assert repr(tuning).startswith(f"best of 4 points: after layer {best.layer}, strength {best.strength:g}; ")
    assert len(tuning.to_pandas()) == 4


def test_a_layer_that_the_model_has_not_and_a_study_without_validation(study: Study) -> None:
    with pytest.raises(ConfigError, match=r"direction.layers names \[7\], and this model has layers 0 to"):
        study.tune_direction(layers=[0, 7])
    with pytest.raises(ConfigError, match="direction"):
        study.tune_direction(strength=[1.0])


def test_the_baseline_is_judged_beside_the_neurons_and_changes_nothing_of_them(study: Study) -> None:
    plain = study.evaluate(controls=["negative"])
    beside = study.evaluate(controls=["negative"], baselines=["direction"])
    assert set(beside.outcomes) - set(plain.outcomes) == {"direction"}
    assert all(beside.outcomes[name] == rows for name, rows in plain.outcomes.items())
    assert [row.fired for row in beside.outcomes["direction"]] == [row.fired for row in beside.outcomes["gated"]]
    assert beside.rows["direction"].p_holm is not None


def test_vllm_cannot_run_the_baseline(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="cannot run the baseline 'direction'"):
        with_sections(settings, evaluation={"baselines": ["direction"]}, engine="vllm")
