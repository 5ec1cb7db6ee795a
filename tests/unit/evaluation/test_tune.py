"""The grid on the validation split, and the choice of its best point."""

from dataclasses import replace
from pathlib import Path

import pytest

from steering_samples import CoinGrader, logistic, neuron_set
from tiny_testbed import settings, some_problems
from trimtab.errors import ConfigError
from trimtab.evaluation.conditions import Condition
from trimtab.evaluation.runner import evaluate_condition
from trimtab.evaluation.tune import TunePoint, TuneSettings, best_point, tune
from trimtab.gate import ALWAYS
from trimtab.model import LanguageModel
from trimtab.steering import Steering
from trimtab.tasks import Prompt
from trimtab.traces import Split

PROBLEMS = some_problems(16, Split.VALIDATION)
GRID = TuneSettings(k=(2, 5), strengths=(0.5, 3.0), problems=12)
SAMPLING = settings(n=4, temperature=0.8, batch_tokens=4000)


def _point(gated: float, k: int = 5, strength: float = 1.0, criterion: str = "a") -> TunePoint:
    return TunePoint(criterion, "add", k, strength, 10, 0.5, 0.5, gated)


def test_every_point_equals_conditions_run_alone(model: LanguageModel, tmp_path: Path) -> None:
    rankings = {name: neuron_set(model.identity, criterion=name) for name in ("mean-difference", "paired-t")}
    p_fail = {problem.id: i / 16 for i, problem in enumerate(PROBLEMS)}
    points = tune(model, rankings, logistic(0.4), p_fail, PROBLEMS, GRID, SAMPLING, CoinGrader(), tmp_path / "tune")
    assert [(p.criterion, p.k, p.strength) for p in points] == [
        (criterion, k, strength) for criterion in rankings for k in (2, 5) for strength in (0.5, 3.0)
    ]
    chosen, greedy = PROBLEMS[:12], SAMPLING.greedy()
    base = evaluate_condition(model, Condition("bare", None), chosen, greedy, CoinGrader(), tmp_path / "bare")
    for i, point in enumerate(points):
        steering = Steering.of(rankings[point.criterion].top(point.k), point.strength)
        steered = evaluate_condition(model, Condition("x", steering), chosen, greedy, CoinGrader(), tmp_path / str(i))
        gated = [(s if p_fail[s.problem_id] >= 0.4 else b).correct for b, s in zip(base, steered, strict=True)]
        assert point.n == 12
        assert point.unsteered == sum(o.correct for o in base) / 12
        assert point.always == sum(o.correct for o in steered) / 12
        assert point.gated == sum(gated) / 12
    assert len({point.always for point in points}) > 1
    assert any(point.always != point.gated for point in points)


def test_a_proportional_gate_is_run_and_not_composed(model: LanguageModel, tmp_path: Path) -> None:
    ranking, gate = neuron_set(model.identity), replace(logistic(0.2), mode="proportional")
    p_fail = {problem.id: 1.0 for problem in PROBLEMS}
    small = TuneSettings(k=(5,), strengths=(3.0,), problems=12)
    point = tune(model, {"m": ranking}, gate, p_fail, PROBLEMS, small, SAMPLING, CoinGrader(), tmp_path / "tune")[0]
    condition = Condition("x", Steering.of(ranking.top(5), 3.0, gate=gate), "auto")
    alone = evaluate_condition(model, condition, PROBLEMS[:12], SAMPLING.greedy(), CoinGrader(), tmp_path / "alone")
    assert point.gated == sum(o.correct for o in alone) / 12
    assert {0.0, 1.0} & {o.p_fail for o in alone} == set()


def test_without_a_gate_gated_is_always(model: LanguageModel, tmp_path: Path) -> None:
    points = tune(model, {"m": neuron_set(model.identity)}, ALWAYS, {}, PROBLEMS, GRID, SAMPLING, CoinGrader(), tmp_path)
    assert all(point.always == point.gated for point in points)


def test_the_prompt_reaches_the_model(model: LanguageModel, tmp_path: Path) -> None:
    small = TuneSettings(k=(2,), strengths=(1.0,), problems=12)
    rankings = {"m": neuron_set(model.identity)}
    tune(
        model, rankings, ALWAYS, {}, PROBLEMS, small, SAMPLING, CoinGrader(), tmp_path / "t", prompt=Prompt(style="adaras-plain")
    )
    # the plan names the prompt, so a folder that was run with it is resumed by no other
    with pytest.raises(ConfigError, match="adaras-plain"):
        tune(model, rankings, ALWAYS, {}, PROBLEMS, small, SAMPLING, CoinGrader(), tmp_path / "t")


@pytest.mark.parametrize("split", [Split.TRAIN, Split.TEST])
def test_other_splits_are_refused(model: LanguageModel, tmp_path: Path, split: Split) -> None:
    problems = [*PROBLEMS[:3], replace(PROBLEMS[3], split=split)]
    with pytest.raises(ConfigError, match=f"tune reads the validation split only; it was given problems of {split}"):
        tune(model, {"m": neuron_set(model.identity)}, ALWAYS, {}, problems, GRID, SAMPLING, CoinGrader(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_best_point_takes_the_highest_gated_accuracy() -> None:
    assert best_point([_point(0.5), _point(0.7, k=50), _point(0.6)]) == _point(0.7, k=50)


def test_ties_go_to_fewer_neurons_then_weaker_strength_then_the_first_name() -> None:
    points = [_point(0.7, 20, 1.0), _point(0.7, 5, 10.0), _point(0.7, 5, -3.0), _point(0.7, 5, 3.0, "b")]
    assert best_point(points) == points[2]
    assert best_point([_point(0.7, criterion="b"), _point(0.7, criterion="a")]).criterion == "a"
    assert best_point(points, "b") == points[3]
