"""Gates as values: the formulas as naive loops, and a digest that knows every part."""

import math
from dataclasses import replace

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.gate import ALWAYS, NEVER, AnyGate, AttentionGate, Gate
from trimtab.neurons import ModelIdentity
from trimtab.steering import Steering

MODEL = ModelIdentity("tiny", None, "qwen3", "f00", n_layers=2, d_model=4, d_ff=8, vocab_size=7)
LAYER, INDEX = np.array([1, 0, 1]), np.array([3, 7, 0])
LAST = Gate("logistic", "hard", LAYER, INDEX, np.array([0.5, -2.0, 1.0], np.float32), 0.25, 0.4)


def attention() -> AttentionGate:
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((3,), (5, 3), (5,), (5,))]
    return AttentionGate(LAYER, INDEX, *arrays, query_bias=0.3, bias=-0.2, threshold=0.4)


def naive_attention(gate: AttentionGate, tokens: np.ndarray) -> float:
    n = len(gate.query)
    scores = []
    for token in tokens.tolist():
        score = gate.query_bias
        for j in range(n):
            score += float(gate.query[j]) * token[j]
        scores.append(math.exp(math.tanh(score)))
    pooled = [sum(s * token[j] for s, token in zip(scores, tokens.tolist(), strict=True)) / sum(scores) for j in range(n)]
    logit = gate.bias
    for unit in range(len(gate.offset)):
        inside = float(gate.offset[unit]) + sum(float(gate.hidden[unit, j]) * pooled[j] for j in range(n))
        logit += float(gate.output[unit]) * max(inside, 0.0)
    return 1 / (1 + math.exp(-logit))


def test_attention_equals_the_naive_loops() -> None:
    gate, rng = attention(), np.random.default_rng(0)
    prompts = [3 * rng.normal(size=(length, 3)).astype(np.float32) for length in (1, 4, 9)]
    expected = [naive_attention(gate, tokens) for tokens in prompts]
    np.testing.assert_allclose(gate.probability(prompts), expected, rtol=1e-12)
    assert np.ptp(expected) > 0.05


def test_attention_does_not_ask_for_the_order_of_tokens() -> None:
    tokens = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    p, q = attention().probability([tokens, tokens[::-1]])
    assert p == pytest.approx(q, rel=1e-12)


def test_logistic() -> None:
    features = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]], np.float32)
    expected = [1 / (1 + math.exp(-2.75)), 1 / (1 + math.exp(1.75))]
    np.testing.assert_allclose(LAST.probability(features), expected, rtol=1e-12)


@pytest.mark.parametrize("gate", [LAST, attention()], ids=["logistic", "attention"])
def test_hard_and_proportional_values(gate: AnyGate) -> None:
    p = np.array([0.0, 0.399, 0.4, 0.7, 1.0])
    assert gate.value(p).tolist() == [0, 0, 1, 1, 1]
    np.testing.assert_allclose(replace(gate, mode="proportional").value(p), [0, 0, 0, 0.5, 1], atol=1e-12)


def test_what_they_read() -> None:
    assert [gate.reads for gate in (ALWAYS, NEVER, LAST, attention())] == [False, False, True, True]
    assert LAST.scope == "last-prompt"
    assert replace(LAST, pooling="mean").scope == attention().scope == "prompt"
    labels = [gate.label for gate in (ALWAYS, LAST, replace(LAST, pooling="mean"), attention())]
    assert labels == [
        "always",
        "logistic, last prompt token",
        "logistic, mean over the prompt",
        "attention over the prompt",
    ]


def _steering(gate: AnyGate) -> Steering:
    one = np.zeros(1, np.int64)
    return Steering(one, one, np.zeros(1, np.float32), np.ones(1, np.float32), 1.0, "generated", gate, MODEL)


@pytest.mark.parametrize(
    ("gate", "changes"),
    [
        (LAST, {"pooling": "mean", "mode": "proportional", "bias": 0.26, "threshold": 0.41, "layer": np.array([0, 0, 1])}),
        (LAST, {"index": np.array([3, 7, 1]), "weight": LAST.weight * 2}),
        (attention(), {"mode": "proportional", "bias": 0.0, "query_bias": 0.0, "threshold": 0.41}),
        (attention(), {"layer": np.array([0, 0, 1]), "index": np.array([3, 7, 1])}),
        (attention(), {name: getattr(attention(), name) * 2 for name in ("query", "hidden", "offset", "output")}),
    ],
)
def test_every_part_changes_the_digest(gate: AnyGate, changes: dict[str, object]) -> None:
    digests = {_steering(gate).digest, *(_steering(replace(gate, **{name: value})).digest for name, value in changes.items())}
    assert len(digests) == 1 + len(changes)
    assert _steering(replace(gate, facts={"auroc": 1.0})).digest == _steering(gate).digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": np.zeros(2, np.float32)}, r"3 features and 5 units needs arrays of .*'query': \(3,\)"),
        ({"hidden": np.zeros((3, 5), np.float32)}, "needs arrays of"),
        ({"output": np.full(5, np.nan, np.float32)}, "finite"),
        ({"query_bias": math.inf}, "finite"),
        ({"threshold": 1.0}, "between 0 and 1"),
    ],
)
def test_an_attention_gate_that_cannot_be(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(attention(), **change)


def test_the_neurons_it_reads_must_be_in_the_model() -> None:
    with pytest.raises(InputError, match="layer 2, index 0"):
        _steering(replace(attention(), layer=np.array([0, 1, 2]), index=np.zeros(3, np.int64)))


@pytest.mark.parametrize("whole", [LAST, attention()], ids=["logistic", "attention"])
def test_a_gate_without_a_threshold_steers_nothing(whole: AnyGate) -> None:
    gate = replace(whole, threshold=None)
    assert gate.threshold is None
    assert "no threshold chosen yet" in repr(gate)
    for act in (lambda: gate.value(np.array([0.4])), lambda: gate.cutoff, lambda: _steering(gate)):
        with pytest.raises(InputError, match=r"no threshold of p\(fail\) yet.*gate\.with_threshold\(.*study\.fit_gate\(\)"):
            act()
    chosen = gate.with_threshold(0.4)
    assert chosen.cutoff == 0.4
    assert chosen.value(np.array([0.3, 0.5])).tolist() == [0, 1]
    assert _steering(chosen).gate.threshold == 0.4


def test_a_gate_that_reads_nothing_needs_no_threshold() -> None:
    assert _steering(ALWAYS).gate is ALWAYS
    assert _steering(replace(ALWAYS, threshold=0.5)).digest == _steering(ALWAYS).digest


def test_gates_show_themselves() -> None:
    shown = repr(replace(LAST, facts={"held_out_auroc": 0.8612, "n_train": 1200, "n_train_failed": 500}))
    assert shown == (
        "gate: logistic, last prompt token, 3 neurons read, fires at p(fail) >= 0.400, hard\n"
        "AUROC 0.861 on held-out folds, fitted on 1,200 problems, 500 of them failed"
    )
    assert repr(NEVER) == "gate 'never': steers no prompt"
    table = LAST.to_pandas()
    assert table.columns.tolist() == ["layer", "index", "weight"]
    assert table["weight"].tolist() == [0.5, -2.0, 1.0]
    assert attention().to_pandas().columns.tolist() == ["layer", "index", "query"]
    assert "<table" in LAST._repr_html_()
    assert "<table" not in ALWAYS._repr_html_()
