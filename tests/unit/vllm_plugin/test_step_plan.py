import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.steering import PositionScope
from trimtab.vllm_plugin.options import UNSTEERED, ResolvedOptions
from trimtab.vllm_plugin.request_slots import BUCKETS, NOBODY, RequestSlots
from trimtab.vllm_plugin.step_plan import plan_step

SCOPES: tuple[PositionScope, ...] = ("generated", "last-and-generated", "all")
CPU = torch.device("cpu")


def options(slot: int, strength: float, scope: PositionScope, gate: int) -> ResolvedOptions:
    return ResolvedOptions(slot, "d", strength, scope, gate) if slot else UNSTEERED


requests = st.lists(
    st.tuples(
        st.integers(0, 3),  # slot
        st.floats(-2, 2, width=32),
        st.sampled_from(SCOPES),
        st.integers(0, 2),  # gate
        st.integers(1, 6),  # prompt length
        st.integers(1, 9),  # tokens in all
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=80, deadline=None)
@given(requests=requests, seed=st.integers(0, 10**6))
def test_every_token_of_every_step_agrees_with_a_loop_over_positions(requests: list[tuple], seed: int) -> None:
    """Chunks of random sizes, some of them computed again after a preemption, in a shuffled batch."""
    rng = np.random.default_rng(seed)
    slots = RequestSlots(2, CPU)
    places = []
    for i, (slot, strength, scope, gate, prompt, _) in enumerate(requests):
        own = options(slot, strength, scope, gate)
        if not own.steers:
            places.append(NOBODY)
            continue
        state = slots.begin(f"r{i}", own, prompt, None if gate == 1 else 1.0, reads=True)
        slots.host.watched[state.place] = True
        slots.host.record_row[state.place] = i
        places.append(state.place)
    done, recorded, monitored, decided = [0] * len(requests), set(), set(), set()
    for _ in range(40):
        if all(done[i] >= request[5] for i, request in enumerate(requests)):
            break
        batch = [int(i) for i in rng.permutation(len(requests)) if done[i] < requests[i][5] and rng.random() < 0.8]
        if not batch:
            continue
        for i in batch:
            if rng.random() < 0.15:
                done[i] = 0
        start = np.array([done[i] for i in batch])
        count = np.array([int(rng.integers(1, requests[i][5] - done[i] + 1)) for i in batch])
        plan = plan_step(slots.host, np.array([places[i] for i in batch]), start, count, nowhere=99, buckets=BUCKETS)
        token, deciding = 0, []
        for i, first, n in zip(batch, start, count, strict=True):
            slot, strength, scope, gate, prompt, _ = requests[i]
            for position in range(first, first + n):
                in_scope = {"generated": position >= prompt, "last-and-generated": position >= prompt - 1, "all": True}[scope]
                assert plan.row[token] == slot
                assert plan.strength[token] == np.float32(strength if slot and gate and in_scope else 0.0)
                assert plan.place[token] == places[i]
                kind = 0 if position < prompt - 1 else 1 if position == prompt - 1 else 2
                new = slot > 0 and (i, position) not in recorded
                assert plan.target[token] == (i * 3 + kind if new else 99)
                assert plan.monitored[token] == (new and position >= prompt)
                if slot and position == prompt - 1 and i not in decided:
                    deciding.append([token, places[i], slot, int(gate == 1)])
                    decided.add(i)
                if new:
                    recorded.add((i, position))
                    monitored |= {(i, position)} if position >= prompt else set()
                token += 1
            done[i] = first + n
        assert len(plan) == token
        assert sorted(plan.decide.T.tolist()) == sorted(deciding)
    for i, place in enumerate(places):
        if place != NOBODY:
            assert slots.host.counts[place].sum() == len([1 for j, _ in recorded if j == i])
            assert slots.host.monitored[place] == len([1 for j, _ in monitored if j == i])
    assert not slots.host.row[NOBODY]
    assert slots.host.record_row[NOBODY] == -1


def test_places_are_given_back_and_grow_when_they_run_out() -> None:
    slots = RequestSlots(2, CPU)
    own = options(1, 1.0, "generated", 1)
    places = [slots.begin(str(i), own, 4, None, reads=True).place for i in range(5)]
    assert len(set(places)) == 5
    assert NOBODY not in places
    slots.active[places[4]] = 0.5
    assert slots.end("4") is not None
    assert slots.end("4") is None
    again = slots.begin("again", own, 4, None, reads=True)
    assert again.place == places[4]
    assert float(slots.active[again.place]) == 0.0
    assert torch.isnan(slots.probability[again.place])
    assert len(slots) == 5


@pytest.mark.parametrize("buckets", [("response",), ("prompt", "last-prompt"), ("last-prompt",)])
def test_only_the_kinds_of_tokens_that_are_needed_have_rows(buckets: tuple[str, ...]) -> None:
    slots = RequestSlots(2, CPU)
    state = slots.begin("r", options(1, 1.0, "all", 2), 3, 1.0, reads=False)
    slots.host.record_row[state.place] = 1
    plan = plan_step(slots.host, np.array([state.place]), np.array([0]), np.array([5]), nowhere=50, buckets=buckets)
    kinds = ("prompt", "prompt", "last-prompt", "response", "response")
    assert plan.target.tolist() == [len(buckets) + buckets.index(kind) if kind in buckets else 50 for kind in kinds]
