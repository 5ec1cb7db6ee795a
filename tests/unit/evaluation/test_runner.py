"""Conditions on the same problems: what an outcome holds, and resume."""

from pathlib import Path

import numpy as np
import pytest

from steering_samples import CoinGrader, logistic, neuron_set
from tiny_testbed import settings, some_problems, tree_bytes
from trimtab.errors import ConfigError
from trimtab.evaluation.runner import Condition, evaluate_condition
from trimtab.model import LanguageModel
from trimtab.sampling import Request, generate_batch, sample_traces
from trimtab.sampling import generator as module
from trimtab.steering import Steering
from trimtab.tasks import Prompt, render_prompt
from trimtab.traces import Split

PROBLEMS = some_problems(14, Split.TEST)
GREEDY = settings()


def test_the_unsteered_condition_is_the_bare_model(model: LanguageModel, tmp_path: Path) -> None:
    outcomes = evaluate_condition(model, Condition("unsteered", None), PROBLEMS, GREEDY, CoinGrader(), tmp_path / "condition")
    traces = sample_traces(model, PROBLEMS, GREEDY, tmp_path / "bare")
    assert [o.problem_id for o in outcomes] == [p.id for p in PROBLEMS]
    for outcome, trace, problem in zip(outcomes, traces, PROBLEMS, strict=True):
        assert (outcome.condition, outcome.domain, outcome.difficulty) == ("unsteered", problem.domain, problem.difficulty)
        assert (outcome.response, outcome.tokens, outcome.truncated) == (trace.text, len(trace.response_ids), trace.truncated)
        assert (outcome.p_fail, outcome.fired, outcome.steps_right) == (None, None, None)
        if trace.truncated:
            assert (outcome.correct, outcome.reason) == (False, "truncated at the token limit")
        else:
            assert outcome.correct == (CoinGrader().judge([(problem, trace.text)])[0].score == "correct")
    assert not all(o.truncated for o in outcomes)


def test_gated_outcomes_say_what_the_gate_saw(model: LanguageModel, tmp_path: Path) -> None:
    wide = Steering.of(neuron_set(model.identity), 1.0, gate=logistic())
    seen = evaluate_condition(model, Condition("gated", wide, "auto"), PROBLEMS, GREEDY, CoinGrader(), tmp_path / "wide")
    threshold = float(np.median([o.p_fail for o in seen if o.p_fail is not None]))
    steering = wide.with_gate(logistic(threshold))
    gated = evaluate_condition(model, Condition("gated", steering, "auto"), PROBLEMS, GREEDY, CoinGrader(), tmp_path / "gated")
    always = evaluate_condition(model, Condition("always", steering), PROBLEMS, GREEDY, CoinGrader(), tmp_path / "always")
    bare = evaluate_condition(model, Condition("unsteered", None), PROBLEMS, GREEDY, CoinGrader(), tmp_path / "bare")
    assert {o.fired for o in gated} == {True, False}
    for b, a, g in zip(bare, always, gated, strict=True):
        assert g.fired == (g.p_fail is not None and g.p_fail >= threshold)
        assert g.response == (a if g.fired else b).response
        assert (a.fired, a.p_fail) == (None, None)
    assert any(a.response != b.response for a, b in zip(always, bare, strict=True))


@pytest.mark.parametrize(("kind", "fired"), [("always", True), ("never", False)])
def test_gates_that_read_nothing(model: LanguageModel, tmp_path: Path, kind: str, fired: bool) -> None:
    from trimtab.gate import Gate

    steering = Steering.of(neuron_set(model.identity), 1.0, gate=Gate(kind))
    outcomes = evaluate_condition(model, Condition("gated", steering, "auto"), PROBLEMS[:3], GREEDY, CoinGrader(), tmp_path)
    assert {(o.fired, o.p_fail) for o in outcomes} == {(fired, None)}


def test_a_checker_fills_the_steps(model: LanguageModel, tmp_path: Path) -> None:
    outcomes = evaluate_condition(
        model,
        Condition("a", None),
        PROBLEMS[:4],
        GREEDY,
        CoinGrader(),
        tmp_path,
        checker=lambda problem, text: problem.id == "test-1",
    )
    assert [o.steps_right for o in outcomes] == [False, True, False, False]


def test_the_prompt_reaches_the_model(model: LanguageModel, tmp_path: Path) -> None:
    plain = evaluate_condition(
        model, Condition("a", None), PROBLEMS[:2], GREEDY, CoinGrader(), tmp_path, prompt=Prompt(style="adaras-plain")
    )
    prompt = render_prompt(model.tokenizer, PROBLEMS[0].question, Prompt(style="adaras-plain"))
    expected = generate_batch(model, [Request("x", prompt)], GREEDY)[0]
    assert plain[0].response == model.tokenizer.decode(expected.response_ids, skip_special_tokens=True)


def test_resume_keeps_parts_and_ends_with_the_same_bytes(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    condition = Condition("gated", Steering.of(neuron_set(model.identity), 1.0, gate=logistic()), "auto")
    expected = evaluate_condition(model, condition, PROBLEMS, GREEDY, CoinGrader(), tmp_path / "undisturbed")
    calls = []

    def interrupted(*args: object, **options: object) -> object:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return generate_batch(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "generate_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_condition(model, condition, PROBLEMS, GREEDY, CoinGrader(), tmp_path / "resumed")
    monkeypatch.setattr(module, "generate_batch", generate_batch)
    assert evaluate_condition(model, condition, PROBLEMS, GREEDY, CoinGrader(), tmp_path / "resumed") == expected
    assert tree_bytes(tmp_path / "resumed") == tree_bytes(tmp_path / "undisturbed")


def test_parts_of_another_condition_are_refused(model: LanguageModel, tmp_path: Path) -> None:
    steering = Steering.of(neuron_set(model.identity), 1.0)
    evaluate_condition(model, Condition("a", steering), PROBLEMS[:3], GREEDY, CoinGrader(), tmp_path)
    for other in (
        Condition("a", steering.with_strength(1.5)),
        Condition("b", steering),
        Condition("a", steering, "auto"),
        Condition("a", None),
    ):
        with pytest.raises(ConfigError, match="another plan"):
            evaluate_condition(model, other, PROBLEMS[:3], GREEDY, CoinGrader(), tmp_path)
