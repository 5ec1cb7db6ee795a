"""VllmEngine against the transformers loop on the bundled reasoner: tokens up to near ties, gates, seeds, moments, room."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from live_engines import Figures
from running_gates import running_gates
from sentinels import half_open
from tiny_testbed import some_problems
from trimtab.errors import InputError
from trimtab.gate import Gate, RandomOpening
from trimtab.model import LanguageModel
from trimtab.recording import record_batch
from trimtab.sampling import TRANSFORMERS, Request, SamplingSettings, VllmEngine, VllmOptions
from trimtab.sampling.agreement import Parting, partings
from trimtab.sampling.sample import as_trace
from trimtab.steering import Steering
from trimtab.tasks import render_prompt
from trimtab.traces import Split

GREEDY = SamplingSettings(n=1, temperature=0.0, max_new_tokens=96)
SCOPES, MOMENTS = ("response", "all", "prompt", "last-prompt"), ("sum", "magnitude", "square")


@pytest.fixture(scope="module")
def requests(reasoner: LanguageModel) -> list[Request]:
    problems = some_problems(32, Split.VALIDATION)
    return [Request(f"{p.id}/0", render_prompt(reasoner.tokenizer, p.question), seed) for seed, p in enumerate(problems)]


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    with VllmEngine(VllmOptions(enforce_eager=True)) as running:
        yield running


def scattered(model: LanguageModel, seed: int = 0, k: int = 40, layers: tuple[int, ...] = (1, 2, 3)) -> Steering:
    """Neurons by a fixed draw, scaled and shifted enough to change most chains and few enough to leave them chains."""
    rng = np.random.default_rng(seed)
    flat = rng.permutation(np.concatenate([np.arange(model.d_ff) + layer * model.d_ff for layer in layers]))[:k]
    gain, shift = rng.normal(0.0, 0.5, k).astype(np.float32), rng.normal(0.0, 8.0, k).astype(np.float32)
    none = Gate("always")
    return Steering(flat // model.d_ff, flat % model.d_ff, gain, shift, 1.0, "generated", none, model.identity)


@pytest.fixture(scope="module")
def gated(reasoner: LanguageModel, requests: list[Request]) -> Steering:
    """Behind a gate that fires on half of the prompts."""
    return scattered(reasoner).with_gate(half_open(reasoner, [list(request.prompt_ids) for request in requests]))


def only_near_ties(found: list[Parting]) -> bool:
    """Print where the engines part, and say whether rounding explains all of it."""
    print("partings:", found)
    return all(parting.near_tie for parting in found)


@pytest.mark.parametrize("gate", [None, "on", "auto", "off"])
def test_greedy_chains_up_to_near_ties(
    engine: VllmEngine, reasoner: LanguageModel, requests: list[Request], gated: Steering, gate
) -> None:
    attached = (gated, gate) if gate else (None, "auto")
    ours = engine.generate(reasoner, requests, GREEDY, *attached)
    theirs = TRANSFORMERS.generate(reasoner, requests, GREEDY, *attached)
    found = partings(reasoner, requests, theirs, ours, *attached)
    assert only_near_ties(found)
    assert len(found) <= 2
    apart = {parting.id for parting in found}
    assert [g.finish for g in ours if g.id not in apart] == [g.finish for g in theirs if g.id not in apart]
    assert [g.id for g in ours] == [request.id for request in requests]


def test_the_gate_sees_what_it_sees_in_transformers(
    engine: VllmEngine, reasoner: LanguageModel, requests: list[Request], gated: Steering, figures: Figures
) -> None:
    ours = engine.generate(reasoner, requests, GREEDY, gated, "auto")
    theirs = TRANSFORMERS.generate(reasoner, requests, GREEDY, gated, "auto")
    apart = max(
        abs(a.p_fail - b.p_fail) for a, b in zip(ours, theirs, strict=True) if a.p_fail is not None and b.p_fail is not None
    )
    figures(f"offline p(fail) differs by {apart:.1e}")
    np.testing.assert_allclose([g.p_fail for g in ours], [g.p_fail for g in theirs], rtol=0, atol=1e-4)
    fired = [g.p_fail >= gated.gate.threshold for g in ours if g.p_fail is not None]
    assert sum(fired) == len(requests) // 2
    bare, steered = (engine.generate(reasoner, requests, GREEDY, gated, gate) for gate in ("off", "on"))
    assert {g.p_fail for g in (*bare, *steered)} == {None}
    for one, fires, without, with_it in zip(ours, fired, bare, steered, strict=True):
        assert one.response_ids == (with_it if fires else without).response_ids
    assert sum(b.response_ids != s.response_ids for b, s in zip(bare, steered, strict=True)) > 10


@pytest.mark.parametrize("name", ["mean-open", "slow-scale", "last-and"])
def test_a_running_gate_takes_the_course_that_it_takes_in_transformers(
    engine: VllmEngine, reasoner: LanguageModel, requests: list[Request], gated: Steering, figures: Figures, name: str
) -> None:
    some, question = requests[:16], gated.gate
    assert isinstance(question, Gate)
    gate = running_gates(reasoner, [list(request.prompt_ids) for request in some], question)[name]
    steering = gated.with_gate(gate)
    ours = engine.generate(reasoner, some, GREEDY, steering, "auto")
    theirs = TRANSFORMERS.generate(reasoner, some, GREEDY, steering, "auto")
    found = partings(reasoner, some, theirs, ours, steering, "auto")
    assert only_near_ties(found)
    assert len(found) <= 2
    apart = {parting.id for parting in found}
    same = [pair for pair in zip(ours, theirs, strict=True) if pair[0].id not in apart]
    for one, other in same:
        assert one.course is not None
        assert other.course is not None
        torch.testing.assert_close(one.course.probability, other.course.probability, rtol=0, atol=1e-4)
        torch.testing.assert_close(one.course.value, other.course.value, rtol=0, atol=2e-4)
        assert one.course.steered_tokens == other.course.steered_tokens
        assert (one.p_fail is None) == (other.p_fail is None) == (gate.question is None)
    steered = sum(one.course.steered_tokens for one, _ in same if one.course is not None)
    assert 0 < steered < sum(len(one.response_ids) - 1 for one, _ in same)
    figures(f"offline {name}: {steered} tokens steered in {len(same)} responses, as in transformers")


def test_a_control_that_opens_at_random_opens_where_it_does_in_transformers(
    engine: VllmEngine, reasoner: LanguageModel, requests: list[Request], gated: Steering
) -> None:
    some = requests[:16]
    steering = gated.with_gate(RandomOpening(np.array([0, 1, 2, 9, 30]), seed=3))
    ours = engine.generate(reasoner, some, GREEDY, steering, "auto")
    theirs = TRANSFORMERS.generate(reasoner, some, GREEDY, steering, "auto")
    apart = {parting.id for parting in partings(reasoner, some, theirs, ours, steering, "auto")}
    assert len(apart) <= 2
    for one, other in zip(ours, theirs, strict=True):
        if one.id not in apart:
            assert one.course is not None
            assert other.course is not None
            assert torch.equal(one.course.value, other.course.value)
    assert len({one.course.opened_at for one in ours if one.course is not None}) == 5


def test_steerings_come_and_go(engine: VllmEngine, reasoner: LanguageModel, requests: list[Request]) -> None:
    """More of them than the engine has slots, then the first again."""
    some = requests[:8]
    firsts = []
    for seed in (1, 2, 3, 4, 5, 1):
        steering = scattered(reasoner, seed)
        ours = engine.generate(reasoner, some, GREEDY, steering, "on")
        theirs = TRANSFORMERS.generate(reasoner, some, GREEDY, steering, "on")
        assert only_near_ties(partings(reasoner, some, theirs, ours, steering, "on"))
        firsts.append([g.response_ids for g in ours])
    assert firsts[0] == firsts[-1]
    assert len({str(first) for first in firsts}) == 5


def test_length_and_end_are_as_in_the_loop(engine: VllmEngine, reasoner: LanguageModel, requests: list[Request]) -> None:
    short = GREEDY.model_copy(update={"max_new_tokens": 60})
    ours, theirs = (generator.generate(reasoner, requests, short) for generator in (engine, TRANSFORMERS))
    assert {g.finish for g in ours} == {"stop", "length"}
    assert [(len(g.response_ids), g.finish) for g in ours] == [(len(g.response_ids), g.finish) for g in theirs]
    end = reasoner.tokenizer.eos_token_id
    assert all((g.response_ids[-1] == end) == (g.finish == "stop") for g in ours)
    with pytest.raises(InputError, match=r"comes to \d+ tokens, and this engine takes 512"):
        engine.generate(reasoner, requests[:1], GREEDY.model_copy(update={"max_new_tokens": 500}))


def test_a_sampled_chain_depends_on_its_seed_alone(engine: VllmEngine, reasoner: LanguageModel, requests: list[Request]) -> None:
    sampled = SamplingSettings(temperature=1.0, top_p=0.95, max_new_tokens=40)
    some = [Request(f"{i}/0", request.prompt_ids, i) for i, request in enumerate(requests[:6] * 2)]
    together = engine.generate(reasoner, some, sampled)
    backwards = engine.generate(reasoner, some[::-1], sampled)[::-1]
    assert together == backwards
    pairs = list(zip(together[:6], together[6:], strict=True))
    assert sum(a.response_ids != b.response_ids for a, b in pairs) >= 5


def test_a_steering_that_needs_more_room_starts_the_engine_again(
    engine: VllmEngine, reasoner: LanguageModel, requests: list[Request]
) -> None:
    wide = scattered(reasoner, 9, k=90, layers=(2,)).with_strength(0.4)
    ours = engine.generate(reasoner, requests[:6], GREEDY, wide, "on")
    theirs = TRANSFORMERS.generate(reasoner, requests[:6], GREEDY, wide, "on")
    assert only_near_ties(partings(reasoner, requests[:6], theirs, ours, wide, "on"))


def test_recorded_moments_are_those_of_the_same_tokens(
    engine: VllmEngine, reasoner: LanguageModel, requests: list[Request], figures: Figures
) -> None:
    sampled = SamplingSettings(temperature=1.0, max_new_tokens=96)
    some = [*requests, Request("again/0", requests[0].prompt_ids, 99)]
    generations, moments = engine.generate_recorded(reasoner, some, sampled, SCOPES, MOMENTS)
    assert generations == engine.generate(reasoner, some, sampled)
    traces = [as_trace(reasoner, request, generation) for request, generation in zip(some, generations, strict=True)]
    expected = record_batch(reasoner, traces, SCOPES, MOMENTS)
    assert list(moments) == list(SCOPES)
    most = 0.0
    for scope in SCOPES:
        np.testing.assert_array_equal(moments[scope].count, expected[scope].count)
        for name in MOMENTS:
            ours, theirs = getattr(moments[scope], name), getattr(expected[scope], name)
            apart = float((np.abs(ours - theirs) / np.abs(theirs).max(-1, keepdims=True)).max())
            assert apart <= 1e-5, (scope, name)
            most = max(most, apart)
    figures(f"recorded moments differ by {most:.1e} of the largest of their layer")


def test_a_response_of_one_token_has_no_response_moments(
    engine: VllmEngine, reasoner: LanguageModel, requests: list[Request]
) -> None:
    one = GREEDY.model_copy(update={"max_new_tokens": 1})
    _, moments = engine.generate_recorded(reasoner, requests[:2], one, ("response", "last-prompt"), ("sum",))
    assert moments["response"].count.tolist() == [0, 0]
    assert moments["last-prompt"].count.tolist() == [1, 1]
    assert moments["response"].sum is not None
    assert not moments["response"].sum.any()
    with pytest.raises(InputError, match="accepted: sum, magnitude, square"):
        engine.generate_recorded(reasoner, requests[:2], one, ("response",), ("mean",))
