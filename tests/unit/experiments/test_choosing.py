"""The strength with the highest accuracy on validation; the weakest on a tie."""

import pytest

from trimtab.evaluation.outcomes import Outcome
from trimtab.experiments import Workbench
from trimtab.experiments.choosing import best_strength, strengths
from trimtab.steering import Steering


def test_the_published_strength_is_always_a_candidate(bench: Workbench) -> None:
    assert strengths(bench) == (0.3, 1.0, 2.0)


@pytest.mark.parametrize(("right", "chosen"), [({0.3: 1, 1.0: 3, 2.0: 2}, 1.0), ({0.3: 2, 1.0: 2, 2.0: 2}, 0.3)])
def test_the_best_wins_and_a_tie_goes_to_the_weakest(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, right: dict[float, int], chosen: float
) -> None:
    from outcome_samples import outcomes

    def answers(self: Workbench, split: str, steering: Steering, *rest: object) -> list[Outcome]:
        return outcomes("x", "1" * right[steering.strength] + "0" * (4 - right[steering.strength]))

    monkeypatch.setattr(Workbench, "answers", answers)
    assert best_strength(bench, bench.steering).strength == chosen
