"""Gates as values: the formulas as naive loops, and a digest that knows every part."""

import math
from dataclasses import replace

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.gate import ALWAYS, NEVER, AnyGate, AttentionGate, Gate, RunningGate
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
        with pytest.raises(
            InputError, match=r"no threshold of p\(fail\) yet.*gate\.with_threshold\(.*study\.fit_gate\(\)"
        ) as refused:
            act()
        assert refused.value.code == "input/gate-without-threshold"
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


WEIGHT = np.array([0.5, -2.0, 1.0], np.float32)


def running(**options) -> RunningGate:
    return RunningGate(LAYER, INDEX, WEIGHT, **{"bias": 0.25, "threshold": 0.5, **options})


@pytest.mark.parametrize("memory", [0, 1, 3])
def test_a_running_gate_reads_the_mean_so_far(memory: int) -> None:
    features = np.random.default_rng(4).normal(size=(7, 3)).astype(np.float32)
    mean, expected = 0.0, []
    for t in range(1, 8):
        score = sum(float(WEIGHT[j]) * float(features[t - 1, j]) for j in range(3))
        rate = max(1 / t, 0.0 if memory == 0 else 1 / memory)
        mean = mean + rate * (score - mean)
        expected.append(1 / (1 + math.exp(-(mean + 0.25))))
    np.testing.assert_allclose(running(memory=memory).probability(features), expected, rtol=1e-12)
    if memory == 0:
        means = np.stack([features[: t + 1].astype(np.float64).mean(axis=0) for t in range(7)])
        np.testing.assert_allclose(expected, 1 / (1 + np.exp(-(means @ WEIGHT + 0.25))), rtol=1e-12)


P = [0.4, 0.7, 0.45, 0.2, 0.6, 0.9]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 0, 1, 1, 1, 1]),
        ({"release": 0.3}, [0, 0, 1, 1, 0, 1]),
        ({"after": 4}, [0, 0, 0, 0, 0, 1]),
        ({"action": "close"}, [1, 0, 0, 0, 0, 0]),
        ({"action": "close", "after": 3}, [1, 1, 1, 0, 0, 0]),
        ({"action": "close", "release": 0.65}, [1, 0, 1, 0, 0, 0]),
        ({"action": "scale"}, [0, 0, 0.4, 0, 0, 0.2]),
        ({"action": "scale", "release": 0.4}, [0, 0, 0.5, 0.05 / 0.6, 0, 0.2 / 0.6]),
    ],
)
def test_what_a_running_gate_does_by_hand(options, expected) -> None:
    np.testing.assert_allclose(running(**options).value(np.array(P)), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action": "shut"}, "action is one of open, close, scale"),
        ({"release": 0.7}, "at most its threshold"),
        ({"action": "close", "release": 0.3}, "at least its threshold"),
        ({"threshold": None, "release": 0.3}, "second of two thresholds"),
        ({"after": 0}, "after >= 1"),
        ({"question": ALWAYS}, "reads no prompt"),
        ({"threshold": 1.0}, "between 0 and 1"),
    ],
)
def test_a_running_gate_that_makes_no_sense(options, message) -> None:
    with pytest.raises(InputError, match=message):
        running(**options)


def test_a_running_gate_says_what_it_does() -> None:
    shown = replace(
        running(memory=20, release=0.3, after=4), facts={"held_out_auroc": 0.8125, "n_train": 90, "n_train_failed": 40}
    )
    assert repr(shown) == (
        "gate: running, exponential mean over 20 tokens, 3 neurons read, steers from p(fail) 0.500, back at 0.300, "
        "from token 4 on\nAUROC 0.812 on held-out folds, fitted on 90 responses, 40 of them failed"
    )
    assert running().joined(LAST, "or").label == "running, mean so far, or logistic, last prompt token"
    with pytest.raises(InputError, match="no threshold"):
        _ = running(threshold=None).levels


def test_every_part_of_a_running_gate_is_in_the_digest() -> None:
    def digest(gate: AnyGate) -> str:
        return Steering(LAYER, INDEX, WEIGHT, WEIGHT, 1.0, "generated", gate, MODEL).digest

    gates = [
        running(),
        running(bias=0.3),
        running(threshold=0.6),
        running(release=0.4),
        running(memory=2),
        running(after=2),
        running(action="scale"),
        replace(running(), weight=2 * WEIGHT),
        running().joined(LAST, "and"),
        running().joined(LAST, "or"),
        running().joined(LAST.with_threshold(0.9), "or"),
    ]
    assert len({digest(gate) for gate in gates}) == len(gates)
