"""What all prompts of a batch begin with, such as solved examples, is read once, and no result differs by more than rounding."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from steering_oracle import logistic_gate, steering_for
from tiny_models import FAMILIES, VOCABULARY, tiny, word_tokenizer
from tiny_testbed import D_FF, forwards, settings, some_problems
from trimtab.errors import ModelError
from trimtab.gate import ALWAYS, AnyGate, AttentionGate, Gate, RandomOpening, RunningGate
from trimtab.model import Attachment, LanguageModel, attach, find_ffn, identify
from trimtab.sampling import Generation, Request, generate_batch
from trimtab.sampling import prefills as reading
from trimtab.sampling.decoding import new_cache
from trimtab.sampling.prefills import Prefills, shared_tokens
from trimtab.sampling.recorder import Recorder
from trimtab.sampling.ways import gaps_hold
from trimtab.steering import PositionScope, Steering
from trimtab.tasks import render_prompt

GREEDY = settings(max_new_tokens=20)
SHARED = 30


@pytest.fixture(scope="module")
def requests(model: LanguageModel) -> list[Request]:
    """Twelve questions after the same tokens, and then some of their own."""
    rng = np.random.default_rng(0)
    common = tuple(rng.integers(5, model.identity.vocab_size, SHARED - 1).tolist())
    prompts = [render_prompt(model.tokenizer, p.question) for p in some_problems(12, seed=3)]
    return [Request(str(i), (prompt[0], *common, i + 5, *prompt[1:])) for i, prompt in enumerate(prompts)]


@contextmanager
def _read_whole(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(reading, "SAVED", 10**9)
        yield


def _steering(
    model: LanguageModel, gate: AnyGate = ALWAYS, scope: PositionScope = "generated", strength: float = 3.0
) -> Steering:
    layer, index, shift = np.array([0, 1, 1]), np.array([3, 5, D_FF - 1]), np.array([0.2, -0.1, 0.3], np.float32)
    return Steering(layer, index, np.zeros(3, np.float32), shift, strength, scope, gate, model.identity)


def _gate(pooling: str) -> AnyGate:
    rng = np.random.default_rng(0)
    place = {"layer": np.arange(6) % 2, "index": rng.permutation(D_FF)[:6]}
    weight = rng.normal(size=6).astype(np.float32)
    if pooling == "attention":
        hidden = rng.normal(size=(4, 6)).astype(np.float32)
        output = rng.normal(size=4).astype(np.float32)
        return AttentionGate(
            **place,
            query=weight,
            query_bias=0.1,
            hidden=hidden,
            offset=np.zeros(4, np.float32),
            output=output,
            bias=0.0,
            threshold=0.5,
        )
    return Gate("logistic", **place, weight=weight, bias=0.0, threshold=0.5, pooling=pooling)


def _opened(generation: Generation) -> int | None:
    assert generation.course is not None
    return generation.course.opened_at


GATES = {
    "always": ALWAYS,
    **{pooling: _gate(pooling) for pooling in ("last", "mean", "attention")},
    "random": RandomOpening(opened=np.array([0, 1, 4, 9]), seed=3),
}


def test_the_forwards_read_the_beginning_in_one_row(model: LanguageModel, requests: list[Request]) -> None:
    assert shared_tokens(model, requests, 20) == SHARED
    with forwards(model) as shapes:
        generate_batch(model, requests, GREEDY)
    longest = max(len(request.prompt_ids) for request in requests)
    assert shapes[:2] == [(1, SHARED), (len(requests), longest - SHARED)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_bare_model_says_the_same(
    model: LanguageModel, requests: list[Request], temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = settings(max_new_tokens=20, temperature=temperature)
    found = generate_batch(model, requests, drawn)
    with _read_whole(monkeypatch):
        assert found == generate_batch(model, requests, drawn)


@pytest.mark.parametrize(
    ("name", "scope"), [*((name, "generated") for name in GATES), ("always", "last-and-generated"), ("always", "all")]
)
def test_a_gate_reads_and_a_steering_acts_as_on_whole_prompts(
    model: LanguageModel, requests: list[Request], name: str, scope: PositionScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    steering = _steering(model, GATES[name], scope)
    found = generate_batch(model, requests, GREEDY, steering)
    with _read_whole(monkeypatch):
        expected = generate_batch(model, requests, GREEDY, steering)
    assert [one.response_ids for one in found] == [one.response_ids for one in expected]
    if name in ("last", "mean", "attention"):
        read, whole = ([one.p_fail for one in generations] for generations in (found, expected))
        np.testing.assert_allclose(read, whole, rtol=0, atol=1e-6)  # pyright: ignore[reportArgumentType]
        assert len(set(read)) == len(read)
    if name == "random":
        assert [_opened(one) for one in found] == [_opened(one) for one in expected]
        assert len({_opened(one) for one in found}) > 1


def test_steering_has_changed_something_above(model: LanguageModel, requests: list[Request]) -> None:
    bare, steered = (generate_batch(model, requests, GREEDY, one) for one in (None, _steering(model)))
    assert [one.response_ids for one in bare] != [one.response_ids for one in steered]


@pytest.mark.parametrize("name", ["last", "mean"])
def test_under_a_question_gate_a_running_one_watches_the_same(
    model: LanguageModel, requests: list[Request], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = _gate(name)
    assert isinstance(question, Gate)
    rng = np.random.default_rng(4)
    gate = RunningGate(
        layer=np.arange(4) % 2,
        index=rng.permutation(D_FF)[:4],
        weight=rng.normal(size=4).astype(np.float32),
        bias=0.0,
        threshold=0.5,
        question=question,
        join="or",
    )
    found = generate_batch(model, requests, GREEDY, _steering(model, gate))
    with _read_whole(monkeypatch):
        expected = generate_batch(model, requests, GREEDY, _steering(model, gate))
    assert [one.response_ids for one in found] == [one.response_ids for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.course is not None
        assert other.course is not None
        torch.testing.assert_close(one.course.probability, other.course.probability, rtol=0, atol=1e-6, equal_nan=True)


def test_samples_of_one_problem_share_prompt_and_beginning(
    model: LanguageModel, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = settings(max_new_tokens=12, temperature=1.0)
    several = [Request(f"{one.id}/{i}", one.prompt_ids, 7 * i) for one in requests for i in range(3)]
    gated = _steering(model, _gate("mean"))
    with forwards(model) as shapes:
        found = generate_batch(model, several, drawn, gated)
    assert [rows for rows, length in shapes if length > 1] == [1, len(requests)]
    with _read_whole(monkeypatch):
        assert [one.response_ids for one in found] == [g.response_ids for g in generate_batch(model, several, drawn, gated)]


def test_of_kept_prompts_the_beginning_is_kept_once(model: LanguageModel, requests: list[Request]) -> None:
    longest = max(len(one.prompt_ids) for one in requests)
    a_position = sum(layer.keys[0, :, 0].nbytes * 2 for layer in _read(model).layers)
    logits = len(requests) * model.identity.vocab_size * 4
    needed = -(-(logits + (SHARED + len(requests) * (longest - SHARED)) * a_position) // a_position)
    for positions, kept in ((needed - 1, 0), (needed, 1)):
        prefills = Prefills(2 * positions)
        bare = generate_batch(model, requests, GREEDY, prefills=prefills)
        assert len(prefills) == kept
        with forwards(model) as shapes:
            assert generate_batch(model, requests, GREEDY, prefills=prefills) == bare
        assert ((1, SHARED) in shapes) is not bool(kept)


def _read(model: LanguageModel) -> DynamicCache:
    cache = new_cache(model.hf_model.config, 3)
    model.hf_model(torch.tensor([[5, 6, 7]], device=model.device), past_key_values=cache)
    return cache


def test_kept_prefills_and_drafts_go_on_from_it(model: LanguageModel, requests: list[Request]) -> None:
    kept, steering = Prefills(100_000), _steering(model)
    bare = generate_batch(model, requests, GREEDY, prefills=kept)
    drafts = {one.id: one.response_ids for one in bare}
    plain = generate_batch(model, requests, GREEDY, steering)
    with forwards(model) as shapes:
        found = generate_batch(model, requests, GREEDY, steering, prefills=kept, drafts=drafts)
    assert found == plain
    assert (1, SHARED) not in shapes


@pytest.mark.parametrize(
    ("scopes", "whole"), [(("response", "last-prompt"), False), (("response", "prompt"), True), (("all",), True)]
)
def test_a_recorder_sums_up_the_same(
    model: LanguageModel, requests: list[Request], scopes: tuple[str, ...], whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recorded() -> dict[str, np.ndarray]:
        recorder = Recorder(model, [one.id for one in requests], scopes, ("sum", "square"))  # type: ignore[arg-type]
        generate_batch(model, requests, GREEDY, recorder=recorder)
        moments = recorder.moments()
        return {
            f"{scope}.{name}": getattr(found, name) for scope, found in moments.items() for name in ("count", "sum", "square")
        }

    with forwards(model) as shapes:
        found = recorded()
    assert ((1, SHARED) in shapes) is not whole
    with _read_whole(monkeypatch):
        expected = recorded()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4 * np.abs(array).max(), err_msg=name)


def test_only_a_beginning_that_saves_forwards_counts(model: LanguageModel, requests: list[Request]) -> None:
    assert shared_tokens(model, requests[:1], 20) == 0
    assert shared_tokens(model, [Request(str(i), requests[0].prompt_ids) for i in range(40)], 20) == 0
    assert shared_tokens(model, requests[:2], 20) == 0
    short = [Request(str(i), (*range(5, 11), i + 5, 9)) for i in range(100)]
    assert shared_tokens(model, short, 20) == 0
    one_ends_there = [*requests, Request("short", requests[0].prompt_ids[:SHARED])]
    assert shared_tokens(model, one_ends_there, 20) == SHARED - 1
    found = generate_batch(model, one_ends_there, GREEDY)
    assert found[:-1] == generate_batch(model, requests, GREEDY)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_the_same_and_reads_whole_what_it_cannot_prove(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hf_model, tokenizer = tiny(family), word_tokenizer(pad_token="w0", eos_token="w1")
    layout = find_ffn(hf_model)
    model = LanguageModel(hf_model, tokenizer, layout, identify(hf_model, "tiny", None, layout=layout))
    monkeypatch.setattr(reading, "SAVED", 1)
    common = tuple(np.random.default_rng(0).integers(2, VOCABULARY, 20).tolist())
    prompts = [Request(str(i), (*common, i + 2, *range(9, 9 + i))) for i in range(6)]
    steering = steering_for(hf_model, gate=logistic_gate(threshold=0.5), strength=4.0)
    with forwards(model) as shapes:
        found = generate_batch(model, prompts, settings(max_new_tokens=8), steering)
    assert gaps_hold(model) is ((1, 20) in shapes)
    with _read_whole(monkeypatch):
        expected = generate_batch(model, prompts, settings(max_new_tokens=8), steering)
    assert [one.response_ids for one in found] == [one.response_ids for one in expected]


def test_an_attachment_refuses_a_beginning_that_it_steers(model: LanguageModel) -> None:
    with attach(model, _steering(model, scope="all")) as attachment:
        begun = attachment.reading_beginning()
        with pytest.raises(ModelError, match="one forward"):
            begun.__enter__()
    with attach(model, _steering(model)) as attachment, attachment.reading_beginning():
        out = model.hf_model(torch.tensor([[5, 6, 7]], device=model.device), use_cache=True)
    assert torch.equal(out.logits, model.hf_model(torch.tensor([[5, 6, 7]], device=model.device), use_cache=True).logits)


def test_a_beginning_that_a_gate_has_to_read_is_read_within_attach(model: LanguageModel) -> None:
    for steering in (_steering(model, _gate("last")), _steering(model, scope="all")):
        with attach(model, steering) as attachment, pytest.raises(ModelError, match="read within attach"):
            attachment.note_beginning([5, 6, 7])


PROMPTS = torch.tensor([[*range(5, 17), 20 + row, 9, 40 - row] for row in range(3)])
BEGINNING = 12


def _begun(model: LanguageModel, attachment: Attachment) -> DynamicCache:
    """The beginning of the prompts, read in one row, for three."""
    cache = DynamicCache(config=model.hf_model.config)
    with attachment.reading_beginning():
        model.hf_model(PROMPTS[:1, :BEGINNING], past_key_values=cache)
    cache.batch_repeat_interleave(len(PROMPTS))
    return cache


def _probability(model: LanguageModel, attachment: Attachment, ids: torch.Tensor, **options: object) -> torch.Tensor:
    model.hf_model(ids, use_cache=True, **options)
    assert attachment.probability is not None
    return attachment.probability


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_a_beginning_that_no_prompt_followed_is_forgotten(model: LanguageModel, pooling: str) -> None:
    steering = _steering(model, _gate(pooling))
    with attach(model, steering) as attachment:
        expected = _probability(model, attachment, PROMPTS)
    with attach(model, steering) as attachment:
        _begun(model, attachment)
        assert torch.equal(_probability(model, attachment, PROMPTS), expected)
    broken = model.layout.down[1].register_forward_hook(lambda *_: 1 / 0)
    with attach(model, steering) as attachment:
        with pytest.raises(ZeroDivisionError):
            _begun(model, attachment)
        broken.remove()
        assert torch.equal(_probability(model, attachment, PROMPTS), expected)
        found = _probability(model, attachment, PROMPTS[:, BEGINNING:], past_key_values=_begun(model, attachment))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_random_opening_is_drawn_by_the_prompts_that_are_read(model: LanguageModel) -> None:
    def drawn(begun: bool) -> list[int | None]:
        with attach(model, _steering(model, GATES["random"])) as attachment:
            if begun:
                _begun(model, attachment)
            model.hf_model.generate(PROMPTS, max_new_tokens=10, min_new_tokens=10, do_sample=False)
            return [course.opened_at for course in attachment.courses]

    assert drawn(begun=True) == drawn(begun=False)


def test_a_beginning_is_one_forward_of_one_row(model: LanguageModel) -> None:
    ids = PROMPTS[:1, :BEGINNING]
    embedded = model.hf_model.get_input_embeddings()(ids)
    with attach(model, _steering(model, _gate("mean"))) as attachment, attachment.reading_beginning():
        cache = DynamicCache(config=model.hf_model.config)
        model.hf_model(ids, past_key_values=cache)
        for wrong in ({"input_ids": PROMPTS}, {"inputs_embeds": embedded}, {"input_ids": ids, "past_key_values": cache}):
            with pytest.raises(ModelError, match="in one forward, as one row of input_ids"):
                model.hf_model(**wrong, use_cache=True)
        with pytest.raises(ModelError, match="in one forward, as one row of input_ids"):
            model.hf_model.generate(ids, max_new_tokens=3, min_new_tokens=3)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_a_gate_that_scores_responses_reads_prompts_whole(model: LanguageModel, pooling: str) -> None:
    with attach(model, _steering(model, _gate(pooling)), prompt_lengths=[13, 13, 14]) as attachment:
        begun = attachment.reading_beginning()
        with pytest.raises(ModelError, match="each has to be whole"):
            begun.__enter__()


@pytest.mark.parametrize("read_anew", [False, True])
def test_a_conversation_goes_on_after_a_beginning(model: LanguageModel, read_anew: bool) -> None:
    """What was generated in its first turn stays steered in the second."""
    marked: list[list[int]] = []
    for begun in (False, True):
        with attach(model, _steering(model)) as attachment:
            cache = _begun(model, attachment) if begun else DynamicCache(config=model.hf_model.config)
            said = model.hf_model.generate(
                PROMPTS, past_key_values=cache, max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0
            )
            more = torch.cat((said, PROMPTS[:, :3]), 1)
            model.hf_model.generate(
                more, past_key_values=None if read_anew else cache, max_new_tokens=4, min_new_tokens=4, do_sample=False
            )
            marked.append(attachment._conversation.scope().int().tolist())
    assert marked[0] == marked[1]
    assert sum(marked[0][0]) == 7
