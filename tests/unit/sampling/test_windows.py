"""A sliding window that is wider than a batch is none: caches, drafts, kept prompts and common beginnings work as without it."""

import sys

import numpy as np
import pytest
from transformers import LlamaConfig, MistralConfig

from steering_oracle import logistic_gate, steering_for
from tiny_models import VOCABULARY, tiny, word_tokenizer
from tiny_testbed import forwards, settings
from trimtab.model import LanguageModel, find_ffn, identify
from trimtab.sampling import Request, generate_batch, way_of
from trimtab.sampling import prefills as reading
from trimtab.sampling.decoding import PreallocatedLayer, new_cache, sees_everything
from trimtab.sampling.prefills import Prefills, shared_tokens

NEW, SHARED, LONGEST = 8, 20, 27
FITS = LONGEST + 2 * NEW
"""Columns of a batch that is written from drafts."""
GREEDY = settings(max_new_tokens=NEW)
REQUESTS = [
    Request(str(i), (*np.random.default_rng(0).integers(2, VOCABULARY, SHARED).tolist(), i + 2, *range(9, 9 + i)))
    for i in range(7)
]


def _model(window: int, family: str) -> LanguageModel:
    hf_model = tiny(family, sliding_window=window)
    layout = find_ffn(hf_model)
    tokenizer = word_tokenizer(pad_token="w0", eos_token="w1")
    return LanguageModel(hf_model, tokenizer, layout, identify(hf_model, "tiny", None, layout=layout))


@pytest.mark.parametrize("family", ["gemma3_text", "gemma2", "mistral"])
@pytest.mark.parametrize("window", [FITS, FITS - 1, LONGEST + NEW, LONGEST + NEW - 1, 24, 4])
def test_tokens_are_those_of_generate(family: str, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(window, family)
    monkeypatch.setattr(reading, "SAVED", 1)
    assert max(len(request.prompt_ids) for request in REQUESTS) == LONGEST
    steering, kept = steering_for(model.hf_model, gate=logistic_gate(threshold=0.5), strength=4.0), Prefills(10_000)
    bare = generate_batch(model, REQUESTS, GREEDY, prefills=kept)
    drafts = {one.id: one.response_ids for one in bare}
    with forwards(model) as shapes:
        drafted = generate_batch(model, REQUESTS, GREEDY, steering, drafts=drafts)
        always = generate_batch(model, REQUESTS, GREEDY, steering, "on", prefills=kept, drafts=drafts)
    alone = [generate_batch(model, [request], GREEDY)[0] for request in REQUESTS]
    assert [one.response_ids for one in bare] == [one.response_ids for one in alone]
    for gate, found in (("auto", drafted), ("on", always)):
        alone = [generate_batch(model, [request], GREEDY, steering, gate)[0] for request in REQUESTS]  # type: ignore[arg-type]
        assert [one.response_ids for one in found] == [one.response_ids for one in alone]
    written_from_drafts = any(1 < length <= 4 for _, length in shapes)
    assert written_from_drafts is (window >= FITS)
    assert ((1, SHARED) in shapes) is (window >= LONGEST + NEW)
    assert (len(kept) > 0) is (window >= LONGEST + NEW)


def test_a_kept_prompt_is_read_again_where_more_columns_leave_the_window() -> None:
    model, kept = _model(LONGEST + NEW, "gemma3_text"), Prefills(10_000)
    generate_batch(model, REQUESTS, GREEDY, prefills=kept)
    prompts = [request.prompt_ids for request in REQUESTS]
    assert kept.get(prompts, model.hf_model.config, NEW) is not None
    assert kept.get(prompts, model.hf_model.config, NEW + 1) is None
    longer = settings(max_new_tokens=NEW + 1)
    alone = [generate_batch(model, [request], longer)[0] for request in REQUESTS]
    assert generate_batch(model, REQUESTS, longer, prefills=kept) == alone


def test_a_beginning_is_shared_within_the_window_alone() -> None:
    model = _model(60, "gemma3_text")
    many = [Request(str(i), (*range(2, 32), i % 30 + 2, i // 30 + 2)) for i in range(60)]
    assert shared_tokens(model, many, 28) == 30
    assert shared_tokens(model, many, 29) == 0


def test_the_cache_is_ours_up_to_the_window() -> None:
    config = MistralConfig(num_hidden_layers=2, sliding_window=8)
    for capacity, ours in ((8, True), (9, False)):
        assert sees_everything(config, capacity) is ours
        assert all(isinstance(layer, PreallocatedLayer) is ours for layer in new_cache(config, capacity).layers)
    assert sees_everything(LlamaConfig(num_hidden_layers=2), sys.maxsize)


def test_a_model_with_windows_proves_both_of_its_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short batches and long ones run on other caches, so each is tried before it is used."""
    from trimtab.sampling import ways

    capacities: list[int] = []
    monkeypatch.setattr(ways, "new_cache", lambda config, capacity: (capacities.append(capacity), new_cache(config, capacity))[1])
    assert way_of(_model(64, "gemma3_text")).drops
    assert min(capacities) < 64 < max(capacities)
