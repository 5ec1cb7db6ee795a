import copy
import gc
from dataclasses import dataclass, replace

import pytest
from pydantic import ValidationError

from layered_stack import linear, steering
from trimtab.errors import InputError, MismatchError
from trimtab.gate import ALWAYS, RunningGate
from trimtab.steering import Steering
from trimtab.vllm_plugin.adapters import Adapters, Lease, cache_salt, with_own_blocks
from trimtab.vllm_plugin.config import PluginConfig, RecordConfig
from trimtab.vllm_plugin.options import UNSTEERED, ResolvedOptions


def filled(*names: str, slots: int = 3, default: str | None = None) -> Adapters:
    config = PluginConfig(max_steerings=slots, steerings={name: name for name in names}, default=default)
    adapters = Adapters(config)
    for seed, name in enumerate(names):
        adapters.add(adapters.reserve(name, name, steering(seed)))
    return adapters


def test_a_request_is_told_its_slot_and_keeps_what_is_others() -> None:
    adapters = filled("a", "b", default="b")
    resolved, lease = adapters.admit({"steering": "a", "strength": 2.0, "kv": 1})
    assert resolved == ResolvedOptions(1, steering(0).digest, 2.0, "all", 1)
    assert lease is not None
    assert ResolvedOptions.of(lease) == resolved
    assert lease["kv"] == 1
    assert "steering" not in lease
    assert adapters.admit(None)[0].slot == 2
    assert adapters.admit({"steering": "none"}) == (ResolvedOptions(), None)


def test_a_removed_steering_drains_before_its_slot_is_given_away() -> None:
    adapters = filled("a", "b", "c")
    first, second = adapters.admit({"steering": "b"})[1], adapters.admit({"steering": "b"})[1]
    assert adapters.requests(2) == 2
    adapters.remove("b")
    with pytest.raises(InputError, match="steering 'b' cannot be used; accepted: none, a, c"):
        adapters.admit({"steering": "b"})
    assert adapters.drained() == ()
    with pytest.raises(InputError, match=r"all 3 slots are taken by a, c, and these are still in use: 'b' \(2 requests\)"):
        adapters.reserve("d", "d", steering(4))
    del first
    gc.collect()
    assert adapters.requests(2) == 1
    del second
    gc.collect()
    assert adapters.drained() == (2,)
    with pytest.raises(InputError, match="all 3 slots are taken"):  # the workers still hold it
        adapters.reserve("d", "d", steering(4))
    adapters.forget(2)
    assert adapters.reserve("d", "d", steering(4)).adapter.slot == 2


def test_a_clone_of_a_request_is_the_same_request() -> None:
    adapters = filled("a")
    lease = adapters.admit({"steering": "a"})[1]
    assert isinstance(lease, Lease)
    kept = copy.deepcopy({"extra_args": lease})["extra_args"]
    assert kept is lease
    del lease
    gc.collect()
    assert adapters.requests(1) == 1
    del kept
    gc.collect()
    assert adapters.requests(1) == 0


def test_equal_requests_hold_a_slot_each() -> None:
    adapters = filled("a")
    leases = [adapters.admit({"steering": "a"})[1] for _ in range(3)]
    assert adapters.requests(1) == len(leases)


def test_names() -> None:
    adapters = filled("a", default="a")
    for name, message in (("a", "'a' is loaded already"), ("none", "'none' cannot be the name"), ("", "'' cannot be the name")):
        with pytest.raises(InputError, match=message):
            adapters.reserve(name, "p", steering(0))
    with pytest.raises(InputError, match="no steering 'x' is loaded; loaded: a"):
        adapters.remove("x")
    with pytest.raises(InputError, match="'a' is the default of requests"):
        adapters.remove("a")


def test_what_the_workers_refuse_leaves_its_slot_free() -> None:
    adapters = filled("a", slots=2)
    reservation = adapters.reserve("b", "b", steering(1))
    with pytest.raises(InputError, match="'b' is loaded already"):
        adapters.reserve("b", "b", steering(1))
    with pytest.raises(InputError, match="steering 'b' cannot be used"):
        adapters.admit({"steering": "b"})
    adapters.abandon(reservation)
    assert adapters.reserve("c", "c", steering(2)).adapter.slot == 2


def test_other_weights_are_refused_before_a_slot_is_taken() -> None:
    def check(_: Steering, name: str) -> None:
        raise MismatchError(f"{name}: other weights")

    adapters = Adapters(PluginConfig(max_steerings=1), check)
    with pytest.raises(MismatchError, match="a: other weights"):
        adapters.reserve("a", "a", steering(0))


def test_recording_has_to_be_asked_for_at_the_start() -> None:
    with pytest.raises(InputError, match="record 1 cannot be used: this engine was started without `record`"):
        filled("a").admit({"record": 1})
    adapters = Adapters(PluginConfig(record=RecordConfig(scopes=("response",))))
    assert adapters.admit({"record": 1})[0].record
    assert not adapters.records_prompts
    assert Adapters(PluginConfig(record=RecordConfig(scopes=("all",)))).records_prompts


def test_a_gate_is_known_to_the_front() -> None:
    adapters = Adapters(PluginConfig())
    adapter = adapters.add(adapters.reserve("g", "g", steering(0, scope="generated", gate=linear(1))))
    assert adapter.reads
    assert adapter.gate == "logistic, last prompt token"


STEERED = ResolvedOptions(1, "digest", 1.0, "generated", 1)


@dataclass
class Params:
    extra_args: dict[str, object] | None


@dataclass
class Request:
    request_id: str
    num_prompt_tokens: int
    sampling_params: Params | None


def watching() -> Adapters:
    own = linear(0)
    adapters = Adapters(PluginConfig(steerings={"a": "a", "w": "w"}, watch="w"))
    gate = RunningGate(own.layer, own.index, own.weight, threshold=0.5)
    for name, gate_of in (("a", ALWAYS), ("w", gate)):
        adapters.add(adapters.reserve(name, name, steering(1, scope="generated", gate=gate_of)))
    return adapters


def test_an_unsteered_request_is_watched_and_counted_as_unsteered() -> None:
    adapters = watching()
    resolved, lease = adapters.admit({"steering": "none"})
    assert (resolved.slot, resolved.gate) == (2, 0)
    assert adapters.requests(2) == 1
    assert lease is not None
    adapters.enter(resolved)
    assert not adapters.entered
    assert adapters.admit(None, whole=False) == (UNSTEERED, None)
    with pytest.raises(InputError, match="'w' watches unsteered requests; start the engine with another steering"):
        adapters.remove("w")


def test_only_a_running_gate_can_watch() -> None:
    adapters = Adapters(PluginConfig(steerings={"a": "a"}, watch="a"))
    with pytest.raises(InputError, match=r"'a' cannot watch unsteered requests: its gate is always.*accepted: a steering behind"):
        adapters.reserve("a", "a", steering(0))
    with pytest.raises(ValidationError, match="watch 'b' is none of the steerings: a"):
        PluginConfig(steerings={"a": "a"}, watch="b")


def test_a_request_that_is_only_watched_shares_blocks_with_unsteered_ones() -> None:
    watched = ResolvedOptions(1, "d", 1.0, "generated", 0)
    assert cache_salt("own", watched) == "own"
    assert cache_salt(None, watched) is None


def test_an_unsteered_request_keeps_its_own_salt() -> None:
    assert cache_salt(None, UNSTEERED) is None
    assert cache_salt("mine", UNSTEERED) == "mine"


def test_every_part_of_a_steering_makes_another_salt() -> None:
    others = [
        replace(STEERED, digest="other"),
        replace(STEERED, strength=0.5),
        replace(STEERED, scope="all"),
        replace(STEERED, gate=2),
    ]
    salts = [cache_salt(own, options) for own in (None, "", "mine") for options in (STEERED, *others)]
    assert len(set(salts)) == len(salts)
    assert cache_salt("mine", STEERED) == cache_salt("mine", replace(STEERED, slot=5))


def test_a_salt_of_ours_cannot_be_sent() -> None:
    salt = cache_salt(None, STEERED)
    with pytest.raises(InputError, match="cannot be used; accepted: one that does not begin with 'trimtab:'"):
        cache_salt(salt, UNSTEERED)


@pytest.mark.parametrize(
    ("options", "blocks"),
    [
        (UNSTEERED, [False, False, False]),
        (STEERED, [False, True, True]),
        (replace(STEERED, scope="last-and-generated"), [False, True, True]),
        (replace(STEERED, scope="all"), [False, False, False]),
    ],
)
def test_blocks_that_reach_into_steered_positions_are_the_requests_own(options: ResolvedOptions, blocks: list[bool]) -> None:
    generate = with_own_blocks(lambda request, start, end, mm: (None if start else (("cache_salt", "s"),), mm + 1))
    request = Request("r-1", 20, Params(options.entries()))
    for number, own in enumerate(blocks):
        keys, following = generate(request, number * 16, number * 16 + 16, 3)
        assert following == 4
        assert (("trimtab_request", "r-1") in (keys or ())) == own
        assert (("cache_salt", "s") in (keys or ())) == (number == 0)
    assert generate(Request("p", 20, None), 16, 32, 0) == (None, 1)


def test_a_block_that_ends_with_the_prompt_is_shared() -> None:
    generate = with_own_blocks(lambda request, start, end, mm: (None, mm))
    request = Request("r", 32, Params(STEERED.entries()))
    assert generate(request, 16, 32, 0)[0] is None
    assert generate(request, 32, 48, 0)[0] == (("trimtab_request", "r"),)
    last = Request("r", 32, Params(replace(STEERED, scope="last-and-generated").entries()))
    assert generate(last, 16, 32, 0)[0] == (("trimtab_request", "r"),)


def test_a_request_above_the_limit_is_counted_and_the_first_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    own = replace(steering(0), facts={"dose": {"layer": [0], "unit": [0.25], "tokens": 9}})
    adapters = Adapters(PluginConfig(max_steerings=2, max_dose=0.5, over_dose="clamp"))
    adapters.add(adapters.reserve("a", "a", own))
    given = [adapters.admit({"steering": "a", "strength": s})[0].strength for s in (1.0, 3.0, -8.0)]
    assert given == [1.0, 2.0, -2.0]
    assert adapters.over_dose == {"a": 2}
    assert [record.getMessage() for record in caplog.records] == [
        "strength 3 of 'a' is above max_dose 0.5; such requests are steered at 2 and counted in /metrics"
    ]
    with pytest.raises(InputError, match="the dose of 'b' was not measured"):
        adapters.reserve("b", "b", steering(1))
    assert adapters.reserve("b", "b", replace(own, facts={**own.facts})).adapter.slot == 2  # the refused one took no slot


def test_where_doses_are_only_warned_of_an_unmeasured_steering_is_told(caplog: pytest.LogCaptureFixture) -> None:
    adapters = Adapters(PluginConfig(max_dose=0.5))
    adapters.add(adapters.reserve("a", "a", steering(0)))
    assert adapters.admit({"steering": "a", "strength": 1e5})[0].strength == 1e5
    assert "the dose of 'a' was not measured, so max_dose does not hold for it" in caplog.text
