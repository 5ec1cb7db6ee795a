"""The choice of the grid's best point."""

from trimtab.evaluation.rows import TunePoint
from trimtab.evaluation.settings import best_point


def _point(gated: float, k: int = 5, strength: float = 1.0, criterion: str = "a") -> TunePoint:
    return TunePoint(criterion, "add", k, strength, 10, 0.5, 0.5, gated)


def test_best_point_takes_the_highest_gated_accuracy() -> None:
    assert best_point([_point(0.5), _point(0.7, k=50), _point(0.6)]) == _point(0.7, k=50)


def test_ties_go_to_fewer_neurons_then_weaker_strength_then_the_first_name() -> None:
    points = [_point(0.7, 20, 1.0), _point(0.7, 5, 10.0), _point(0.7, 5, -3.0), _point(0.7, 5, 3.0, "b")]
    assert best_point(points) == points[2]
    assert best_point([_point(0.7, criterion="b"), _point(0.7, criterion="a")]).criterion == "a"
    assert best_point(points, "b") == points[3]
