"""The generation loop against single runs, transformers' own and a naive one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tiny_models import word_tokenizer
from tiny_testbed import D_FF, settings, some_problems
from trimtab.errors import InputError, ModelError
from trimtab.gate import Gate
from trimtab.model import LanguageModel, attach
from trimtab.sampling import Request, SamplingSettings, generate_batch
from trimtab.sampling.batch import end_tokens
from trimtab.sampling.decoding import row_seed
from trimtab.steering import Steering
from trimtab.tasks import render_prompt

SETTINGS = settings(max_new_tokens=20)


@pytest.fixture(scope="module")
def requests(model: LanguageModel) -> list[Request]:
    """Prompts of different lengths."""
    return [Request(p.id, render_prompt(model.tokenizer, p.question), row_seed(0, p.id, 0)) for p in some_problems(12, seed=3)]


def _steering(model: LanguageModel, gate: Gate | None = None, strength: float = 40.0) -> Steering:
    layer, index = np.array([0, 1, 1]), np.array([3, 5, D_FF - 1])
    shift = np.array([0.2, -0.1, 0.3], np.float32)
    return Steering(layer, index, np.zeros(3, np.float32), shift, strength, "generated", gate or Gate("always"), model.identity)


def _alone(model: LanguageModel, requests: list[Request], settings: SamplingSettings, *args: object) -> list:
    return [generate_batch(model, [request], settings, *args)[0] for request in requests]  # type: ignore[arg-type]


def test_a_batch_equals_single_runs(model: LanguageModel, requests: list[Request]) -> None:
    batch = generate_batch(model, requests, SETTINGS)
    assert [g.id for g in batch] == [r.id for r in requests]
    assert batch == _alone(model, requests, SETTINGS)
    lengths = {len(g.response_ids) for g in batch}
    assert len(lengths) > 3, "rows must end at different steps, or dropping them is not tested"
    assert {g.finish for g in batch} == {"stop", "length"}


def test_greedy_equals_transformers(model: LanguageModel, requests: list[Request]) -> None:
    ends = set(end_tokens(model))
    for request, ours in zip(requests, generate_batch(model, requests, SETTINGS), strict=True):
        ids = torch.tensor([request.prompt_ids])
        theirs = model.hf_model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=SETTINGS.max_new_tokens, do_sample=False
        )
        assert ours.response_ids == tuple(theirs[0, ids.shape[1] :].tolist())
        assert (ours.finish == "stop") == (ours.response_ids[-1] in ends)
        assert not ends & set(ours.response_ids[:-1])


def test_sampling_does_not_depend_on_the_batch(model: LanguageModel, requests: list[Request]) -> None:
    sampled = settings(temperature=1.0, top_p=0.95, max_new_tokens=20)
    batch = generate_batch(model, requests, sampled)
    assert batch == _alone(model, requests, sampled)
    assert batch[::-1] == generate_batch(model, requests[::-1], sampled)
    other = [replace(request, seed=request.seed + 1) for request in requests]
    assert [g.response_ids for g in batch] != [g.response_ids for g in generate_batch(model, other, sampled)]


def test_sampling_equals_a_naive_loop(model: LanguageModel, requests: list[Request]) -> None:
    """Without a cache, one row at a time, one uniform a step."""
    from trimtab.sampling.decoding import draw_tokens, uniforms

    sampled = settings(temperature=0.8, max_new_tokens=8)
    for request in requests[:3]:
        ids, drawn = list(request.prompt_ids), []
        for step in range(8):
            with torch.no_grad():
                logits = model.hf_model(input_ids=torch.tensor([ids])).logits[:, -1]
            token = int(draw_tokens(logits, uniforms(torch.tensor([request.seed]), step), 0.8, 1.0))
            ids.append(token)
            drawn.append(token)
            if token in end_tokens(model):
                break
        assert generate_batch(model, [request], sampled)[0].response_ids == tuple(drawn)


def test_a_gate_decides_for_each_row(model: LanguageModel, requests: list[Request]) -> None:
    feature = Gate("logistic", "hard", np.array([0]), np.array([7]), np.array([5.0], np.float32), 0.0, 0.5)
    p_fail = [g.p_fail for g in generate_batch(model, requests, SETTINGS, _steering(model, feature))]
    assert all(p is not None for p in p_fail)
    gate = replace(feature, threshold=float(np.median(np.array(p_fail, np.float64))))
    bare = generate_batch(model, requests, SETTINGS)
    steered = generate_batch(model, requests, SETTINGS, _steering(model), "on")
    gated = generate_batch(model, requests, SETTINGS, _steering(model, gate))
    fires = [float(g.p_fail or 0.0) >= gate.threshold for g in gated]
    assert 0 < sum(fires) < len(fires)
    assert sum(b.response_ids != s.response_ids for b, s in zip(bare, steered, strict=True)) > 6
    for b, s, g, fire in zip(bare, steered, gated, fires, strict=True):
        assert g.response_ids == (s if fire else b).response_ids
        assert (b.p_fail, s.p_fail) == (None, None)


def test_forced_gates(model: LanguageModel, requests: list[Request]) -> None:
    gate = Gate("logistic", "hard", np.array([0]), np.array([7]), np.array([5.0], np.float32), 0.0, 0.5)
    steering = _steering(model, gate)
    bare = generate_batch(model, requests, SETTINGS)
    assert generate_batch(model, requests, SETTINGS, steering, "off") == bare
    assert generate_batch(model, requests, SETTINGS, steering.with_strength(0.0), "on") == bare


def test_steered_generation_equals_transformers_under_attach(model: LanguageModel, requests: list[Request]) -> None:
    steering = _steering(model)
    ours = generate_batch(model, requests, SETTINGS, steering)
    for request, row in zip(requests[:4], ours, strict=False):
        ids = torch.tensor([request.prompt_ids])
        with attach(model.hf_model, steering):
            theirs = model.hf_model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=SETTINGS.max_new_tokens, do_sample=False
            )
        assert row.response_ids == tuple(theirs[0, ids.shape[1] :].tolist())


def test_a_response_ends_with_the_first_token_that_contains_a_stop(model: LanguageModel, requests: list[Request]) -> None:
    whole = generate_batch(model, requests, SETTINGS)
    stop = model.tokenizer.decode([next(g.response_ids[2] for g in whole if len(g.response_ids) > 4)]).strip()
    stopped = generate_batch(model, requests, SETTINGS.model_copy(update={"stop": (stop,)}))
    cut = 0
    for before, after in zip(whole, stopped, strict=True):
        texts = [model.tokenizer.decode([token]) for token in before.response_ids]
        end = next((i for i, text in enumerate(texts) if stop in text), None)
        assert after.response_ids == (before.response_ids if end is None else before.response_ids[: end + 1])
        assert after.finish == (before.finish if end is None else "stop")
        cut += end is not None and end + 1 < len(texts)
    assert cut
    with pytest.raises(InputError, match="no single token contains"):
        generate_batch(model, requests, SETTINGS.model_copy(update={"stop": ("a text that is no token",)}))


def test_end_tokens(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    configured = model.hf_model.generation_config.eos_token_id
    assert set(end_tokens(model)) == {*configured, model.tokenizer.eos_token_id}
    monkeypatch.setattr(model.hf_model.generation_config, "eos_token_id", None)
    assert end_tokens(model) == (model.tokenizer.eos_token_id,)
    nameless = replace(model, tokenizer=word_tokenizer())
    with pytest.raises(ModelError, match=r"no end-of-sequence token; set eos_token_id in its generation_config\.json"):
        end_tokens(nameless)


def test_one_new_token(model: LanguageModel, requests: list[Request]) -> None:
    one = generate_batch(model, requests, settings(max_new_tokens=1))
    assert [g.response_ids for g in one] == [g.response_ids[:1] for g in generate_batch(model, requests, SETTINGS)]


@pytest.mark.parametrize("where", ["norm", "embedding"])
def test_nan_logits_are_refused(model: LanguageModel, requests: list[Request], where: str) -> None:
    weight = model.hf_model.model.norm.weight if where == "norm" else model.hf_model.model.embed_tokens.weight
    row = weight.data if where == "norm" else weight.data[requests[0].prompt_ids[2]]
    kept = row.clone()
    row.fill_(float("nan"))
    try:
        with pytest.raises(ModelError, match=r"NaN logits for .* rows; try dtype float32"):
            generate_batch(model, requests, SETTINGS)
    finally:
        row.copy_(kept)
    assert len(generate_batch(model, requests[:1], SETTINGS)) == 1
