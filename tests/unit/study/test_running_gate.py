"""The conditions behind a running gate: their control opens where the gate did, and nothing else changes for them."""

import numpy as np
import pytest

from trimtab.errors import ConfigError, InputError
from trimtab.evaluation.rows import BOTH_GATES, RUNNING, RUNNING_RANDOM
from trimtab.gate import ALWAYS, RandomOpening, RunningGate
from trimtab.gating.running import RunningProbe, readable
from trimtab.study import Study
from trimtab.study.view_data import build_view

GATES = (RUNNING, BOTH_GATES, RUNNING_RANDOM)


def test_a_study_fits_assesses_and_keeps_it(study: Study) -> None:
    gate = study.fit_running_gate(features=8, after=2)
    assert isinstance(gate, RunningGate)
    assert gate.after == 2
    assert len(gate.layer) == 8
    assert gate.threshold is not None
    assessed = gate.facts["validation_assessment"]
    assert isinstance(assessed, dict)
    assert [point["share"] for point in assessed["points"]] == [0.1, 0.25, 0.5, 0.75, 1.0]
    assert all(0 <= point["text_auroc"]["value"] <= 1 for point in assessed["points"])
    again = study.fit_running_gate()
    np.testing.assert_array_equal(again.weight, gate.weight)
    assert study.fit_running_gate(memory=3).memory == 3


def test_the_figure_shows_three_lines_and_the_warnings(study: Study) -> None:
    figure = study.fit_running_gate(features=8).plot()
    names = {trace.name for trace in figure.data}
    assert {"running gate", "length so far", "words so far", "failed", "correct"} <= names


def test_the_conditions_and_their_control(study: Study) -> None:
    before = study.evaluate(controls=())
    evaluation = study.evaluate(controls=(), gates=GATES)
    assert [name for name in evaluation.rows if name in GATES] == list(GATES)
    for name, outcomes in before.outcomes.items():
        assert evaluation.outcomes[name] == outcomes
    assert evaluation.verdict.word == before.verdict.word
    steered = {row.condition: row for row in evaluation.steered}
    assert set(steered) == set(GATES)
    assert all(row.responses == 40 for row in steered.values())
    assert steered[BOTH_GATES].opened <= steered[RUNNING].opened
    assert evaluation.rows[RUNNING_RANDOM].p_holm is None  # a control is no claim
    assert evaluation.rows[RUNNING].p_holm is not None
    assert before.steered == ()


def test_the_tokens_of_the_judged_pair_have_the_running_p_fail(study: Study) -> None:
    evaluation = study.evaluate(controls=(), gates=(RUNNING,))
    assert evaluation.tokens is not None
    gate = study.fit_running_gate()
    assert evaluation.tokens.probe is not None
    assert evaluation.tokens.probe.settings == gate.settings
    rows, _ = evaluation.tokens.record.read()
    probe = RunningProbe(gate.layer, gate.index, gate.weight.astype(np.float64), gate.bias, gate.memory)
    bare = readable([evaluation.tokens.responses[name].trace for name in rows if name.startswith("unsteered/")])
    for trace, score in zip(bare, probe.read(study.model, bare), strict=True):
        np.testing.assert_allclose(rows[trace.id].p_fail[:-1], 1 / (1 + np.exp(-score)), rtol=1e-3)  # type: ignore[index]
    view = build_view(study, evaluation, study.tuned())
    assert view.running_threshold == gate.cutoff
    assert view.contributions
    assert view.doses
    without = study.evaluate(controls=(), gates=())
    assert without.tokens is not None
    assert without.tokens.probe is None
    assert all(row.p_fail is None for row in without.tokens.record.read()[0].values())


def test_without_a_question_there_is_nothing_to_join(study: Study) -> None:
    steering = study.tune().steering.with_gate(ALWAYS)
    with pytest.raises(InputError, match="not a linear one that reads the question"):
        study.evaluate(steering, controls=(), gates=(BOTH_GATES,))


def test_a_control_needs_what_it_draws_from(study: Study) -> None:
    with pytest.raises(ConfigError, match="draws from the tokens of 'running'"):
        study.evaluate(gates=(RUNNING_RANDOM,))


def test_a_draw_is_that_of_the_prompt_and_follows_the_distribution() -> None:
    gate = RandomOpening(np.array([0, 0, 3, 9]))
    drawn = [gate.draw((i, i + 1)) for i in range(2000)]
    assert drawn == [gate.draw([i, i + 1]) for i in range(2000)]
    shares = [drawn.count(token) / 2000 for token in (0, 3, 9)]
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=0.04)
    assert drawn != [RandomOpening(gate.opened, seed=1).draw((i, i + 1)) for i in range(2000)]
    with pytest.raises(InputError, match="0 or more"):
        RandomOpening(np.array([-1]))
