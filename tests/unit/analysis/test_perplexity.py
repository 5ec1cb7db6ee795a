"""Perplexity against a loop over the tokens of each trace alone."""

import numpy as np
import pytest
import torch

from analysis_samples import model, steering, trace, traces
from tiny_models import VOCABULARY
from trimtab.analysis import compare_perplexity, perplexity, perplexity_effect, text_traces
from trimtab.errors import InputError, MismatchError
from trimtab.model import LanguageModel, attach
from trimtab.sampling import SamplingSettings
from trimtab.sampling.batch import Request
from trimtab.sampling.generate import generate_batch
from trimtab.steering import Steering
from trimtab.traces import Trace

TRACES = traces()


@torch.no_grad()
def losses(model: LanguageModel, one: Trace, edit: Steering | None = None, scored: str = "response") -> list[float]:
    """``-log p`` of each scored token of one trace."""
    ids = [*one.prompt_ids, *one.response_ids]
    inputs = torch.tensor([ids])
    if edit is None:
        logits = model.hf_model(input_ids=inputs, use_cache=False).logits[0]
    else:
        with attach(model.hf_model, edit, gate="on", prompt_lengths=[len(one.prompt_ids)]):
            logits = model.hf_model(input_ids=inputs, use_cache=False).logits[0]
    log_p = torch.log_softmax(logits.double(), -1)
    first = len(one.prompt_ids) if scored == "response" else 1
    return [-float(log_p[t - 1, ids[t]]) for t in range(first, len(ids))]


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "gpt_neox", "qwen3_moe"])
@pytest.mark.parametrize("scored", ["response", "all"])
@pytest.mark.parametrize("scope", [None, "generated", "last-and-generated"])
def test_it_is_the_loop(family: str, scored: str, scope: str | None) -> None:
    lm = model(family)
    edit = None if scope is None else steering(lm, scope=scope)
    found = perplexity(lm, TRACES, edit, scored=scored, batch_tokens=30)
    for i, one in enumerate(TRACES):
        expected = losses(lm, one, edit, scored)
        assert (found.ids[i], found.problems[i], found.tokens[i]) == (one.id, one.problem_id, len(expected))
        assert found.nll[i] == pytest.approx(sum(expected), rel=2e-4)
    everything = [loss for one in TRACES for loss in losses(lm, one, edit, scored)]
    assert found.perplexity == pytest.approx(np.exp(np.mean(everything)), rel=2e-4)
    means = [np.mean(losses(lm, one, edit, scored)) for one in TRACES]
    assert found.per_trace == pytest.approx(np.mean(means), rel=2e-4)


def test_the_summary_and_the_change_are_of_those_numbers() -> None:
    lm = model("qwen3")
    bare, edited = perplexity(lm, TRACES), perplexity(lm, TRACES, steering(lm), gate="on")
    effect = perplexity_effect(lm, TRACES, steering(lm), seed=3)
    assert (effect.unsteered, effect.steered) == (bare.summary(3), edited.summary(3))
    assert effect.unsteered.perplexity.value == pytest.approx(bare.perplexity)
    assert effect.change.ratio.value == pytest.approx(edited.perplexity / bare.perplexity)
    assert effect.change.per_trace.value == pytest.approx(edited.per_trace - bare.per_trace)
    assert effect.change.ratio.low == pytest.approx(np.exp(effect.change.per_token.low))
    assert effect.change.per_token.low <= effect.change.per_token.value <= effect.change.per_token.high


def test_strength_zero_changes_nothing() -> None:
    lm = model("qwen3")
    change = compare_perplexity(perplexity(lm, TRACES), perplexity(lm, TRACES, steering(lm).with_strength(0.0)))
    assert (change.ratio.value, change.per_token.low, change.per_trace.high) == (1.0, 0.0, 0.0)


def test_a_greedy_steered_generation_is_the_likeliest_under_its_steering() -> None:
    lm = model("qwen3")
    edit = steering(lm)
    requests = [Request(f"g{i}/0", trace("g", 3 + i, 1, i).prompt_ids) for i in range(4)]
    generated = generate_batch(lm, requests, SamplingSettings(n=1, temperature=0.0, max_new_tokens=5), edit)
    beaten = 0
    for request, generation in zip(requests, generated, strict=True):
        for n in range(1, len(generation.response_ids) + 1):
            ids = generation.response_ids[:n]
            # only the last token differs, so everything before it costs the same
            baselines = [(*ids[:-1], (ids[-1] + step) % VOCABULARY) for step in range(VOCABULARY)]
            chains = [Trace(str(i), "g", i, request.prompt_ids, chain, "", "stop") for i, chain in enumerate(baselines)]
            nll = perplexity(lm, chains, edit).nll
            assert nll.argmin() == 0
            beaten += int(perplexity(lm, chains).nll.argmin() != 0)
    assert beaten  # without the steering some of its tokens are not the likeliest


def test_plain_texts() -> None:
    lm = model("qwen3")
    (one, other) = text_traces(lm, ["w3 w4 w5", "w9 w8"])
    assert (one.prompt_ids, one.response_ids, other.id) == ((3,), (4, 5), "text/1")
    assert perplexity(lm, [one]).tokens.tolist() == [2]
    with pytest.raises(InputError, match="text 0 has 1 tokens"):
        text_traces(lm, ["w3"])


def test_refusals() -> None:
    lm = model("qwen3")
    with pytest.raises(InputError, match="trace a of 3 prompt and 0 response tokens has none that is predicted"):
        perplexity(lm, [trace("a", 3, 0)])
    with pytest.raises(InputError, match="trace a of 0 prompt and 4 response tokens"):
        perplexity(lm, [trace("a", 0, 4)])
    assert perplexity(lm, [trace("a", 0, 4)], scored="all").tokens.tolist() == [3]
    with pytest.raises(MismatchError, match="same tokens of the same traces"):
        compare_perplexity(perplexity(lm, TRACES), perplexity(lm, TRACES[1:]))
