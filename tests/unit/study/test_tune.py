"""The grid on the validation split: every point equals its condition run alone."""

from collections.abc import Callable

import pytest

from trimtab.errors import ConfigError
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.runner import Condition
from trimtab.evaluation.settings import best_point
from trimtab.interventions import INTERVENTIONS
from trimtab.sampling.ways import drafts_hold
from trimtab.steering import Steering
from trimtab.store import openings
from trimtab.study import Study, find
from trimtab.tasks import Prompt
from trimtab.traces import Problem, Split

Small = Callable[..., Study]
GATED = {"kind": "logistic", "features": 16}
MANY = {"train": 30, "validation": 16}


def _share(outcomes: list[Outcome]) -> float:
    return sum(o.correct for o in outcomes) / len(outcomes)


def _chosen(study: Study) -> list[Problem]:
    return study.problems().split(Split.VALIDATION)[:12]


def test_every_point_equals_conditions_run_alone(small: Small) -> None:
    study = small(gate=GATED, task=MANY)
    tuning = study.tune(interventions=("add", "scale"), k=(2, 5), strengths=(10.0, 100.0), problems=12)
    points = [(p.criterion, p.intervention, p.k, p.strength) for p in tuning.points]
    criteria = study.settings.ranking.criteria
    assert points == [(c, i, k, s) for c in criteria for i in ("add", "scale") for k in (2, 5) for s in (10.0, 100.0)]
    gate = study.fit_gate()
    p_fail = find.p_fail(study, gate, Split.VALIDATION)
    base = study.answers(Condition("bare"), _chosen(study))
    for point in tuning.points:
        neurons = study.rank(point.criterion).top(point.k)
        steering = Steering.of(neurons, point.strength, intervention=INTERVENTIONS[point.intervention])
        steered = study.answers(Condition("alone", steering), _chosen(study))
        gated = [s if p_fail[s.problem_id] >= gate.cutoff else b for b, s in zip(base, steered, strict=True)]
        assert (point.n, point.unsteered, point.always, point.gated) == (12, _share(base), _share(steered), _share(gated))
    assert len({point.always for point in tuning.points}) > 1
    assert tuning.best == best_point(tuning.points)
    assert (len(tuning.steering), tuning.steering.strength) == (tuning.best.k, tuning.best.strength)
    assert tuning.steering.gate is gate


def test_a_proportional_gate_is_run_and_not_composed(small: Small) -> None:
    study = small(gate={**GATED, "mode": "proportional"}, task=MANY)
    tuning = study.tune(k=(5,), strengths=(100.0,), problems=12)
    for point in tuning.points:
        steering = Steering.of(study.rank(point.criterion).top(5), 100.0, gate=study.fit_gate())
        alone = study.answers(Condition("alone", steering, "auto"), _chosen(study))
        assert point.gated == _share(alone)
        assert all(o.p_fail is not None for o in alone)


def test_without_a_gate_gated_is_always(small: Small) -> None:
    assert all(point.always == point.gated for point in small().tune().points)


def test_the_prompt_reaches_the_model_and_the_key(small: Small, batches: list[int]) -> None:
    study = small()
    steering = study.tune().steering
    plain = Prompt(style="adaras-plain")
    chat = study.answers(Condition("x", steering), _chosen(study))
    batches.clear()
    other = study.answers(Condition("x", steering), _chosen(study), prompt=plain)
    assert batches
    assert [o.response for o in other] != [o.response for o in chat]


def test_tuning_reads_the_validation_split_only(small: Small) -> None:
    study = small()
    study.tune()
    assert openings(study.cache.ledger) == 0
    with pytest.raises(ConfigError, match="ask for some with validation=N"):
        small(task={"validation": 0}).tune()


def test_a_grid_of_more_neurons_than_were_kept_keeps_more(small: Small) -> None:
    study = small(ranking={"k": 2})
    assert {point.k for point in study.tune(k=(3, 6)).points} == {3, 6}
    assert study.settings.ranking.k == 6


def test_the_whole_grid_reads_each_prompt_once(small: Small) -> None:
    study = small(task=MANY, sampling={"n": 4, "temperature": 1.0, "max_new_tokens": 12, "batch_tokens": 5000})
    for criterion in study.settings.ranking.criteria:
        study.rank(criterion)
    assert drafts_hold(study.model), "which is proved by prompts of its own"
    read: list[int] = []
    hook = study.model.hf_model.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(0 if kwargs["past_key_values"].get_seq_length() else len(kwargs["input_ids"])),
        with_kwargs=True,
    )
    with study, hook:
        tuning = study.tune(k=(2, 5), strengths=(10.0, 100.0), problems=12)
    assert len(tuning.points) > 4
    assert sum(read) == 12
