"""Training values as a verb: the rate is chosen on validation, results are kept, and it is a baseline of an evaluation."""

from collections.abc import Callable

import numpy as np
import pytest

from trimtab.errors import ConfigError
from trimtab.evaluation.finetune_training import TrainedSettings
from trimtab.study import Study
from trimtab.study import train as module

Small = Callable[..., Study]
QUICK: dict[str, object] = {"learning_rates": (0.01, 0.5), "epochs": 1, "max_steps": 2}


def test_the_rate_with_the_best_validation_accuracy_is_kept(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    study = small()
    chosen = study.tune().steering
    for accuracies, rate in (([0.2, 0.4], 0.5), ([0.4, 0.2], 0.01), ([0.4, 0.4], 0.01)):
        monkeypatch.setattr(module, "_accuracies", lambda *_, found=accuracies: found)
        trained = study.train(**QUICK)
        said = trained.facts["trained"]
        assert said["learning_rate"] == rate  # type: ignore[index]
        assert [one["accuracy"] for one in said["tried"]] == accuracies  # type: ignore[index]
        assert said["validation"] == 8  # type: ignore[index]
        assert trained.layer.tolist() == chosen.layer.tolist()
        assert (trained.scope, trained.gate.kind, trained.strength) == (chosen.scope, chosen.gate.kind, 1.0)


def test_a_second_call_reads_and_test_problems_stay_closed(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    first = small().train(**QUICK)

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("a second training")

    monkeypatch.setattr(module, "train_values", forbidden)
    study = small()
    again = study.train(**QUICK)
    assert again.digest == first.digest
    assert again.facts == first.facts
    assert study.openings() == 0
    with pytest.raises(AssertionError, match="a second training"):
        study.train(gains=False)


def test_it_is_a_baseline_of_an_evaluation_behind_the_same_gate(small: Small) -> None:
    plain = small()
    without = plain.evaluate()
    study = small()
    found = study.evaluate(baselines=("trained",), trained=QUICK)
    assert set(found.outcomes) - set(without.outcomes) == {"trained"}
    for name, rows in without.outcomes.items():
        assert found.outcomes[name] == rows
    trained = study.train()
    assert study.settings.evaluation.trained == TrainedSettings(**QUICK)  # type: ignore[arg-type]
    assert {row.problem_id for row in found.outcomes["trained"]} == {row.problem_id for row in found.outcomes["unsteered"]}
    itself = small().evaluate(trained)
    assert [row.response for row in itself.outcomes["always"]] == [row.response for row in found.outcomes["trained"]]


def test_its_settings_move_no_key_of_an_evaluation_without_it(small: Small) -> None:
    assert small().evaluate().key == small(evaluation={"controls": (), "trained": QUICK}).evaluate().key


def test_a_setting_that_is_none_is_named(small: Small) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.trained .*\n  rate: unknown; accepted: batch_tokens, "):
        small().train(rate=0.1)


def test_random_neurons_can_be_trained_too(small: Small) -> None:
    from trimtab.ranking import random_like

    study = small()
    drawn = random_like(study.tune().steering, 1)
    trained = study.train(drawn, learning_rates=(0.1,), max_steps=2)
    assert trained.index.tolist() == drawn.index.tolist()
    assert np.abs(trained.shift).max() > 0
