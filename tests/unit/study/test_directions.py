"""Directions through the verbs of a study: a steering without a neuron is evaluated, reported and viewed as any other."""

from pathlib import Path

import numpy as np

from trimtab.directions import Directions
from trimtab.report import read_report
from trimtab.study import Study


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
    assert "adds to the residual stream itself" in (tmp_path / "view.html").read_text()


def test_neurons_and_directions_at_once_are_judged_too(study: Study, tmp_path: Path) -> None:
    both = _directions(study).steering(2.0) + study.rank().top(3).steering(strength=10.0)
    evaluation = study.evaluate(both, controls=["random"])
    found = read_report(study.report(tmp_path / "report.html").with_suffix(".json")).neurons
    assert (found.k, found.directions) == (3, (0, 1))
    assert evaluation.to_pandas()["condition"].tolist() == ["unsteered", "always", "gated", "random", "random-norm"]
